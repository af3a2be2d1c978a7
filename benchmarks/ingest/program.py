"""The whole program under load: its CPU time, its memory, and what it loses.

``python -m pipelines.ingest`` as the controller starts it, with a Redis for its telescope state, receives,
flags and averages, and sends L0 into a multicast group that nobody has joined.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiokatcp

from benchmarks.ingest import traffic as sending
from benchmarks.ingest.traffic import Traffic
from pipelines import catalogue
from pipelines.catalogue import n_products
from pipelines.common import telstate as ts
from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import TelstateError
from sdpcontroller.children import with_parent

RATIO: Final = 4
"""Input dumps per output dump."""
START_TIMEOUT: Final = 120.0
_MIB: Final = 1 << 20
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a capture block."""

    heaps: int
    """Received."""
    lost: int
    cpu_per_gigabit: float
    """CPU seconds of the program."""
    peak_mib: float
    """Most that was resident, MiB."""


def arrays_mib(traffic: Traffic) -> float:
    """Return the memory of an ingest's arrays by the formula of the controller's resource request, MiB."""
    products = n_products(traffic.antennas)
    return (
        catalogue.ingest_bytes(traffic.n_chans, traffic.n_chans, products, traffic.n_heaps) / _MIB
    )


async def measure(traffic: Traffic, seconds: float) -> Figures:
    """Run one capture block of so many seconds."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(_redis())
        await _describe(traffic, redis)
        process, client = await stack.enter_async_context(_ingest(traffic, redis))
        await client.request("capture-init", "1700000000")
        before = _cpu(process.pid)
        n_dumps = traffic.n_dumps(seconds)
        sender = await asyncio.create_subprocess_exec(*sending.command(traffic, n_dumps))
        if await sender.wait() != 0:
            raise RuntimeError("the sender failed")
        (_, heaps, lost), _ = await client.request("capture-done")
        used, peak = _cpu(process.pid) - before, _peak_mib(process.pid)
    # A dump of which nothing came at an end of the block is lost, too.
    missed = n_dumps * traffic.n_heaps - int(heaps)
    return Figures(
        int(heaps),
        max(int(lost), missed),
        used / (n_dumps * traffic.dump_gigabits),
        peak,
    )


async def _describe(traffic: Traffic, redis: Endpoint) -> None:
    """Publish the correlator's description, once Redis answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with ts.connect(redis, 1) as telstate:
                    await traffic.stream.publish(telstate)
                return
            except TelstateError:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def _redis() -> AsyncIterator[Endpoint]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *with_parent(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield Endpoint("127.0.0.1", port)
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _ingest(
    traffic: Traffic, redis: Endpoint
) -> AsyncIterator[tuple[asyncio.subprocess.Process, aiokatcp.Client]]:
    options = {
        "telstate": redis, "input-stream": "corr", "input": f"127.0.0.1:{traffic.port}",
        "output-stream": "l0", "output": f"239.102.77.1:{traffic.port}",
        "output-int-time": RATIO * traffic.stream.int_time,
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in options.items()]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipelines.ingest", *arguments, stderr=asyncio.subprocess.PIPE
    )
    try:
        port = await asyncio.wait_for(_katcp_port(process), START_TIMEOUT)
        client = await aiokatcp.Client.connect("127.0.0.1", port)
        rest = asyncio.create_task(_show_errors(process))
        yield process, client
        client.close()
        await client.wait_closed()
    finally:
        process.terminate()
        await process.wait()
    await rest


async def _katcp_port(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    async for line in process.stderr:
        if ready := re.search(rb"ready on .*:(\d+)", line):
            return int(ready[1])
        sys.stderr.buffer.write(line)
    raise RuntimeError("ingest ended before it was ready")


async def _show_errors(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        if b" INFO " not in line:
            sys.stderr.buffer.write(line)


def _cpu(pid: int) -> float:
    """CPU seconds of a process, as `proc(5)` has them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) / 1024
