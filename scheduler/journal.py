"""What must survive the controller. Every record is written *before* the act that it describes.

:class:`Journal` is what the scheduler needs; whoever uses the scheduler brings an implementation on its
database. :class:`MemoryJournal` survives nothing: it is for tests and for tools that run one graph and end.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from pydantic import TypeAdapter, ValidationError

from scheduler.errors import JournalError
from scheduler.graph import PhysicalGraph
from scheduler.placement import Assignment, Placement
from scheduler.task import Death, TaskState


class GraphPhase(enum.Enum):
    """What is being done with a graph."""

    LAUNCHING = "launching"
    """It is brought up, for the first time."""
    UP = "up"
    """All of it was ready once; single tasks may have died or be restarted since."""
    STOPPING = "stopping"
    """It is taken down, and nothing will stop that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """What the journal keeps of one task."""

    graph_id: str
    name: str
    task_id: str
    state: TaskState
    agent_id: str = ""
    host: str = ""
    address: str = ""
    """Where the agent's ports are reached."""
    agent_url: str = ""
    """Base of the agent's HTTP API, for its log files."""
    token: str = ""
    """Secret of the go-ahead, or its digest; empty for a task that waits for nothing."""
    death: Death | None = None
    shared: Mapping[str, str] = field(default_factory=dict)
    """What templates of other tasks may name of it."""
    late_values: Mapping[str, str] | None = None
    """What its go-ahead carries; None before it was let through."""
    preempted: bool = False
    """Whether it was told to end to make room: that uses up no attempt, whoever sees it end."""
    assignment: Assignment | None = None
    """Its place; None before it has one, and in what was recorded before task records told it."""

    def to_json(self) -> dict[str, Any]:
        """Write as plain data that :meth:`from_json` reads back to an equal record."""
        data: dict[str, Any] = _TASK.dump_python(self, mode="json", exclude={"assignment"})
        if self.assignment is not None:
            data["assignment"] = self.assignment.unusual()
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        JournalError
            If the document is not such a record.
        """
        try:
            record = _TASK.validate_python(data)
        except ValidationError as exc:
            raise JournalError(f"not a task record: {exc}") from exc
        assert isinstance(record, cls)  # noqa: S101 - for the type checker
        return record


_TASK: TypeAdapter[TaskRecord] = TypeAdapter(TaskRecord)
_PLACEMENT: TypeAdapter[Placement] = TypeAdapter(Placement)


def placement_from_json(data: object) -> Placement:
    """Read the record of a graph's placement, as it was written before task records told their places.

    Raises
    ------
    JournalError
        If the document is not such a placement.
    """
    try:
        return _PLACEMENT.validate_python(data)
    except ValidationError as exc:
        raise JournalError(f"not a placement: {exc}") from exc


@dataclass(frozen=True, slots=True)
class JournalState:
    """Everything that a journal holds."""

    framework_id: str | None = None
    graphs: Mapping[str, PhysicalGraph] = field(default_factory=dict)
    """By graph id."""
    placements: Mapping[str, Placement] = field(default_factory=dict)
    """By graph id, of graphs that were placed before task records told their places."""
    tasks: Mapping[str, TaskRecord] = field(default_factory=dict)
    """By task id."""
    phases: Mapping[str, GraphPhase] = field(default_factory=dict)
    """By graph id; a graph that is not named is in its launch."""
    drained: Mapping[str, str] = field(default_factory=dict)
    """Hosts that get no new tasks, and why."""


class Journal(Protocol):
    """Where the scheduler writes what it is going to do.

    Each coroutine returns when the record is safe; writing the same record again changes nothing. A write
    that fails raises :exc:`~scheduler.errors.JournalError`: the act does not happen then. The scheduler
    repeats the write while the deadline of what it does allows.
    """

    async def record_framework_id(self, framework_id: str | None) -> None:
        """Keep the id under which Mesos knows us; None after it was given up."""

    async def record_graph(self, graph: PhysicalGraph) -> None:
        """Keep a graph, in place of one with the same graph id."""

    async def record_phase(self, graph_id: str, phase: GraphPhase) -> None:
        """Keep what is being done with a graph."""

    async def record_task(self, record: TaskRecord) -> None:
        """Keep the newest state of a task, by its task id."""

    async def record_drained(self, drained: Mapping[str, str]) -> None:
        """Keep which hosts get no new tasks, and why, in place of all that was kept of this."""

    async def forget_graph(self, graph_id: str) -> None:
        """Drop a graph with its phase and all its task records."""

    async def load(self) -> JournalState:
        """Return everything that was kept."""


class MemoryJournal:
    """A journal that lives as long as its process."""

    def __init__(self) -> None:
        self._state = JournalState()

    async def record_framework_id(self, framework_id: str | None) -> None:
        """Keep the framework id."""
        self._state = replace(self._state, framework_id=framework_id)

    async def record_graph(self, graph: PhysicalGraph) -> None:
        """Keep a graph."""
        graphs = {**self._state.graphs, graph.graph_id: graph}
        self._state = replace(self._state, graphs=graphs)

    async def record_phase(self, graph_id: str, phase: GraphPhase) -> None:
        """Keep the phase of a graph."""
        self._state = replace(self._state, phases={**self._state.phases, graph_id: phase})

    async def record_drained(self, drained: Mapping[str, str]) -> None:
        """Keep the hosts that get no new tasks."""
        self._state = replace(self._state, drained=dict(drained))

    async def record_task(self, record: TaskRecord) -> None:
        """Keep a task record."""
        self._state = replace(self._state, tasks={**self._state.tasks, record.task_id: record})

    async def forget_graph(self, graph_id: str) -> None:
        """Drop all of a graph."""
        state = self._state
        self._state = replace(
            state,
            graphs={k: v for k, v in state.graphs.items() if k != graph_id},
            tasks={k: v for k, v in state.tasks.items() if v.graph_id != graph_id},
            phases={k: v for k, v in state.phases.items() if k != graph_id},
        )

    async def load(self) -> JournalState:
        """Return everything that was kept."""
        return self._state
