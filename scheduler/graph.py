"""Graphs of tasks: logical (what to run) and physical (one execution of it).

Nodes are frozen data. Commands and environments are templates in :meth:`str.format` syntax, filled in when
the graph is placed, from a documented namespace (see :mod:`scheduler.templates`); names are checked when the
graph is built.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import networkx as nx
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from scheduler.errors import GraphError
from scheduler.requests import TaskRequest


class EdgeKind(enum.Enum):
    """Why one task needs another. An edge points from the task that needs to the task that is needed."""

    READY = "ready"
    """The source gets its go-ahead once the target is ready."""
    PORT = "port"
    """The source's templates name an endpoint of the target. Cycles are allowed."""
    RESOURCES = "resources"
    """The source's templates name what the target was given: its host, cores, GPUs. Cycles are allowed."""
    RESOLVED = "resolved"
    """The source's templates name variables of the target's environment: that is filled in first."""
    KILL = "kill"
    """The source is killed, and dead, before the target is."""
    FINISHED = "finished"
    """The source starts once the target has finished with success, and never if it does not."""
    ENDED = "ended"
    """The source starts once the target has ended, however it did."""


class ReadyKind(enum.Enum):
    """What shows that a task is ready."""

    RUNNING = "running"
    """It runs."""
    PORTS = "ports"
    """The named TCP ports accept connections."""
    HTTP = "http"
    """A GET of the path is answered with a status of 200 to 299 on each of the named ports."""
    SENSOR = "sensor"
    """A KATCP sensor, asked for on each of the named ports, has one of the values."""
    EXIT = "exit"
    """It has exited with status 0 (batch)."""


@dataclass(frozen=True, slots=True)
class ReadyCheck:
    """When a task counts as ready."""

    kind: ReadyKind = ReadyKind.RUNNING
    ports: tuple[str, ...] = ()
    path: str = "/"
    """For HTTP."""
    sensor: str = ""
    """For SENSOR: its name."""
    values: tuple[str, ...] = ()
    """For SENSOR, as on the wire; one whose status is not nominal does not count."""
    hold: float = 0.0
    """Seconds for which the check must hold without a break."""


class Restart(enum.Enum):
    """Whether one task of a running graph may be started anew, and where."""

    NEVER = "never"
    """The task has state, or others hold state about it."""
    IN_PLACE = "in place"
    """Where it was, with the same cores, devices and ports: nothing changes that others were told of it."""
    SAME_AGENT = "same agent"
    """On the agent where it was, because its files are there; as ANYWHERE else."""
    ANYWHERE = "anywhere"
    """Wherever it fits. Tasks whose templates name something of it are restarted with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTemplate:
    """One program of a logical graph."""

    name: str
    """Unique in the graph: ``ingest.sdp_l0.0``. Letters, digits, ``_``, ``.``, ``-``."""
    kind: str
    """Kind of program: ``ingest``."""
    command: tuple[str, ...]
    """Program and arguments; each is a template."""
    request: TaskRequest
    env: Mapping[str, str] = field(default_factory=dict)
    """Values are templates."""
    image: str | None = None
    """Container image; None where the executor runs plain processes."""
    gpu_images: Mapping[str, str] = field(default_factory=dict)
    """Container image by the name of the task's first GPU (``*`` stands for any text, ``?`` for one
    character); the first that matches goes before `image`."""
    ready: ReadyCheck = ReadyCheck()
    critical: bool = True
    """Whether the graph fails when the task dies."""
    launch_timeout: float = 60.0
    """Seconds from acceptance to ready, not counting the time it waits for other tasks."""
    kill_grace: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""
    max_run_time: float | None = None
    """Seconds that the task may run; None: it runs until it is told to end."""
    run_if: str | None = None
    """Batch: name of the condition on which it is run; see :mod:`scheduler.conditions`."""
    restart: Restart = Restart.NEVER
    tolerates_maintenance: bool = False
    """Whether it may be on an agent whose announced maintenance begins before the task has ended."""


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` needs `target`."""

    source: str
    target: str
    kind: EdgeKind


@dataclass(frozen=True, slots=True)
class LogicalGraph:
    """A set of cooperating programs, before anything is known of the cluster."""

    name: str
    tasks: tuple[TaskTemplate, ...]
    edges: tuple[Edge, ...] = ()

    def task(self, name: str) -> TaskTemplate:
        """Return the task of that name, or raise ``KeyError``."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise KeyError(name)

    def networkx(self, *kinds: EdgeKind) -> nx.MultiDiGraph[str]:
        """Return the graph with the edges of these kinds (all, if none is given)."""
        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=self.name)
        for task in self.tasks:
            graph.add_node(task.name, task=task)
        for edge in self.edges:
            if not kinds or edge.kind in kinds:
                graph.add_edge(edge.source, edge.target, key=edge.kind.value)
        return graph

    def targets(self, source: str, *kinds: EdgeKind) -> list[str]:
        """Return the tasks that `source` needs by edges of these kinds, in the graph's order."""
        return [e.target for e in self.edges if e.source == source and e.kind in kinds]

    def sources(self, target: str, *kinds: EdgeKind) -> list[str]:
        """Return the tasks that need `target` by edges of these kinds, in the graph's order."""
        return [e.source for e in self.edges if e.target == target and e.kind in kinds]

    def validate(self, values: Collection[str] = ()) -> None:
        """Refuse a graph that could not be run on any cluster.

        Parameters
        ----------
        values
            Names that the physical graph will add for the templates.

        Raises
        ------
        GraphError
            Naming every problem found, not only the first.
        """
        from scheduler.validation import problems  # it needs the types of this module

        if found := problems(self, values):
            raise GraphError(f"graph {self.name!r} cannot be run: " + "; ".join(found))

    def to_json(self) -> dict[str, Any]:
        """Write as plain data that :meth:`from_json` reads back to an equal graph."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        GraphError
            If the document is not such a graph; the message names path and reason.
        """
        try:
            graph = _ADAPTER.validate_python(data)
        except ValidationError as exc:
            raise GraphError(f"not a logical graph: {exc}") from exc
        assert isinstance(graph, cls)  # noqa: S101 - for the type checker
        return graph


