"""Graphs of tasks: logical (what to run) and physical (one execution of it).

Nodes are frozen data. Commands and environments are templates in :meth:`str.format` syntax, filled in when
the graph is placed, from a documented namespace (see :mod:`scheduler.templates`); names are checked when the
graph is built.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import networkx as nx
from pydantic import TypeAdapter, ValidationError

from scheduler.errors import GraphError
from scheduler.requests import TaskRequest


class EdgeKind(enum.Enum):
    """Why one task needs another. An edge points from the task that needs to the task that is needed."""

    READY = "ready"
    """The source gets its go-ahead once the target is ready."""
    PORT = "port"
    """The source's templates name an endpoint of the target: it is placed first. Cycles are allowed."""
    KILL = "kill"
    """The source is killed, and dead, before the target is."""
    FINISHED = "finished"
    """Batch: the source starts once the target has finished with success."""


class ReadyKind(enum.Enum):
    """What shows that a task is ready."""

    RUNNING = "running"
    """It runs."""
    PORTS = "ports"
    """The named TCP ports accept connections."""
    EXIT = "exit"
    """It has exited with status 0 (batch)."""


@dataclass(frozen=True, slots=True)
class ReadyCheck:
    """When a task counts as ready."""

    kind: ReadyKind = ReadyKind.RUNNING
    ports: tuple[str, ...] = ()


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
    ready: ReadyCheck = ReadyCheck()
    critical: bool = True
    """Whether the graph fails when the task dies."""
    launch_timeout: float = 60.0
    """Seconds from acceptance to ready."""
    kill_grace: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""
    max_run_time: float | None = None
    """Seconds that a batch task may run."""


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


@dataclass(frozen=True, slots=True)
class PhysicalGraph:
    """One execution of a logical graph, with ids chosen in advance so that acts are idempotent."""

    graph_id: str
    logical: LogicalGraph
    tasks: Mapping[str, PhysicalTask]
    """By task name."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Extra names for the templates of all tasks, such as ``capture_block``."""
