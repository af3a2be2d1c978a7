"""Whether a started task is ready: its readiness check is repeated until it has held for long enough."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import aiohttp
import aiokatcp

from scheduler.graph import ReadyCheck, ReadyKind
from scheduler.runs import GraphRun, TaskEntry

PROBE_SECONDS: Final = 2.0
"""How long one question may take."""
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 0.5
MAX_MESSAGE: Final = 256 * 1024
"""Bytes of one KATCP message."""

Probe = Callable[[str, int], Awaitable[bool]]
"""Asks once, at an address and a port, whether the check holds there; raises nothing."""


async def until_ready(run: GraphRun, entry: TaskEntry) -> None:
    """Wait until the readiness check of a task holds, or the task is dead."""
    check = entry.template.ready
    if check.kind is ReadyKind.EXIT:
        await run.until(lambda: entry.dead, entry)
        return
    await run.until(lambda: entry.life.running or entry.dead, entry)
    names = entry.template.request.ports
    numbers = dict(zip(names, entry.assignment.ports if entry.assignment else (), strict=True))
    await _until_holds(entry, _probe(check), [numbers[name] for name in check.ports])


async def _until_holds(entry: TaskEntry, probe: Probe, ports: Sequence[int]) -> None:
    """Wait until all ports have answered well for as long as they must, without a break.

    They are asked together: ports that answer in turn do not count, and one refusal begins the time anew.
    """
    loop = asyncio.get_running_loop()
    pause, since = FIRST_PAUSE, None
    while not entry.dead:
        began = loop.time()
        answers = await asyncio.gather(*(probe(entry.address, port) for port in ports))
        if not all(answers):
            since = None
        elif since is None:
            since = began
        if since is not None and loop.time() - since >= entry.template.ready.hold:
            return
        await asyncio.sleep(pause)
        pause = min(LAST_PAUSE, pause * 1.5)


def _probe(check: ReadyCheck) -> Probe:
    match check.kind:
        case ReadyKind.HTTP:
            return lambda address, port: _answers_well(address, port, check.path)
        case ReadyKind.SENSOR:
            return lambda address, port: _sensor_says(address, port, check.sensor, check.values)
    return _accepts


async def _accepts(address: str, port: int) -> bool:
    """Whether a TCP port accepts connections."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def _answers_well(address: str, port: int, path: str) -> bool:
    """Whether a GET is answered with a status of 200 to 299; redirections are not followed."""
    host = f"[{address}]" if ":" in address else address
    timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{host}:{port}{path}", allow_redirects=False) as response,
        ):
            return 200 <= response.status < 300
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return False


async def _sensor_says(address: str, port: int, sensor: str, values: Sequence[str]) -> bool:
    """Whether a KATCP sensor has one of the values, and status nominal."""
    client = aiokatcp.Client(address, port, auto_reconnect=False, limit=MAX_MESSAGE)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await client.wait_connected()
            _, informs = await client.request("sensor-value", sensor)
    except (aiokatcp.FailReply, aiokatcp.InvalidReply, OSError, TimeoutError):
        return False
    finally:
        client.close()
        await client.wait_closed()
    # #sensor-value timestamp count name status value
    told = [[part.decode(errors="replace") for part in inform.arguments] for inform in informs]
    return any(t[2:4] == [sensor, "nominal"] and t[4] in values for t in told if len(t) == 5)