class EdgeIndex:
    """The edges of one graph by their ends, for whoever asks often."""

    def __init__(self, graph: LogicalGraph) -> None:
        self._from: dict[str, list[Edge]] = {}
        self._to: dict[str, list[Edge]] = {}
        for edge in graph.edges:
            self._from.setdefault(edge.source, []).append(edge)
            self._to.setdefault(edge.target, []).append(edge)

    def targets(self, source: str, *kinds: EdgeKind) -> list[str]:
        """Return the tasks that `source` needs by edges of these kinds, in the graph's order."""
        return [e.target for e in self._from.get(source, ()) if e.kind in kinds]

    def sources(self, target: str, *kinds: EdgeKind) -> list[str]:
        """Return the tasks that need `target` by edges of these kinds, in the graph's order."""
        return [e.source for e in self._to.get(target, ()) if e.kind in kinds]


_ADAPTER: TypeAdapter[LogicalGraph] = TypeAdapter(LogicalGraph)


@dataclass(frozen=True, slots=True)
class PhysicalTask:
    """One execution of a task: its template and the id that Mesos knows it by."""

    task_id: str
    template: TaskTemplate

    @property
    def name(self) -> str:
        """Name within the graph."""
        return self.template.name

    @property
    def attempt(self) -> int:
        """How many executions there were before it."""
        return int(self.task_id.rpartition(".")[2])


@dataclass(frozen=True, slots=True)
class PhysicalGraph:
    """One execution of a logical graph, with ids chosen in advance so that acts are idempotent."""

    graph_id: str
    logical: LogicalGraph
    tasks: Mapping[str, PhysicalTask]
    """By task name."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Extra names for the templates of all tasks, such as ``capture_block``."""

    def to_json(self) -> dict[str, Any]:
        """Write as plain data that :meth:`from_json` reads back to an equal graph."""
        return {
            "graph_id": self.graph_id,
            "logical": self.logical.to_json(),
            "task_ids": {name: task.task_id for name, task in self.tasks.items()},
            "values": dict(self.values),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        GraphError
            If the document is not such a graph; the message names path and reason.
        """
        try:
            stored = _STORED_PHYSICAL.validate_python(data)
        except ValidationError as exc:
            raise GraphError(f"not a physical graph: {exc}") from exc
        logical = LogicalGraph.from_json(stored["logical"])
        ids = stored["task_ids"]
        if ids.keys() != {task.name for task in logical.tasks}:
            raise GraphError("not a physical graph: its ids are not those of its tasks")
        tasks = {task.name: PhysicalTask(ids[task.name], task) for task in logical.tasks}
        return cls(stored["graph_id"], logical, tasks, stored["values"])

    def again(self, names: Collection[str] | None = None) -> Self:
        """Return the same graph with new ids for these tasks (all, if none are given)."""
        tasks = {
            name: PhysicalTask(_next_id(task.task_id), task.template)
            if names is None or name in names
            else task
            for name, task in self.tasks.items()
        }
        return type(self)(self.graph_id, self.logical, tasks, self.values)

    def with_id(self, name: str, task_id: str) -> Self:
        """Return the same graph with another id for one task."""
        task = PhysicalTask(task_id, self.tasks[name].template)
        return type(self)(self.graph_id, self.logical, {**self.tasks, name: task}, self.values)


class _StoredPhysical(TypedDict):
    graph_id: str
    logical: Any
    task_ids: dict[str, str]
    values: dict[str, str]


_STORED_PHYSICAL: TypeAdapter[_StoredPhysical] = TypeAdapter(_StoredPhysical)


def _next_id(task_id: str) -> str:
    stem, _, attempt = task_id.rpartition(".")
    return f"{stem}.{int(attempt) + 1}"


def instantiate(
    logical: LogicalGraph, graph_id: str, values: Mapping[str, str] | None = None
) -> PhysicalGraph:
    """Make one execution of `logical`: checks it, and chooses the ids ``graph_id.task.attempt``.

    Of hundreds of tasks that takes tens of milliseconds: it is nothing for an event loop.

    Raises
    ------
    GraphError
        If the graph cannot be run, or `graph_id` is not made of letters, digits, ``_`` and ``-``. (Mesos
        takes 1 to 255 characters without ``/``; without a dot in the first part, no two graphs can make
        the same task id.)
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", graph_id) is None:
        raise GraphError(
            f"{graph_id!r} is no graph id: expected at most 100 letters, digits, '_', '-'"
        )
    values = dict(values or {})
    logical.validate(values.keys())
    tasks = {task.name: PhysicalTask(f"{graph_id}.{task.name}.0", task) for task in logical.tasks}
    return PhysicalGraph(graph_id, logical, tasks, values)
