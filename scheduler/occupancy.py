"""What of ours runs, as the queues see it: who holds what, until when, and whether it may be ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from scheduler.placement import Running
from scheduler.quantities import Resources
from scheduler.reservations import Waiting
from scheduler.runs import GraphRun, Runs, TaskEntry
from scheduler.scene import Holder
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

    def holders(self) -> list[Holder]:
        """Return batch nodes and tasks that are stuck by themselves, everything else graph by graph."""
        found: list[Holder] = []
        now = asyncio.get_running_loop().time()
        for run in self._runs:
            holding = [entry for entry in run.entries.values() if entry.resources]
            stuck = {entry.task.task_id for entry in holding if _stuck(entry, now)}
            alone = [e for e in holding if run.batch or e.task.task_id in stuck]
            for entry in alone:
                task_id = entry.task.task_id
                found.append(self._holder(run, task_id, [entry], stuck=task_id in stuck))
            together = [e for e in holding if e.task.task_id not in stuck] if not run.batch else ()
            if together:
                found.append(self._holder(run, run.graph.graph_id, together))
        return found

    def _holder(
        self, run: GraphRun, name: str, entries: Sequence[TaskEntry], *, stuck: bool = False
    ) -> Holder:
        known = [entry.ends_by for entry in entries if entry.ends_by is not None]
        drawn = [(e.assignment, e.resources) for e in entries if e.assignment is not None]
        return Holder(
            name=name,
            priority=run.queue.priority,
            preemptible=run.batch and run.queue.preemptible,
            drawn=drawn,
            in_roles=self._several_roles,
            ends_by=max(known) if known and len(known) == len(entries) else None,
            stuck=stuck,
        )

    def limited(self) -> list[tuple[str, list[Resources]]]:
        """Return what the tasks of each graph draw whose queue has a limit, with the name of that."""
        found: list[tuple[str, list[Resources]]] = []
        for run in self._runs:
            if run.queue.limits is not None:
                drawn = (entry.resources for entry in run.entries.values())
                found.append((run.queue.name, [resources for resources in drawn if resources]))
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
