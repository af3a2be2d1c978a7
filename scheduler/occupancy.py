"""What of ours runs, as the queues see it: who holds what, until when, and whether it may be ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from scheduler.packing import Occupant
from scheduler.packing.circumstances import pooled
from scheduler.placement import Running
from scheduler.quantities import Resources
from scheduler.runs import GraphRun, Runs, TaskEntry
from scheduler.task import TaskState

OVERDUE: Final = 15.0
"""Seconds after its time of grace for which a task that was told to end still counts as ending: three kills."""


class Occupancy:
    """The tasks that run, and the way to end some of them.

    Parameters
    ----------
    runs
        All graphs.
    end
        Begins to end a task, with the cause.
    """

    def __init__(self, runs: Runs, end: Callable[[GraphRun, TaskEntry, str], None]) -> None:
        self._runs = runs
        self._end = end

    def occupants(self) -> list[Occupant]:
        """Return batch nodes and tasks that are stuck by themselves, everything else graph by graph."""
        found: list[Occupant] = []
        now = asyncio.get_running_loop().time()
        for run in self._runs:
            holding = [entry for entry in run.entries.values() if entry.resources]
            stuck = {entry.task.task_id for entry in holding if _stuck(entry, now)}
            alone = [e for e in holding if run.batch or e.task.task_id in stuck]
            for entry in alone:
                task_id = entry.task.task_id
                found.append(_occupant(run, task_id, [entry], stuck=task_id in stuck))
            if together := [entry for entry in holding if entry not in alone]:
                found.append(_occupant(run, run.graph.graph_id, together))
        return found

    def running(self) -> list[tuple[str, Running]]:
        """Return every task that holds something, with the id of its graph."""
        return [
            (entry.graph_id, Running(entry.template.request, entry.assignment))
            for run in self._runs
            for entry in run.entries.values()
            if entry.assignment is not None and not entry.dead
        ]

    def preempt(self, names: Collection[str], cause: str) -> None:
        """Begin to end batch nodes, to be run again later; others are left alone."""
        for run, entry in self._nodes(names):
            if not entry.dead:
                entry.preempted = True
                self._end(run, entry, cause)

    def _nodes(self, names: Collection[str]) -> Iterator[tuple[GraphRun, TaskEntry]]:
        for name in names:
            entry = self._runs.entry(name)
            run = None if entry is None else self._runs.get(entry.graph_id)
            if entry is not None and run is not None and run.batch:
                yield run, entry


def _stuck(entry: TaskEntry, now: float) -> bool:
    """Whether a task cannot be told to end, or was and does not."""
    life = entry.life
    if life.doubt_since is not None:
        return True
    since = life.history[-1].at if life.history else entry.news_at
    return life.state is TaskState.STOPPING and now - since > entry.template.kill_grace + OVERDUE


def _occupant(
    run: GraphRun, name: str, entries: Iterable[TaskEntry], *, stuck: bool = False
) -> Occupant:
    holds: dict[str, Resources] = {}
    ends: list[float | None] = []
    for entry in entries:
        if entry.assignment is not None:
            agent_id = entry.assignment.agent_id
            holds[agent_id] = pooled(entry.resources, holds.get(agent_id))
            ends.append(entry.ends_by)
    known = [end for end in ends if end is not None]
    return Occupant(
        name=name,
        priority=run.queue.priority,
        preemptible=run.batch and run.queue.preemptible,
        holds=holds,
        ends_by=max(known) if known and len(known) == len(ends) else None,
        stuck=stuck,
    )
