"""The ordered end of a graph: killed leaf to root along its KILL edges, again and again until all is dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from functools import partial
from typing import Final

from scheduler.breath import Breath
from scheduler.crash_points import CrashPoint
from scheduler.equipment import Equipment
from scheduler.errors import JournalError
from scheduler.graph import EdgeKind
from scheduler.journal import GraphPhase
from scheduler.runs import GraphRun, TaskEntry
from scheduler.task import KillAsked

logger = logging.getLogger(__name__)

_STOPPING: Final = CrashPoint("stop.recorded", "that a graph ends is recorded, no task is killed")
_KILLED: Final = CrashPoint("stop.killed", "one more task is told to end")


async def unwind(equipment: Equipment, run: GraphRun, cause: str) -> None:
    """Take a failed launch down; do not wait for what does not end in any reasonable time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(reasonable(equipment, run, run.entries)):
            await take_down(equipment, run, cause)


async def until_dead(equipment: Equipment, run: GraphRun, names: Collection[str]) -> None:
    """Wait for the end of tasks that somebody else kills, for a reasonable time."""
    entries = [run.entries[name] for name in names]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(reasonable(equipment, run, names)):
            await run.until(lambda: all(e.dead for e in entries), *entries, though_stopping=True)


def reasonable(equipment: Equipment, run: GraphRun, names: Collection[str]) -> float:
    """Return the seconds in which tasks ought to have ended."""
    grace = max(run.entries[name].template.kill_grace for name in names)
    return grace + 2 * equipment.kill_interval


async def give_up(equipment: Equipment, run: GraphRun) -> None:
    """Record that a graph ends, unless it is forgotten; it ends all the same when that cannot be written."""
    run.phase = GraphPhase.STOPPING
    if equipment.runs.get(run.graph.graph_id) is not run:
        return  # another call has ended it, record and all
    try:
        await equipment.journal.record_phase(run.graph.graph_id, GraphPhase.STOPPING)
    except JournalError as exc:
        logger.warning("that graph %s ends was not recorded: %s", run.graph.graph_id, exc)
    _STOPPING.reached()


async def take_down(
    equipment: Equipment,
    run: GraphRun,
    cause: str,
    names: Collection[str] | None = None,
    *,
    intended: bool = True,
) -> None:
    """Kill tasks of a graph, each after those of them that need it by KILL edges are dead.

    Those that are hurried wait for nothing. Returns when all are dead, however long that takes: what is not
    known to be dead holds its resources.

    Parameters
    ----------
    names
        Which tasks; all, if not given.
    intended
        Whether that is what somebody wants; else the deaths count as those of tasks that died by themselves.
    """
    chosen = run.entries.keys() if names is None else names
    ask, breath = KillAsked(cause, intended), Breath()
    async with asyncio.TaskGroup() as group:
        for entry in [run.entries[name] for name in chosen]:
            group.create_task(_kill(equipment, run, entry, ask, chosen))
            await breath.step()


async def _kill(
    equipment: Equipment, run: GraphRun, entry: TaskEntry, ask: KillAsked, among: Collection[str]
) -> None:
    sources = run.edges.sources(entry.name, EdgeKind.KILL)
    first = [run.entries[name] for name in sources if name in among]
    await run.until(
        lambda: all(e.dead for e in first) or entry.dead or entry.hurried,
        entry,
        *first,
        though_stopping=True,
    )
    await _ask_until_dead(equipment, run, entry, ask)


async def kill_until_dead(
    equipment: Equipment, run: GraphRun, entry: TaskEntry, cause: str
) -> None:
    """Kill one task, again and again until it is dead."""
    await _ask_until_dead(equipment, run, entry, KillAsked(cause))


async def _ask_until_dead(
    equipment: Equipment, run: GraphRun, entry: TaskEntry, ask: KillAsked
) -> None:
    while not entry.dead:
        hurried = entry.hurried  # which may change, and is a reason to kill again at once
        try:
            await equipment.runs.apply(entry, ask)
        except JournalError as exc:  # killing needs no permission
            logger.warning("the end of %s was not recorded: %s", entry.task.task_id, exc)
        _KILLED.reached()
        try:
            async with asyncio.timeout(equipment.kill_interval):
                changed = partial(_ended_or_hurried, entry, hurried)
                await run.until(changed, entry, though_stopping=True)
        except TimeoutError:
            await run.kills.turn()
            logger.warning(
                "%s is still %s: killed again", entry.task.task_id, entry.life.state.value
            )


def _ended_or_hurried(entry: TaskEntry, before: bool) -> bool:
    return entry.dead or entry.hurried is not before
