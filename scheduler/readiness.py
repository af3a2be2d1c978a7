"""Whether a started task is ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from scheduler.graph import ReadyKind
from scheduler.runs import GraphRun, TaskEntry

CONNECT_SECONDS: Final = 2.0
"""How long one attempt to connect may take."""
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 0.5


async def until_ready(run: GraphRun, entry: TaskEntry) -> None:
    """Wait until the readiness check of a task holds, or the task is dead."""
    check = entry.template.ready
    if check.kind is ReadyKind.EXIT:
        await run.until(lambda: entry.dead)
        return
    await run.until(lambda: entry.life.running or entry.dead)
    if check.kind is ReadyKind.PORTS:
        names = entry.template.request.ports
        numbers = dict(zip(names, entry.assignment.ports if entry.assignment else (), strict=True))
        await _until_all_accept(entry, [numbers[name] for name in check.ports])


async def _until_all_accept(entry: TaskEntry, ports: Sequence[int]) -> None:
    """Wait until every port accepts connections in one and the same round: a flapping one does not count."""
    pause = FIRST_PAUSE
    while not entry.dead:
        accepted = await asyncio.gather(*(_accepts(entry.address, port) for port in ports))
        if all(accepted):
            return
        await asyncio.sleep(pause)
        pause = min(LAST_PAUSE, pause * 1.5)


async def _accepts(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
