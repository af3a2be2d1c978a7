"""What the scheduler shows: frozen views of tasks and agents, and the changes that it reports."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from scheduler.closures import Window
from scheduler.placement import Assignment
from scheduler.quantities import Resources
from scheduler.task import Death, TaskState


class LinkState(enum.Enum):
    """The link to the Mesos master."""

    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    LOST = "lost"
    """Mesos has removed the framework, or another instance has taken its place: an operator must act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """What is known of one task."""

    graph_id: str
    name: str
    kind: str
    task_id: str
    state: TaskState
    mesos_state: str = ""
    host: str = ""
    address: str = ""
    agent_id: str = ""
    assignment: Assignment | None = None
    resources: Resources = field(default_factory=Resources)
    """What it holds; nothing before it is placed and after it is dead."""
    ports: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Address and number by port name."""
    death: Death | None = None
    expected_death: bool = False
    """Whether it was told to end before it died."""
    doubtful: bool = False
    """Whether Mesos does not vouch for it at the moment (agent unreachable, …)."""
    agent_trouble: str = ""
    """Why its agent takes no new tasks, if that is so: quarantined, drained, due for maintenance, …"""
    held: str = ""
    """Why it is not started yet though it could be: what is waited for, for people."""
    log_tail: tuple[str, ...] = ()
    """Last lines of its log, when it failed and they could be had."""
    critical: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """What is known of one agent."""

    agent_id: str
    host: str
    total: Resources = field(default_factory=Resources)
    free: Resources = field(default_factory=Resources)
    """What no task uses."""
    active: bool = True
    """False while the agent is disconnected, drained or deactivated."""
    condition: str = ""
    """Mesos' word for why it is not as usual: disconnected, deactivated, draining, drained; else empty."""
    drained: str | None = None
    """Why an operator of ours lets it get no new tasks; None when it gets some."""
    maintenance: Window | None = None
    """When it will not be there, as Mesos has announced."""
    quarantine: str = ""
    """Why it takes no tasks; empty when it does."""


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """A task has a new state, or more is known of it."""

    view: TaskView


@dataclass(frozen=True, slots=True)
class AgentsChanged:
    """Agents came, went, or have other resources."""


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The link to the Mesos master changed."""

    state: LinkState
    master: str
    """Address of the leading master, or empty."""
    reason: str = ""
    """For people; empty when connected."""


@dataclass(frozen=True, slots=True)
class TasksPutBack:
    """Tasks run of which the journal had lost the record: it was put back, and they go on."""

    graph_id: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StrangerKilled:
    """A task without a record was killed."""

    task_id: str
    why: str


@dataclass(frozen=True, slots=True)
class GraphEnds:
    """A graph that was recorded as up was being taken down: that goes on."""

    graph_id: str
    why: str


@dataclass(frozen=True, slots=True)
class MadeRoom:
    """Nodes of a batch graph are ended for the sake of another graph, and are run again later."""

    graph_id: str
    names: tuple[str, ...]
    by: str
    """Id of the graph that needs their place."""
    queue: str
    """In which that waits."""
    task_ids: tuple[str, ...] = ()
    """Of the attempts that end."""

    def __str__(self) -> str:
        """Say it for people."""
        return (
            f"{', '.join(self.names)} made room for {self.by} (queue {self.queue}), which did not fit: "
            "to be run again, and no attempt is used up"
        )


Change: TypeAlias = (
    TaskChanged | AgentsChanged | LinkChanged | TasksPutBack | StrangerKilled | GraphEnds | MadeRoom
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a node of a batch graph."""

    task_id: str
    host: str = ""
    """Empty when it found no place."""
    placed_at: float | None = None
    """When it had a place; time of the event loop's clock, as the others."""
    ran_at: float | None = None
    """When it was first known to run; None if it never was."""
    ended_at: float = 0.0
    death: Death | None = None
    preempted: bool = False
    """Whether it had to make room; such an attempt does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """How one node of a batch graph ended."""

    name: str
    attempts: int
    """How many counted; see `history` for all."""
    death: Death | None
    """Of the last attempt; None when it was never tried or does not end: see `skipped` and `left`."""
    log_tail: tuple[str, ...] = ()
    history: tuple[Attempt, ...] = ()
    """Every execution, oldest first; the last ones only, if there were many."""
    skipped: str = ""
    """Why it was not tried; empty when it was."""
    excused: bool = False
    """Whether that is as it should be: its own condition, or that of something it needs, did not hold."""
    left: str = ""
    """What is left of the last attempt, which does not end; empty when it has ended."""

    @property
    def finished(self) -> bool:
        """Whether it ended with success."""
        return self.death is not None and self.death.outcome.value == "finished"

    @property
    def exit_status(self) -> int | None:
        """Of the last attempt; None where it has none, or it is not known."""
        return None if self.death is None else self.death.exit_status

    @property
    def host(self) -> str:
        """Where the last attempt was; empty when it had no place."""
        return self.history[-1].host if self.history else ""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How a run-to-completion graph ended."""

    graph_id: str
    nodes: Mapping[str, NodeResult]

    @property
    def succeeded(self) -> bool:
        """Whether every critical node finished; see :attr:`failed`."""
        return not self.failed

    failed: tuple[str, ...] = ()
    """Names of the critical nodes that did not finish and are not excused."""
