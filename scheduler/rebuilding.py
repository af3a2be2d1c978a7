"""After the journal has lost its last writes: what tasks and Mesos tell of themselves is put back.

A journal that was rolled back by a second knows graphs as they were a moment ago. What runs under the ids of
such a graph without a record of its own was launched in that moment: a restart of one task, or a launch that
was under way. Its labels say what it runs and what it was given (:mod:`scheduler.labels`), so that its record
can be put back, and it goes on.

What cannot be put back is killed, as ever: a task of a graph of which nothing is recorded (it ended, or what it
consists of is lost), an attempt that another one has followed, what is not the program that the graph has now.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, Self

from scheduler.background import Background
from scheduler.equipment import Equipment, apply_recorded, insist
from scheduler.errors import SchedulerError
from scheduler.graph import EdgeKind, ReadyKind, Restart
from scheduler.graphs import Graphs
from scheduler.journal import GraphPhase
from scheduler.labels import GATE, GRAPH, PROGRAM, TASK, Found, Place, attempt, place_of, program
from scheduler.launch import TaskDied, bring_up
from scheduler.runs import GraphRun, TaskEntry
from scheduler.task import Accepted, DeclaredLost, LetThrough, Placed, TaskState
from scheduler.views import Change, GraphEnds, StrangerKilled, TasksPutBack

logger = logging.getLogger(__name__)

LIVE: Final = frozenset({"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING"})
UNLAUNCHED: Final = (TaskState.PLANNED, TaskState.PLACED)
"""States in which a task does not run, as far as the journal knows."""
_KILLED: Final = frozenset({"TASK_KILLING", "TASK_KILLED"})
_CAUSE: Final = "the journal had lost the record of a later attempt"
_ENDS: Final = "it was being taken down, of which the journal has lost the record"


def why_not(found: Found, run: GraphRun | None, latest: Mapping[tuple[str, str], int]) -> str:
    """Say why a task without a record cannot go on; empty when it can. Pure.

    Parameters
    ----------
    run
        Its graph, if one of that id is recorded.
    latest
        The last attempt that runs, by graph and task.
    """
    if run is None:
        return "nothing is recorded of its graph: it has ended, or what it consists of is lost"
    if run.phase is GraphPhase.STOPPING or run.stop_cause is not None:
        return "its graph is taken down"
    entry = run.entries.get(found.name)
    if entry is None or (found.labels.get(GRAPH), found.labels.get(TASK)) != (
        found.graph_id,
        found.name,
    ):
        return "its graph has no such task"
    if found.attempt < latest.get((found.graph_id, found.name), 0):
        return "a later attempt of it runs"
    return _unlike(found, entry) or _too_late(found, run, entry)


def _unlike(found: Found, entry: TaskEntry) -> str:
    if found.labels.get(PROGRAM) != program(entry.template):
        return "it is not the program that its graph has"
    place, request = place_of(found), entry.template.request
    if place is None:
        return "its labels do not tell where it is"
    try:
        place.assignment.resources(request)
    except (ValueError, SchedulerError):
        return "what it was given is not what it asks for"
    return "" if len(place.assignment.ports) == len(request.ports) else "its ports are not told"


def _too_late(found: Found, run: GraphRun, entry: TaskEntry) -> str:
    now = attempt(entry.task.task_id)
    if found.attempt < now or (found.attempt == now and entry.life.state not in UNLAUNCHED):
        return "a later attempt of it is recorded"
    if entry.template.ready.kind is ReadyKind.EXIT:
        return "what runs to completion is run again"
    if run.phase is GraphPhase.UP and entry.template.restart is Restart.NEVER:
        return "it is not made to be restarted"
    if run.phase is GraphPhase.LAUNCHING and run.walked:
        return "its graph has been launched anew"
    if found.name in run.restarting:
        return "it is being restarted"
    if run.edges.sources(found.name, EdgeKind.RESOURCES, EdgeKind.RESOLVED):
        return "others were told more of it than its labels tell"
    return ""


def ends(run: GraphRun, found: Mapping[str, Found], excused: Collection[str]) -> bool:
    """Whether a graph that is recorded as up was being taken down: pure.

    Nobody but us kills tasks by Mesos, and one that is never restarted by itself is killed only with its graph.

    Parameters
    ----------
    found
        What Mesos knows, by task id.
    excused
        Ids of the agents on which Mesos itself kills: an operator drains them.
    """
    return run.phase is GraphPhase.UP and any(
        not entry.dead
        and entry.template.restart is Restart.NEVER
        and (task := found.get(entry.task.task_id)) is not None
        and task.state in _KILLED
        and task.agent_id not in excused
        for entry in run.entries.values()
    )


@dataclass(frozen=True)
class Stock:
    """The tasks of this framework that Mesos knew when it was asked, also those that have ended."""

    tasks: Mapping[str, Found]
    """By id."""

    @classmethod
    def of(cls, tasks: Iterable[Found] = ()) -> Self:
        """Lay tasks in stock."""
        return cls({task.task_id: task for task in tasks})

    @functools.cached_property
    def latest(self) -> Mapping[tuple[str, str], int]:
        """The last attempt that runs, by graph and task; looked for once, however many strangers there are."""
        latest: dict[tuple[str, str], int] = {}
        for task in self.tasks.values():
            if task.state in LIVE:
                key = task.graph_id, task.name
                latest[key] = max(latest.get(key, 0), task.attempt)
        return latest


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """Puts records back.

    Parameters
    ----------
    tell
        Is called with what was found.
    """

    equipment: Equipment
    graphs: Graphs
    background: Background
    tell: Callable[[Change], None]

    async def take_stock(self, stock: Stock, excused: Collection[str]) -> None:
        """Compare what Mesos knows with the records, and put back what is missing in them.

        Parameters
        ----------
        excused
            See :func:`ends`.
        """
        for known in self.equipment.runs:
            if ends(known, stock.tasks, excused):
                self._end(known)
        live = (task for task in stock.tasks.values() if task.state in LIVE)
        strangers = [task for task in live if self._is_strange(task)]
        back: dict[str, list[str]] = {}
        for task in strangers:
            run, place = self.equipment.runs.get(task.graph_id), place_of(task)
            if run is not None and place is not None and not why_not(task, run, stock.latest):
                await self._put_back(run, task, place)
                back.setdefault(run.graph.graph_id, []).append(task.name)
        for graph_id, names in back.items():
            self._go_on(graph_id, tuple(names))

    def _is_strange(self, task: Found) -> bool:
        entry = self.equipment.runs.entry(task.task_id)
        return entry is None or entry.life.state in UNLAUNCHED

    def killed(self, task_id: str, stock: Stock) -> None:
        """Tell of a task without a record that is killed now, and why."""
        task = stock.tasks.get(task_id)
        run = None if task is None else self.equipment.runs.get(task.graph_id)
        why = "Mesos tells nothing of it" if task is None else why_not(task, run, stock.latest)
        logger.warning("task %s runs, but is unknown: killed: %s", task_id, why)
        self.tell(StrangerKilled(task_id, why))

    def _end(self, run: GraphRun) -> None:
        graph_id = run.graph.graph_id
        logger.warning("graph %s: %s", graph_id, _ENDS)
        for entry in run.entries.values():
            entry.expected_death = True
        self.graphs.abandon(run, _ENDS)
        self.tell(GraphEnds(graph_id, _ENDS))

    async def _put_back(self, run: GraphRun, found: Found, place: Place) -> None:
        """Put the record of one task back, as far as that it is launched; Mesos tells the rest."""
        equipment, name = self.equipment, found.name
        logger.warning("task %s runs without a record: it is put back", found.task_id)
        old = run.entries[name]
        if old.task.task_id != found.task_id:
            graph = run.graph.with_id(name, found.task_id)
            await insist(inf, lambda: equipment.journal.record_graph(graph))
            run.renew(graph)
            equipment.runs.index(run)
            await apply_recorded(equipment, old, DeclaredLost(_CAUSE))
        entry = run.entries[name]
        entry.assignment, entry.address, entry.agent_url = (
            place.assignment,
            place.address,
            place.url,
        )
        entry.token = found.labels.get(GATE, "")
        entry.shared = _endpoints(run, entry)
        run.placed[name] = place.assignment
        if entry.token:
            equipment.gates.open(found.task_id, entry.token)
        if entry.life.state is TaskState.PLANNED:
            await apply_recorded(equipment, entry, Placed(found.agent_id))
        await apply_recorded(equipment, entry, Accepted())
        if not entry.token:
            await apply_recorded(equipment, entry, LetThrough())

    def _go_on(self, graph_id: str, names: tuple[str, ...]) -> None:
        run = self.equipment.runs.get(graph_id)
        if run is not None and run.phase is GraphPhase.UP:
            self.background.spawn(self._bring_up(run, names))
        else:  # whoever resumes the launch brings it up
            self.tell(TasksPutBack(graph_id, names))

    async def _bring_up(self, run: GraphRun, names: tuple[str, ...]) -> None:
        """Finish the restart of tasks of a graph that is up; end them where that fails."""
        run.restarting |= set(names)
        try:
            await bring_up(self.equipment, run, names)
        except (TaskDied, SchedulerError) as exc:
            logger.warning("graph %s: %s", run.graph.graph_id, exc)
            self.graphs.end_tasks(run, names, "what was left of its restart did not come up")
        else:
            self.tell(TasksPutBack(run.graph.graph_id, names))
        finally:
            run.restarting -= set(names)


def _endpoints(run: GraphRun, entry: TaskEntry) -> dict[str, str]:
    """Return what templates of other tasks may name of a task: its endpoints."""
    if entry.assignment is None or not run.edges.sources(entry.name, EdgeKind.PORT):
        return {}
    names = zip(entry.template.request.ports, entry.assignment.ports, strict=True)
    return {f"endpoint[{entry.name}:{port}]": f"{entry.address}:{n}" for port, n in names}
