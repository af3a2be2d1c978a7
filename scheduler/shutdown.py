"""The ordered end of a graph: killed leaf to root along its KILL edges, again and again until all is dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from scheduler.equipment import Equipment
from scheduler.errors import JournalError
from scheduler.graph import EdgeKind
from scheduler.runs import GraphRun, TaskEntry
from scheduler.task import KillAsked

logger = logging.getLogger(__name__)


async def unwind(equipment: Equipment, run: GraphRun, cause: str) -> None:
    """Take a failed launch down; do not wait for what does not end in any reasonable time."""
    grace = max(entry.template.kill_grace for entry in run.entries.values())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace + 2 * equipment.kill_interval):
            await take_down(equipment, run, cause)


async def take_down(equipment: Equipment, run: GraphRun, cause: str) -> None:
    """Kill every task of a graph, each after those that need it by KILL edges are dead.

    Returns when all are dead, however long that takes: what is not known to be dead holds its resources.
    """
    async with asyncio.TaskGroup() as group:
        for entry in run.entries.values():
            group.create_task(_kill(equipment, run, entry, cause))


async def _kill(equipment: Equipment, run: GraphRun, entry: TaskEntry, cause: str) -> None:
    first = [run.entries[n] for n in run.edges.sources(entry.name, EdgeKind.KILL)]
    await run.until(lambda: all(e.dead for e in first) or entry.dead, though_stopping=True)
    await kill_until_dead(equipment, run, entry, cause)


async def kill_until_dead(
    equipment: Equipment, run: GraphRun, entry: TaskEntry, cause: str
) -> None:
    """Kill one task, again and again until it is dead."""
    while not entry.dead:
        try:
            await equipment.runs.apply(entry, KillAsked(cause))
        except JournalError as exc:  # killing needs no permission
            logger.warning("the end of %s was not recorded: %s", entry.task.task_id, exc)
        try:
            async with asyncio.timeout(equipment.kill_interval):
                await run.until(lambda: entry.dead, though_stopping=True)
        except TimeoutError:
            logger.warning(
                "%s is still %s: killed again", entry.task.task_id, entry.life.state.value
            )
