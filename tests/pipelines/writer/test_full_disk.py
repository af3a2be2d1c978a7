"""The writer on a disk that is really full: a file system of its own, of two megabytes."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiokatcp
import pytest

from pipelines.common import telstate as ts
from pipelines.common.endpoints import parse_endpoint
from tests.conftest import PATIENCE
from tests.pipelines.writer.test_server import ENDPOINTS, STREAM, send

CBID = "1000000001"
FATES = ("dumps-written", "heaps-not-written", "heaps-dropped")
PRIVATE = ["unshare", "--user", "--map-root-user", "--mount"]
"""Runs a command with mounts of its own, as anybody may."""


async def may_mount(command: str) -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = await asyncio.create_subprocess_exec(
        *PRIVATE, "sh", "-c", command, stderr=asyncio.subprocess.DEVNULL
    )
    return await probe.wait() == 0


@pytest.fixture
async def writer(redis_server: Any, tmp_path: Path) -> AsyncIterator[tuple[aiokatcp.Client, Path]]:
    """A writer's KATCP client, and its data volume seen from outside."""
    data = tmp_path / "data"
    data.mkdir()
    mount = f"mount -t tmpfs -o size=2m none '{data}'"
    if not await may_mount(mount):
        pytest.skip("nobody but root may mount a file system here")
    command = f"{mount} && exec '{sys.executable}' -m pipelines.writer \"$@\""
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        await STREAM.publish(telstate)
    process = await asyncio.create_subprocess_exec(
        *(*PRIVATE, "sh", "-c", command, "sh", "--stream=sdp_l0", f"--input={ENDPOINTS[0]}"),
        *(f"--data={data}", f"--telstate={redis_server.endpoint}"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(120):
            async for line in process.stderr:
                if ready := re.search(rb"ready on 127.0.0.1:(\d+)", line):
                    break
        client = await aiokatcp.Client.connect("127.0.0.1", int(ready[1]) if ready else 0)
        yield client, Path(f"/proc/{process.pid}/root{data}")
        client.close()
        await client.wait_closed()
        assert process.returncode is None  # it has survived everything
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(60):
                _, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            _, errors = await process.communicate()
    assert process.returncode == 0 and b"Traceback" not in errors


async def value(client: aiokatcp.Client, sensor: str) -> str:
    _, (inform,) = await client.request("sensor-value", sensor)
    return str(inform.arguments[4].decode())


async def total(client: aiokatcp.Client, *sensors: str) -> int:
    return sum([int(await value(client, sensor)) for sensor in sensors])


async def reach(client: aiokatcp.Client, least: int, *sensors: str) -> None:
    for _ in range(int(PATIENCE / 0.02)):
        if await total(client, *sensors) >= least:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{sensors} stay below {least}")


async def test_it_counts_what_the_disk_refuses_and_goes_on_when_there_is_room(
    writer: tuple[aiokatcp.Client, Path],
) -> None:
    client, data = writer
    ballast = data / "ballast"
    ballast.write_bytes(bytes(2_000_000))
    await client.request("capture-init", CBID)
    # Each dump is four files of a page and more; eight dumps wait until the next ones come.
    for first in range(0, 30, 5):
        await send(CBID, range(first, first + 5), None)
        await reach(client, first + 5 - 8, *FATES)
    await reach(client, 10, "heaps-not-written")
    assert await value(client, "device-status") == "fail"
    written = int(await value(client, "dumps-written"))
    assert 1 <= written <= 20
    ballast.unlink()
    await send(CBID, range(30, 40), 40)
    await client.request("capture-done")
    assert int(await value(client, "dumps-written")) >= written + 10
    assert await total(client, *FATES) == int(await value(client, "input-heaps-total")) == 40
    names = {path.name[:5] for path in data.glob("*/correlator_data/*.npy")}
    assert len(names) == int(await value(client, "dumps-written"))
    assert not list(data.rglob("*.writing.npy"))
