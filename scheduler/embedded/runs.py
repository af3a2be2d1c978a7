"""What an agent knows about one execution of a task, and about executors that have several.

A run goes ``LAUNCHING → STARTING → RUNNING → ENDED``; it is forgotten when its last status update is
acknowledged::

    LAUNCHING ──► STARTING ──► RUNNING ──► ENDED
        │             └──────────────────────▲    it could not be run
        └────────────────────────────────────┘    killed before delivery, or the launch failed
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from scheduler.embedded.checks import TaskChecks
from scheduler.embedded.clock import Timer
from scheduler.embedded.executors import Container, Running
from scheduler.embedded.model import FrameworkInfo, TaskInfo
from scheduler.embedded.pool import Pool

Key: TypeAlias = tuple[str, str]
"""Framework id, and the id of a task or executor of it."""


class Phase(enum.Enum):
    """Where a task is on its agent."""

    LAUNCHING = "launching"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


_NEXT = {
    Phase.LAUNCHING: {Phase.STARTING, Phase.ENDED},
    Phase.STARTING: {Phase.RUNNING, Phase.ENDED},
    Phase.RUNNING: {Phase.ENDED},
    Phase.ENDED: set[Phase](),
}


@dataclass(slots=True, eq=False)
class Run:
    """One execution of a task."""

    framework: FrameworkInfo
    task: TaskInfo
    container_id: str
    sandbox: Path
    group: Group | None = None
    """The default executor that it belongs to; None: a command executor of its own."""
    phase: Phase = Phase.LAUNCHING
    container: Container | None = None
    running: Running | None = None
    since: float = 0.0
    """Unix time at which it was started, s; its completion time counts from here."""
    launching: asyncio.Task[None] | None = None
    """Who waits for the executor; cancelled by a kill."""
    killed: bool = False
    kill_when_running: tuple[float, str | None] | None = None
    """Grace period and reason of a kill that a command executor heeds only when it has started its task."""
    kill_reason: str | None = None
    """Why it is killed, where frameworks are told that."""
    out_of_time: bool = False
    executor_lost: bool = False
    """Whether its executor dies of what it was asked for."""
    unhealthy: bool = False
    """Whether a health check is why it is killed."""
    deadline: Timer | None = None
    checks: TaskChecks | None = None
    told: list[Mapping[str, Any]] = field(default_factory=list)
    """The statuses that have been sent, one for each run of equal states."""
    abandoned: bool = False
    """Whether nobody wants to hear of it any more."""

    @property
    def key(self) -> Key:
        """Framework and task id."""
        return (self.framework.id, self.task.id)

    @property
    def executor_id(self) -> str:
        """Id of the executor; that of a command task is the task's."""
        return self.task.id if self.group is None else self.group.id

    def set_phase(self, phase: Phase) -> None:
        """Move on.

        Raises
        ------
        RuntimeError
            If that is a step back.
        """
        if phase not in _NEXT[self.phase]:
            raise RuntimeError(f"task {self.task.id}: {self.phase.value} → {phase.value}")
        self.phase = phase


@dataclass(slots=True, eq=False)
class Group:
    """A default executor: it lives as long as one of its tasks, and a failed one takes the others along."""

    id: str
    framework: FrameworkInfo
    container_id: str
    sandbox: Path
    pool: Pool
    """Resources of the executor itself."""
    runs: list[Run] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Framework and executor id."""
        return (self.framework.id, self.id)

    @property
    def ended(self) -> bool:
        """Whether none of its tasks is left."""
        return all(run.phase is Phase.ENDED for run in self.runs)

    def others(self, run: Run) -> list[Run]:
        """Return the other tasks that have not ended."""
        return [other for other in self.runs if other is not run and other.phase is not Phase.ENDED]
