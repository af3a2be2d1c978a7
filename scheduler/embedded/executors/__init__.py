"""What runs the tasks of an embedded agent.

An :class:`Executor` turns a :class:`Launch` into a :class:`Container`: something that runs, can be killed and
ends with an :class:`Outcome`. It knows nothing of masters and status updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scheduler.embedded.model import AgentInfo, FrameworkInfo, TaskInfo
from scheduler.errors import SchedulerError


class ContainerLaunchError(SchedulerError):
    """The container cannot be made: TASK_FAILED, REASON_CONTAINER_LAUNCH_FAILED."""


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

    @property
    def command(self) -> Mapping[str, Any]:
        """The task's ``CommandInfo``."""
        found: Mapping[str, Any] = self.task.document.get("command", {})
        return found

    @property
    def user(self) -> str:
        """Name of the user to run as; empty: the cluster's own."""
        return str(self.command.get("user") or self.framework.user)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a container ended."""

    succeeded: bool
    message: str
    """As in the status update, ``Command exited with status 3``."""


class Container(Protocol):
    """A task that runs."""

    @property
    def pid(self) -> int | None:
        """Process id for the status updates, where there is one."""
        ...

    def kill(self, grace: float) -> None:
        """Ask it to end now, and make it end after `grace` seconds; repeated with 0: at once."""
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

    async def recover(self, work_dir: Path) -> int:
        """End what an earlier run of the cluster has left behind; return how many there were."""
        ...
