"""Whether a started task is ready: its readiness check is repeated until it has held for long enough."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
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

MAX_TOLD: Final = 100
"""Characters of what a task has told that are told on."""

Probe = Callable[[str, int], Awaitable[str]]
"""Asks once, at an address and a port; says what is wrong there, nothing if the check holds. Raises nothing."""


async def until_ready(run: GraphRun, entry: TaskEntry) -> None:
    """Wait until the readiness check of a task holds, or the task is dead."""
    check = entry.template.ready
    if check.kind is ReadyKind.EXIT:
        entry.unready = "it has not exited"
        await run.until(lambda: entry.dead)
        return
    await run.until(lambda: entry.life.running or entry.dead)
    names = entry.template.request.ports
    numbers = dict(zip(names, entry.assignment.ports if entry.assignment else (), strict=True))
    await _until_holds(entry, _probe(check), {name: numbers[name] for name in check.ports})


async def _until_holds(entry: TaskEntry, probe: Probe, ports: Mapping[str, int]) -> None:
    """Wait until all ports have answered well for as long as they must, without a break.

    They are asked together: ports that answer in turn do not count, and one refusal begins the time anew.
    """
    loop = asyncio.get_running_loop()
    pause, since, hold = FIRST_PAUSE, None, entry.template.ready.hold
    while not entry.dead:
        began = loop.time()
        told = await asyncio.gather(*(probe(entry.address, port) for port in ports.values()))
        wrong = [
            f"port {name} ({entry.address}:{number}) {what}"
            for (name, number), what in zip(ports.items(), told, strict=True)
            if what
        ]
        since = None if wrong else began if since is None else since
        entry.unready = ", ".join(wrong) or f"what it must show has not held for {hold:g} s"
        if since is not None and loop.time() - since >= hold:
            entry.unready = ""
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


async def _accepts(address: str, port: int) -> str:
    """Look whether a TCP port accepts connections."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError, ValueError) as exc:  # ValueError: a name that can be none
        return _trouble(exc)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


async def _answers_well(address: str, port: int, path: str) -> str:
    """Look whether a GET is answered with a status of 200 to 299; redirections are not followed."""
    host = f"[{address}]" if ":" in address else address
    timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{host}:{port}{path}", allow_redirects=False) as response,
        ):
            good = 200 <= response.status < 300
            return "" if good else f"answers a GET of {path} with {response.status}"
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
        return _trouble(exc)


async def _sensor_says(address: str, port: int, sensor: str, values: Sequence[str]) -> str:
    """Look whether a KATCP sensor has one of the values, and status nominal."""
    client = aiokatcp.Client(address, port, auto_reconnect=False, limit=MAX_MESSAGE)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await client.wait_connected()
            _, informs = await client.request("sensor-value", sensor)
    except (aiokatcp.FailReply, aiokatcp.InvalidReply) as exc:
        return f"fails ?sensor-value {sensor}: {_shown(str(exc))}"
    except (OSError, TimeoutError, ValueError) as exc:  # ValueError: another version of KATCP
        return _trouble(exc)
    finally:
        client.close()
        await client.wait_closed()
    # #sensor-value timestamp count name status value
    told = [[part.decode(errors="replace") for part in inform.arguments] for inform in informs]
    found = [t[3:] for t in told if len(t) == 5 and t[2] == sensor]
    if any(status == "nominal" and value in values for status, value in found):
        return ""
    says = " ".join(map(_shown, found[0])) if found else "nothing"
    return f"says {says} of its sensor {sensor}, not nominal {' or '.join(values)}"


def _trouble(error: Exception) -> str:
    """Say what kept a question from being answered, for people."""
    match error:
        case TimeoutError():
            return f"did not answer within {PROBE_SECONDS:g} s"
        case (
            ConnectionRefusedError()
            | aiohttp.ClientConnectorError(os_error=ConnectionRefusedError())
        ):
            return "refuses connections"
    return f"cannot be asked: {_shown(str(error) or type(error).__name__)}"


def _shown(text: str) -> str:
    """Make what others have told safe to show."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:MAX_TOLD])
