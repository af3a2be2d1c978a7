"""Writer and calibration as processes: they start, answer, and end in order, or say in a line why not."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path
from typing import Any

import aiokatcp
import pytest

from pipelines.common import telstate as ts
from pipelines.common.baselines import correlator_ordering
from pipelines.common.endpoints import parse_endpoint
from pipelines.common.stream_info import VisStream

STREAM = VisStream(
    name="sdp_l0",
    n_chans=8,
    bandwidth=4e6,
    center_freq=1.4e9,
    sync_time=1.6e9,
    int_time=1.0,
    bls_ordering=correlator_ordering(["m000", "m001", "m002"]),
    src_streams=("bcp",),
)
INPUT = "--input=239.192.71.17+1:17257"
WRITER = ["pipelines.writer", "--stream=sdp_l0", INPUT]
CAL = ["pipelines.calibration", "--stream=cal", "--input-stream=sdp_l0", INPUT]


async def start(arguments: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stderr=asyncio.subprocess.PIPE
    )


async def katcp_port(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    async for line in process.stderr:
        if ready := re.search(rb"ready on 127.0.0.1:(\d+)", line):
            return int(ready[1])
    pytest.fail("ended before it was ready")


@pytest.mark.parametrize("arguments", [WRITER, CAL], ids=["writer", "cal"])
async def test_a_program_ends_in_order_in_the_middle_of_a_block(
    arguments: list[str], redis_server: Any, tmp_path: Path
) -> None:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        await STREAM.publish(telstate)
        own = [f"--data={tmp_path}"] if arguments is WRITER else ["--preferred-refants=m001"]
        process = await start([*arguments, *own, f"--telstate={redis_server.endpoint}"])
        try:
            async with asyncio.timeout(120):
                port = await katcp_port(process)
                client = await aiokatcp.Client.connect("127.0.0.1", port)
                await client.request("capture-init", "1234567890")
                client.close()
                await client.wait_closed()
                process.send_signal(signal.SIGTERM)
                _, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0
        assert b"Traceback" not in errors
        if arguments is CAL:
            assert await ts.get(telstate.view("cal"), "antlist") == ["m000", "m001", "m002"]
        else:
            view = telstate.view("1234567890_sdp_l0")
            assert (await ts.get(view, "chunk_info_of_dump"))["flags"]["shape"] == (1, 8, 24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*WRITER, "--data=/tmp"], "--telstate"),
        ([*WRITER, "--data=/nowhere", "--telstate=127.0.0.1:1"], "/nowhere"),
        ([*CAL, "--telstate=127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
async def test_a_failed_start_says_why_in_a_line(arguments: list[str], message: str) -> None:
    process = await start(arguments)
    async with asyncio.timeout(120):
        _, errors = await process.communicate()
    assert process.returncode == 1
    (line,) = errors.decode().splitlines()
    assert message in line
