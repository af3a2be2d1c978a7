"""What runs the tasks of an embedded agent.

An :class:`Executor` turns a :class:`Launch` into a :class:`Container`: something that runs, can be killed and
ends with an :class:`Outcome`. It knows nothing of masters and status updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scheduler.embedded.model import AgentInfo, FrameworkInfo, TaskInfo
from scheduler.errors import SchedulerError


class ContainerLaunchError(SchedulerError):
    """The container cannot be made: TASK_FAILED, REASON_CONTAINER_LAUNCH_FAILED."""


class ProbeError(SchedulerError):
    """A check found nothing out: no connection, no program, no time."""


class SandboxError(SchedulerError):
    """The sandbox cannot be made: TASK_DROPPED, REASON_EXECUTOR_TERMINATED."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that is known about a task when it is started."""

    framework: FrameworkInfo
    agent: AgentInfo
    task: TaskInfo
    container_id: str
    sandbox: Path
    """A folder that does not exist yet."""
    executor: str | None = None
    """Id of the default executor that the task belongs to; None: its command executor has the task's id."""

    @property
    def executor_id(self) -> str:
        """Id of the executor."""
        return self.executor or self.task.id

    @property
    def command(self) -> Mapping[str, Any]:
        """The task's ``CommandInfo``."""
        found: Mapping[str, Any] = self.task.document.get("command", {})
        return found

    @property
    def user(self) -> str:
        """Name of the user to run as; empty: the cluster's own."""
        return str(self.command.get("user") or self.framework.user)

    @property
    def memory(self) -> int:
        """Bytes of memory that the task may use; 0 when it asks for none."""
        return self.task.resources.scalars.get("mem", 0) * (1 << 20) // 1000

    @property
    def containerizer(self) -> str | None:
        """``DOCKER`` or ``MESOS``; None for a task that asks for no container."""
        container = self.task.document.get("container")
        return None if container is None else str(container.get("type", "MESOS"))


@dataclass(frozen=True, slots=True)
class Running:
    """What is known of a container once it runs."""

    data: bytes = b""
    """``TaskStatus.data`` of TASK_RUNNING: for Docker what ``docker inspect`` shows."""
    address: str | None = None
    """Its own address, where that is not its agent's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a container ended."""

    succeeded: bool
    message: str
    """As in the status update, ``Command exited with status 3``."""
    reason: str | None = None
    """``REASON_…``; a normal end has none."""
    by_agent: bool = False
    """Whether the agent tells it, because there is no executor (any more) that could."""
    limitation: tuple[Mapping[str, Any], ...] = ()
    """``Resource`` messages of the limits that were exceeded."""

    @classmethod
    def executor_lost(cls, message: str) -> Outcome:
        """Return how a task ends whose executor was killed."""
        return cls(False, message, "REASON_EXECUTOR_TERMINATED", by_agent=True)


class Container(Protocol):
    """A task that has been made ready; it runs from :meth:`started` until :meth:`wait` returns."""

    @property
    def pid(self) -> int | None:
        """Process id for the status updates, where there is one (yet)."""
        ...

    async def started(self) -> Running | None:
        """Start it, where `launch` has not, and return when it runs; None when it never will."""
        ...

    def kill(self, grace: float) -> None:
        """Ask it to end now, and make it end after `grace` seconds; repeated with 0: at once."""
        ...

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        """Run the command of a check where the task runs; when cancelled, it is killed.

        Parameters
        ----------
        command
            A ``CommandInfo``.

        Returns
        -------
        int
            Its exit status.

        Raises
        ------
        ProbeError
            If it cannot be run.
        """
        ...

    async def wait(self) -> Outcome:
        """Return when nothing of it is left."""
        ...


class Executor(Protocol):
    """Starts tasks."""

    async def launch(self, launch: Launch) -> Container:
        """Start a task.

        Raises
        ------
        SandboxError
            If there is no place for it, or no such user.
        ContainerLaunchError
            If it cannot be made ready to run.
        """
        ...

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """Take up again what an earlier run of the cluster has left, and end all else of it.

        Parameters
        ----------
        launches
            What is wanted; empty: nothing, so that everything is ended.

        Returns
        -------
        mapping
            By container id; those of which nothing is known are missing.
        """
        ...

    async def close(self) -> None:
        """Let go of what is held for all containers; they have ended."""
        ...
