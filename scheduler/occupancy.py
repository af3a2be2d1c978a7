"""What of ours runs, as the queues see it: who holds what, until when, and whether it may be ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from scheduler.limits import Held
from scheduler.packing import Occupant
from scheduler.packing.circumstances import pooled
from scheduler.placement import Assignment, Running
from scheduler.quantities import Resources
from scheduler.reservations import Waiting
from scheduler.runs import GraphRun, Runs, TaskEntry
from scheduler.task import TaskState
from scheduler.views import Change, MadeRoom

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
    tell
        Is told who makes room for whom.
    several_roles
        Whether tasks draw in several roles of Mesos, so that it matters in which.
    """

    def __init__(
        self,
        runs: Runs,
        end: Callable[[GraphRun, TaskEntry, str], None],
        tell: Callable[[Change], None] = lambda _: None,
        *,
        several_roles: bool = False,
    ) -> None:
        self._runs = runs
        self._end = end
        self._tell = tell
        self._several_roles = several_roles

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
                found.append(self._occupant(run, task_id, [entry], stuck=task_id in stuck))
            if together := [entry for entry in holding if entry not in alone]:
                found.append(self._occupant(run, run.graph.graph_id, together))
        return found

    def _occupant(
        self, run: GraphRun, name: str, entries: Sequence[TaskEntry], *, stuck: bool = False
    ) -> Occupant:
        known = [entry.ends_by for entry in entries if entry.ends_by is not None]
        drawn = [(e.assignment, e.resources) for e in entries if e.assignment is not None]
        return Occupant(
            name=name,
            priority=run.queue.priority,
            preemptible=run.batch and run.queue.preemptible,
            holds=holdings(drawn),
            by_role=by_role(drawn) if self._several_roles else {},
            ends_by=max(known) if known and len(known) == len(entries) else None,
            stuck=stuck,
        )

    def held(self) -> dict[str, Held]:
        """Return what the tasks of each queue that has a limit hold."""
        found: dict[str, Held] = {}
        for run in self._runs:
            if run.queue.limits is not None:
                held = (entry.resources for entry in run.entries.values())
                here = Held.by(resources for resources in held if resources)
                found[run.queue.name] = found.get(run.queue.name, Held()) + here
        return found

    def running(self) -> list[tuple[str, Running]]:
        """Return every task that holds something, with the id of its graph."""
        return [
            (entry.graph_id, Running(entry.template.request, entry.assignment))
            for run in self._runs
            for entry in run.entries.values()
            if entry.assignment is not None and not entry.dead
        ]

    def preempt(self, names: Collection[str], by: Waiting) -> None:
        """Begin to end batch nodes, to be run again later; others are left alone."""
        told: dict[str, list[TaskEntry]] = {}
        cause = f"graph {by.graph_id} (queue {by.queue.name}) needs its place"
        for run, entry in self._nodes(names):
            if not entry.dead:
                entry.preempted = True  # recorded with its end
                self._end(run, entry, cause)
                told.setdefault(run.graph.graph_id, []).append(entry)
        for graph_id, entries in told.items():
            names = tuple(entry.name for entry in entries)
            ids = tuple(entry.task.task_id for entry in entries)
            self._tell(MadeRoom(graph_id, names, by.graph_id, by.queue.name, ids))

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


def holdings(drawn: Iterable[tuple[Assignment, Resources]]) -> dict[str, Resources]:
    """Add up what is drawn, by agent id."""
    holds: dict[str, Resources] = {}
    for assignment, resources in drawn:
        holds[assignment.agent_id] = pooled(resources, holds.get(assignment.agent_id))
    return holds


def by_role(drawn: Sequence[tuple[Assignment, Resources]]) -> dict[str, dict[str, Resources]]:
    """Add up what is drawn, by role and agent id."""
    roles = {assignment.role for assignment, _ in drawn}
    return {r: holdings((a, resources) for a, resources in drawn if a.role == r) for r in roles}
