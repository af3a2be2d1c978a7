"""What the master remembers of agents, frameworks and tasks.

A framework is ``CONNECTED`` while its stream is open, ``DISCONNECTED`` until its failover timeout, then
``REMOVED``, for good. One that a new master knows from its tasks only is ``RECOVERED``::

    RECOVERED ──► CONNECTED ◄──► DISCONNECTED ──► REMOVED
        │             └──────────────────────────────▲
        └────────────────────────────────────────────┘
"""

from __future__ import annotations

import enum
import operator
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.embedded.agent import Agent
from scheduler.embedded.clock import Timer
from scheduler.embedded.model import AgentInfo, FrameworkInfo, Offer, TaskInfo, TaskState
from scheduler.embedded.notices import remember
from scheduler.embedded.pool import Pool
from scheduler.embedded.stream import EventStream

MAX_COMPLETED_TASKS = 1000
"""Ended tasks that are remembered of one framework, as Mesos' ``--max_completed_tasks_per_framework``."""


class FrameworkState(enum.Enum):
    """Whether a framework is there."""

    RECOVERED = "recovered"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    REMOVED = "removed"


_NEXT = {
    FrameworkState.RECOVERED: {FrameworkState.CONNECTED, FrameworkState.REMOVED},
    FrameworkState.CONNECTED: {FrameworkState.DISCONNECTED, FrameworkState.REMOVED},
    FrameworkState.DISCONNECTED: {FrameworkState.CONNECTED, FrameworkState.REMOVED},
    FrameworkState.REMOVED: set[FrameworkState](),
}


@dataclass(slots=True, eq=False)
class Task:
    """A task as the master knows it."""

    framework_id: str
    info: TaskInfo
    executor_id: str | None = None
    """The default executor that it belongs to; None: its own command executor."""
    state: TaskState = TaskState.STAGING
    """The newest state that the agent has told."""
    statuses: list[Mapping[str, Any]] = field(default_factory=list)
    """The newest forwarded ``TaskStatus`` of each run of equal states."""
    released: bool = False
    """Whether its resources are free again."""

    @property
    def forwarded(self) -> TaskState:
        """The state that the framework has been told."""
        return TaskState(self.statuses[-1]["state"]) if self.statuses else self.state

    def remember(self, status: Mapping[str, Any]) -> None:
        """Keep a status that is forwarded; one of the same state replaces its predecessor."""
        remember(self.statuses, status)


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator's order to empty an agent."""

    max_grace: float | None
    """Seconds that tasks have to end; None: as long as their own policy says."""
    mark_gone: bool
    began: float
    """Unix time, s."""


Order = Callable[[Agent], object]
"""Something that a master tells an agent to do."""


@dataclass(slots=True, eq=False)
class AgentRecord:
    """An agent as the master knows it.

    It is connected, or disconnected and perhaps on its way back. A *frozen* one is connected as far as the
    master can see, but neither hears nor says anything.
    """

    info: AgentInfo
    agent: Agent
    registered_time: float
    connected: bool = True
    frozen: bool = False
    deactivated: bool = False
    """Whether an operator has taken it out of allocation."""
    drain: Drain | None = None
    reregistered_time: float | None = None
    total: Pool = field(init=False)
    """All that it has."""
    used: Pool = field(default_factory=Pool)
    offered: Pool = field(default_factory=Pool)
    offers: dict[str, Offer] = field(default_factory=dict)
    executors: dict[tuple[str, str], Pool] = field(default_factory=dict)
    """What default executors use themselves, by framework and executor id."""
    loss: Timer | None = None
    """Runs while the agent does not answer, until it counts as unreachable."""
    killed: dict[tuple[str, str], float | None] = field(default_factory=dict)
    """Tasks to be killed when the agent is here again, with the grace period of the call."""
    _left: tuple[tuple[Pool, Pool, Pool], Pool] | None = field(default=None, init=False)
    """What is free, and of which amounts that is the difference."""
    mailbox: list[Order] = field(default_factory=list)
    """Orders that a frozen agent has not read yet."""

    def __post_init__(self) -> None:
        self.total = self.info.spec.pool

    @property
    def active(self) -> bool:
        """Whether its resources may be offered."""
        return self.connected and not self.deactivated

    @property
    def free(self) -> Pool:
        """What is neither used nor offered.

        Raises
        ------
        QuantityError
            If more is given away than there is: a fault of the master.
        """
        # Pools are values: while these are the same objects, so is what is left.
        parts = (self.total, self.used, self.offered)
        if self._left is None or any(map(operator.is_not, parts, self._left[0])):
            self._left = parts, self.total - self.used - self.offered
        return self._left[1]

    def post(self, order: Order) -> None:
        """Give an order, to be read now or later; one to an agent that is not connected is lost."""
        if self.frozen:
            self.mailbox.append(order)
        elif self.connected:
            order(self.agent)

    def stop_waiting(self) -> None:
        """Let it not become unreachable."""
        if self.loss is not None:
            self.loss.cancel()
            self.loss = None


@dataclass(slots=True, eq=False)
class Framework:
    """A framework as the master knows it."""

    info: FrameworkInfo
    registered_time: float
    state: FrameworkState = FrameworkState.DISCONNECTED
    stream: EventStream | None = None
    heartbeat: Timer | None = None
    failover: Timer | None = None
    reregistered_time: float | None = None
    unregistered_time: float = 0.0
    suppressed: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    """How many of each kind it has made."""
    tasks: dict[str, Task] = field(default_factory=dict)
    unreachable: dict[str, Task] = field(default_factory=dict)
    """Tasks on agents that are unreachable."""
    completed: deque[Task] = field(default_factory=lambda: deque(maxlen=MAX_COMPLETED_TASKS))
    offers: dict[str, Offer] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        """Whether its stream is open."""
        return self.state is FrameworkState.CONNECTED

    def set_state(self, state: FrameworkState) -> None:
        """Move on.

        Raises
        ------
        RuntimeError
            If there is no way from here to there.
        """
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"framework {self.info.id}: {self.state.value} → {state.value}")
        self.state = state

    def send(self, kind: str, **body: Any) -> None:
        """Send an event, when somebody is there to read it."""
        if self.stream is not None:
            name = kind.lower()
            self.stream.send({"type": kind, name: body} if body else {"type": kind})

    def tasks_on(self, agent_id: str) -> list[Task]:
        """Return its tasks on one agent, as far as that is reachable."""
        return [task for task in self.tasks.values() if task.info.agent_id == agent_id]
