"""The graphs that run, and their tasks: the shell around the state machine of :mod:`scheduler.task`.

Every event of a task goes through :meth:`Runs.apply`: the machine decides, the journal is written, the effects
happen, whoever waits is woken, whoever listens is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from scheduler.breath import OneByOne
from scheduler.errors import LaunchError
from scheduler.graph import EdgeIndex, PhysicalGraph, PhysicalTask, TaskTemplate
from scheduler.journal import GraphPhase, Journal, TaskRecord
from scheduler.placement import Assignment
from scheduler.policy import REALTIME
from scheduler.quantities import Resources
from scheduler.task import (
    Effect,
    Event,
    KillAsked,
    Outcome,
    TaskLife,
    TaskState,
    advance,
)
from scheduler.views import TaskView
from scheduler.wakes import Wakes

logger = logging.getLogger(__name__)

MAX_DEAD_RUNS: Final = 100
"""Graphs that ended in failure and can still be looked at."""
MAX_STRAYS: Final = 10_000
"""Ids of ended attempts that are still recognised when Mesos speaks of them."""
LateValues: TypeAlias = Callable[[str], Awaitable[Mapping[str, str]]]
"""Given a task's name, returns what its go-ahead shall carry."""


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True, eq=False)
class TaskEntry:
    """One task of a running graph."""

    graph_id: str
    task: PhysicalTask
    life: TaskLife
    assignment: Assignment | None = None
    address: str = ""
    agent_url: str = ""
    token: str = ""
    shared: Mapping[str, str] = field(default_factory=dict)
    """What templates of other tasks may name of it."""
    late_values: Mapping[str, str] | None = None
    """What its go-ahead carries; None before it is let through."""
    log_tail: tuple[str, ...] = ()
    log_done: asyncio.Event = field(default_factory=_set_event)
    """Not set while its log is fetched."""
    expected_death: bool = False
    replaced: bool = False
    """Whether another attempt has its name: what is heard of this one is no news of the task."""
    hurried: bool = False
    """Whether its end waits for nothing: neither for its order nor for its time of grace."""
    preempted: bool = False
    """Whether it was told to end to make room, and shall be run again."""
    made_room: bool = False
    """Whether the attempt before had to make room for others."""
    spent: int = 0
    """Attempts of a batch node that were used up under a predecessor."""
    held: str = ""
    """Why it is not started yet though it could be, for people."""
    unready: str = ""
    """What its readiness check has found wrong when it looked last, for people."""
    ends_by: float | None = None
    """When it will have ended at the latest, by the loop's clock; None: it runs until it is told to end."""
    news_at: float = 0.0
    """When something was last heard or asked; time of the event loop."""
    recorded: TaskRecord | None = None
    drawn: tuple[Assignment, Resources] | None = None
    """What :attr:`resources` is of that assignment: it is asked for with every change."""
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Keeps the records of the task in the order of its events."""

    @property
    def name(self) -> str:
        """Name within the graph."""
        return self.task.name

    @property
    def template(self) -> TaskTemplate:
        """What the task runs."""
        return self.task.template

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self.life.state is TaskState.DEAD

    @property
    def finished(self) -> bool:
        """Whether it has ended with success."""
        return self.life.death is not None and self.life.death.outcome is Outcome.FINISHED

    @property
    def resources(self) -> Resources:
        """What it holds now."""
        if self.assignment is None or self.dead:
            return Resources()
        if self.drawn is None or self.drawn[0] is not self.assignment:
            drawn = self.assignment.resources(self.template.request)
            self.drawn = self.assignment, drawn
        return self.drawn[1]

    def record(self) -> TaskRecord:
        """Return what the journal keeps."""
        return TaskRecord(
            graph_id=self.graph_id,
            name=self.name,
            task_id=self.task.task_id,
            state=self.life.state,
            agent_id=self.life.agent_id,
            host=self.assignment.host if self.assignment else "",
            address=self.address,
            agent_url=self.agent_url,
            token=self.token,
            death=self.life.death,
            shared=self.shared,
            late_values=self.late_values,
            preempted=self.preempted,
            assignment=self.assignment,
        )

    def view(self) -> TaskView:
        """Return what is shown."""
        assignment = self.assignment
        numbers = assignment.ports if assignment else ()
        ports = zip(self.template.request.ports, numbers, strict=bool(assignment))
        return TaskView(
            graph_id=self.graph_id,
            name=self.name,
            kind=self.template.kind,
            task_id=self.task.task_id,
            state=self.life.state,
            mesos_state=self.life.mesos_state,
            host=assignment.host if assignment else "",
            address=self.address,
            agent_id=self.life.agent_id,
            assignment=assignment,
            resources=self.resources,
            ports={name: (self.address, number) for name, number in ports},
            death=self.life.death,
            expected_death=self.expected_death,
            doubtful=self.life.doubt_since is not None,
            held=self.held,
            log_tail=self.log_tail,
            critical=self.template.critical,
        )


def _marks(entry: TaskEntry) -> dict[str, str]:
    """Return what a log line is about, for logs with fields."""
    return {"task": entry.name, "graph": entry.graph_id}


def _harmless(entry: TaskEntry) -> bool:
    """Whether nobody needs to look at the end of a task."""
    return entry.expected_death or entry.finished


class GraphRun:
    """One execution of a graph, as it stands."""

    def __init__(self, graph: PhysicalGraph) -> None:
        self.graph = graph
        self.edges = EdgeIndex(graph.logical)
        self.placed: dict[str, Assignment] = {}
        """Where each task is, or was at last, also while it is started anew."""
        self.entries: dict[str, TaskEntry] = {}
        self.renew(graph)
        self.phase = GraphPhase.LAUNCHING
        self.queue = REALTIME
        """Where it waited for its place."""
        self.batch = False
        """Whether its tasks run to completion, each by itself."""
        self.late_values: LateValues | None = None
        """Asked for what go-aheads carry."""
        self.resumed = False
        """Whether somebody goes on with the launch that a predecessor began."""
        self.buried = False
        """Whether its records are removed, or about to be: nothing is written any more."""
        self.walked = False
        """Whether its launch goes on: what the journal has lost of it is put back before that only."""
        self.restarting: frozenset[str] = frozenset()
        """Tasks that are being started anew."""
        self.kills = OneByOne()
        """Whose time to be killed again has come: hundreds may run out of it together."""
        self._wakes = Wakes()
        self._stop_cause: str | None = None

    def renew(self, graph: PhysicalGraph) -> None:
        """Go on with other ids: tasks whose id is new begin a new life."""
        self.graph = graph
        for name, task in graph.tasks.items():
            old = self.entries.get(name)
            if old is None or old.task.task_id != task.task_id:
                if old is not None:
                    old.replaced = True
                life = TaskLife(task.task_id)
                self.entries[name] = TaskEntry(graph.graph_id, task, life)

    @property
    def stop_cause(self) -> str | None:
        """Why the graph is taken down; None while it is not."""
        return self._stop_cause

    @property
    def dead(self) -> bool:
        """Whether every task has ended."""
        return all(entry.dead for entry in self.entries.values())

    def ask_to_stop(self, cause: str) -> None:
        """Interrupt whatever waits in :meth:`until`."""
        self._stop_cause = self._stop_cause or cause
        self.notify()

    def hurry(self) -> None:
        """Let the end of all tasks wait for nothing any more."""
        for entry in self.entries.values():
            entry.hurried = True
        self.notify()

    def notify(self, entry: TaskEntry | None = None) -> None:
        """Wake those for whom what they wait for holds now, since a task has changed, or anything."""
        self._wakes.look(entry)

    async def until(
        self,
        holds: Callable[[], bool],
        *about: TaskEntry,
        though_stopping: bool = False,
    ) -> None:
        """Wait until something holds; it is looked at after every change of a task of the graph.

        Parameters
        ----------
        about
            After changes of these only, if any are named; and when the graph is taken down.

        Raises
        ------
        LaunchError
            If the graph is taken down meanwhile.
        """
        await self._wakes.until(
            holds if though_stopping else lambda: self._stop_cause is not None or holds(), about
        )
        if not though_stopping and self._stop_cause is not None and not holds():
            raise LaunchError(f"graph {self.graph.graph_id}: {self._stop_cause}")

    async def until_any(self, each: Mapping[TaskEntry, Callable[[], bool]]) -> None:
        """Wait until one of these holds, of which each is looked at after changes of its task.

        Raises
        ------
        LaunchError
            If the graph is taken down meanwhile.
        """
        stopped: dict[object, Callable[[], bool]] = {self: lambda: self._stop_cause is not None}
        await self._wakes.until_any(stopped | {**each})
        if self._stop_cause is not None and not any(holds() for holds in each.values()):
            raise LaunchError(f"graph {self.graph.graph_id}: {self._stop_cause}")


class Acts(Protocol):
    """What the effects of the state machine need."""

    def kill(self, entry: TaskEntry) -> None:
        """Ask Mesos for the end of the task."""

    def reconcile(self, entry: TaskEntry) -> None:
        """Ask Mesos for the state of the task."""

    def close_gate(self, entry: TaskEntry) -> None:
        """Never let the task through (again)."""

    def fetch_log(self, entry: TaskEntry) -> None:
        """Get the last lines of its log, in the background; `log_done` is not set meanwhile."""

    def task_changed(self, entry: TaskEntry) -> None:
        """Tell whoever listens."""


class Runs:
    """All graphs, by id, and all their tasks, by task id."""

    def __init__(self, journal: Journal, acts: Acts) -> None:
        self._journal = journal
        self._acts = acts
        self._runs: dict[str, GraphRun] = {}
        self._by_task: dict[str, TaskEntry] = {}

    def __iter__(self) -> Iterator[GraphRun]:
        return iter(tuple(self._runs.values()))

    def get(self, graph_id: str) -> GraphRun | None:
        """Return a graph, or None."""
        return self._runs.get(graph_id)

    def entry(self, task_id: str) -> TaskEntry | None:
        """Return a task, of a present or an earlier attempt, or None."""
        return self._by_task.get(task_id)

    def live_entries(self) -> list[TaskEntry]:
        """Return every task that Mesos may be running for us."""
        launched = (TaskState.PLANNED, TaskState.PLACED, TaskState.DEAD)
        return [e for e in self._by_task.values() if e.life.state not in launched]

    def add(self, run: GraphRun) -> None:
        """Take up a graph; the oldest dead ones are forgotten."""
        self._runs[run.graph.graph_id] = run
        self.index(run)
        dead = [graph_id for graph_id, other in self._runs.items() if other.dead]
        for graph_id in dead[:-MAX_DEAD_RUNS]:
            self.forget(graph_id)

    def index(self, run: GraphRun) -> None:
        """Know the present tasks of a graph by their ids."""
        self._by_task.update((entry.task.task_id, entry) for entry in run.entries.values())
        strays = [task_id for task_id, entry in self._by_task.items() if entry.dead]
        for task_id in strays[:-MAX_STRAYS]:
            del self._by_task[task_id]

    def forget(self, graph_id: str) -> None:
        """Drop a graph and its tasks."""
        self._runs.pop(graph_id, None)
        gone = [i for i, entry in self._by_task.items() if entry.graph_id == graph_id]
        for task_id in gone:
            del self._by_task[task_id]

    async def apply(self, entry: TaskEntry, event: Event) -> None:
        """Let one event of a task happen.

        Effects happen even when the record cannot be written: they only ever take away (a kill, a closed
        gate). What gives to a task is done by the caller after this returned.

        Raises
        ------
        TaskStateError
            If the event is impossible now.
        JournalError
            If the record could not be written; the event has happened all the same, and the next one
            writes its record too.
        """
        async with entry.order:
            before = entry.life
            life, effects = advance(before, event, asyncio.get_running_loop().time())
            self._settle(entry, life, event)
            try:
                await self._write(entry)
            finally:
                for effect in effects:
                    self._do(effect, entry)
                if life is not before:
                    self.announce(entry)

    async def record(self, entry: TaskEntry) -> None:
        """Write the record of a task, if the newest one is not safe yet.

        Raises
        ------
        JournalError
            If it could not be written.
        """
        async with entry.order:
            await self._write(entry)

    async def _write(self, entry: TaskEntry) -> None:
        run = self._runs.get(entry.graph_id)
        record = entry.record()
        # One that the journal could not take before would be left for ever behind its graph.
        if record != entry.recorded and run is not None and not run.buried:
            await self._journal.record_task(record)
            entry.recorded = record

    def _settle(self, entry: TaskEntry, life: TaskLife, event: Event) -> None:
        before, entry.life = entry.life, life
        if life is not before:  # a kill again is no news, nor is an answer to it that knows nothing
            entry.news_at = asyncio.get_running_loop().time()
        if isinstance(event, KillAsked) and before.state is not TaskState.DEAD:
            entry.expected_death = event.intended
        for step in life.history[len(before.history) :]:
            log = logger.warning if entry.dead and not _harmless(entry) else logger.info
            source, target = step.source.value, step.target.value
            words = life.task_id, source, target, step.cause
            log("task %s: %s → %s (%s)", *words, extra=_marks(entry))

    def _do(self, effect: Effect, entry: TaskEntry) -> None:
        act = {
            Effect.KILL: self._acts.kill,
            Effect.RECONCILE: self._acts.reconcile,
            Effect.CLOSE_GATE: self._acts.close_gate,
            Effect.FETCH_LOG: self._acts.fetch_log,
        }[effect]
        act(entry)

    def announce(self, entry: TaskEntry) -> None:
        """Wake whoever waits for the task's graph, and tell whoever listens."""
        if (run := self._runs.get(entry.graph_id)) is not None:
            run.notify(entry)
        self._acts.task_changed(entry)

    def views(self, graph_id: str) -> Mapping[str, TaskView]:
        """Return the tasks of a graph; none, if it is not known."""
        run = self._runs.get(graph_id)
        return {name: entry.view() for name, entry in run.entries.items()} if run else {}
