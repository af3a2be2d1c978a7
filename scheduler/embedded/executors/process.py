"""Tasks as local processes.

Each task has a supervisor (:mod:`~scheduler.embedded.executors.supervisor`), which lives on when the cluster
is killed, and is a session of its own in its own sandbox folder, with ``stdout`` and ``stderr`` there. A task
that holds some of the ``cores`` resource is bound to those of them that this machine has, and its memory to
their NUMA nodes. Memory and CPUs are limited by control groups where that is permitted; elsewhere a watchdog
looks after the memory.

When the first process of a task ends, everything that it has started is killed: it is found by its session and
by ``MESOS_SANDBOX`` in its environment, so that a daemon which has left the session does not survive either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scheduler.embedded import processes
from scheduler.embedded.executors import Container, ContainerLaunchError, Launch, Outcome, Running
from scheduler.embedded.executors.beside import run_in_sandbox
from scheduler.embedded.executors.cgroups import Cgroup, Cgroups
from scheduler.embedded.executors.folder import CACHE, User, other_user, prepare
from scheduler.embedded.executors.outcomes import command_outcome, memory_outcome
from scheduler.embedded.executors.spawning import Entry, Records, Started, spawn

logger = logging.getLogger(__name__)

WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks at the memory of tasks."""
_INHERITED = ("HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME")
"""What a task sees of the cluster's own environment, besides PATH."""
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXEC_FAILED = 1
"""Exit status that Mesos' command executor reports when the program cannot be executed."""


class ProcessExecutor:
    """Starts tasks as local processes.

    Parameters
    ----------
    work_dir
        Where the records of running processes are kept.
    limits
        Whether tasks are held to the memory and CPUs that they have been given.
    control_groups
        Whether the kernel may do that; otherwise a watchdog does, for memory alone.
    """

    def __init__(self, work_dir: Path, *, limits: bool = True, control_groups: bool = True) -> None:
        self._work_dir = work_dir
        self._records = Records(work_dir)
        self._limits = limits
        self._control_groups = limits and control_groups
        self._cgroups: Cgroups | None = None
        self._watched: set[_ProcessContainer] = set()
        self._watchdog: asyncio.Task[None] | None = None

    async def launch(self, launch: Launch) -> Container:
        """Start a task; see :class:`~scheduler.embedded.executors.Executor`."""
        if launch.containerizer is not None:
            raise ContainerLaunchError(
                "this cluster runs tasks as plain processes; "
                f"it has no containerizer for {launch.containerizer}"
            )
        if not launch.command.get("value"):
            raise ContainerLaunchError("the command has no value to execute")
        user = await asyncio.to_thread(prepare, launch, self._work_dir / CACHE)
        starting = asyncio.ensure_future(asyncio.to_thread(self._start, launch, user))
        try:
            container = await asyncio.shield(starting)
        except asyncio.CancelledError:  # killed meanwhile: what was started must end
            container = await starting
            container.kill(0.0)
            await container.wait()
            raise
        self._watch(container)
        return container

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """Take up processes of an earlier run that are wanted, and kill all others."""
        found, killed = await asyncio.to_thread(self._recover, launches)
        if killed:
            logger.warning("killed %d processes that an earlier run has left", killed)
        for container in found.values():
            self._watch(container)
        return found

    async def close(self) -> None:
        """End the watchdog, and remove the control group."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watchdog
            self._watchdog = None
        if self._cgroups is not None:
            await asyncio.to_thread(self._cgroups.close)

    def _open_groups(self) -> Cgroups | None:
        if self._control_groups and self._cgroups is None:
            self._cgroups = Cgroups.open(self._work_dir)
            self._control_groups = self._cgroups is not None
        return self._cgroups

    def _group_for(self, launch: Launch) -> Cgroup | None:
        if (cgroups := self._open_groups()) is None:
            return None
        try:
            cpus = launch.task.resources.scalars.get("cpus", 0)
            return cgroups.create(launch.container_id, launch.memory, cpus)
        except OSError as exc:  # the watchdog looks after this one
            logger.warning("no control group for task %s: %s", launch.task.id, exc)
            return None

    def _start(self, launch: Launch, user: User | None) -> _ProcessContainer:
        group = self._group_for(launch)
        environment = task_environment(launch, None if user is None else user.home)
        entries = () if group is None else group.entries
        started = spawn(launch, environment, user, entries, self._records.of(launch.container_id))
        return _ProcessContainer(launch, started, group, self._limits)

    def _recover(self, launches: Sequence[Launch]) -> tuple[dict[str, _ProcessContainer], int]:
        found: dict[str, _ProcessContainer] = {}
        cgroups = self._open_groups()
        for launch in launches:
            entry = self._records.of(launch.container_id)
            if (started := entry.recall(launch.sandbox)) is None:
                continue
            group = None
            if cgroups is not None:
                group = cgroups.find(launch.container_id, launch.memory)
            found[launch.container_id] = _ProcessContainer(launch, started, group, self._limits)
        sandboxes = {str(launch.sandbox) for launch in launches if launch.container_id in found}
        killed = _kill_leftovers(self._work_dir, self._records, found.keys(), sandboxes)
        if cgroups is not None:
            cgroups.clear()
        return found, killed

    def _watch(self, container: _ProcessContainer) -> None:
        if not self._limits or not container.launch.memory:
            return
        self._watched.add(container)
        if self._watchdog is None or self._watchdog.done():
            self._watchdog = asyncio.create_task(self._look_after_memory())

    async def _look_after_memory(self) -> None:
        """End tasks that use too much, or of which the kernel has killed a part."""
        while self._watched:
            await asyncio.sleep(WATCH_INTERVAL)
            self._watched = {c for c in self._watched if not c.ended}
            greedy = await asyncio.to_thread(_over_their_limit, list(self._watched))
            for container in greedy:
                container.kill(0.0)


class _ProcessContainer:
    def __init__(
        self, launch: Launch, started: Started, group: Cgroup | None, limits: bool
    ) -> None:
        self.launch = launch
        self.ended = False
        self._started = started
        self._group = group
        self._limits = limits
        self._used: int | None = None
        """Bytes with which the watchdog has caught it."""
        self._escalation: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Of the supervisor of the task's processes, while there is one."""
        process = self._started.supervisor
        return None if process is None else process.pid

    async def started(self) -> Running:
        """Return at once: it runs since it was launched."""
        return Running()

    def kill(self, grace: float) -> None:
        """Send SIGTERM to the task, and have all its processes killed after `grace` seconds."""
        if self.ended:
            return
        if self._escalation is None:
            self._signal(signal.SIGTERM)
        elif grace > 0:
            return
        else:
            self._escalation.cancel()
        loop = asyncio.get_running_loop()
        self._escalation = loop.call_later(grace, self._signal, signal.SIGUSR1)

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        """Run a check in the sandbox; returns its exit status, raises ``ProbeError``."""
        user = other_user(self.launch.user)
        environment = task_environment(self.launch, None if user is None else user.home)
        return await run_in_sandbox(command, environment, self.launch.sandbox, user)

    async def wait(self) -> Outcome:
        """Return how it ended, when no process of it is left."""
        if self._started.supervisor is not None:
            await processes.ended(self._started.supervisor)
        self.ended = True
        if self._escalation is not None:
            self._escalation.cancel()
        return await asyncio.to_thread(self._finish)

    def over_limit(self) -> bool:
        """Whether it uses more memory than it may. Blocks."""
        if self._group is not None:
            return self._group.out_of_memory()
        if not self._limits or self._started.task is None:
            return False
        used = processes.memory(self._started.task.pid, self.launch.sandbox)
        if used > self.launch.memory:
            self._used = used
        return self._used is not None

    def _finish(self) -> Outcome:
        """End what is left, and tell how it was."""
        _kill_rest(self._started.task, self.launch.sandbox)
        outcome = self._outcome()
        if self._group is not None:
            self._group.remove()
        self._started.forget()
        return outcome

    def _outcome(self) -> Outcome:
        if self._used is not None:
            return memory_outcome(self.launch.memory, self._used)
        if self._group is not None and self._group.out_of_memory():
            group = self._group
            return memory_outcome(group.limit, group.peak(), group.statistics())
        if self._started.supervisor is None:
            return command_outcome(_EXEC_FAILED)
        status = self._started.status()
        if status is None:
            return Outcome.executor_lost("Executor terminated")
        return command_outcome(status)

    def _signal(self, number: signal.Signals) -> None:
        """Tell the supervisor; SIGUSR1 is SIGKILL to it."""
        if not self.ended and self._started.supervisor is not None:
            self._started.supervisor.signal(number)


def task_environment(launch: Launch, user_home: str | None = None) -> dict[str, str]:
    """Return the environment of a task: a small base, Mesos' own variables, the command's."""
    own_bin = str(Path(sys.executable).parent)  # not resolved: that is where the environment is
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment["PATH"] = f"{own_bin}:{os.environ.get('PATH', _DEFAULT_PATH)}"
    if user_home is not None:
        environment |= {"HOME": user_home, "USER": launch.user, "LOGNAME": launch.user}
    environment |= {
        "MESOS_SANDBOX": str(launch.sandbox),
        "MESOS_DIRECTORY": str(launch.sandbox),
        "MESOS_ALLOCATION_ROLE": launch.task.role,
        "MESOS_FRAMEWORK_ID": launch.framework.id,
        "MESOS_EXECUTOR_ID": launch.executor_id,
        "MESOS_SLAVE_ID": launch.agent.id,
        "MESOS_AGENT_ENDPOINT": "{}:{}".format(*launch.agent.address),
        "MESOS_CHECKPOINT": str(int(launch.framework.checkpoint)),
    }
    for variable in launch.command.get("environment", {}).get("variables", ()):
        environment[variable["name"]] = variable.get("value", "")
    environment["MESOS_SANDBOX"] = str(launch.sandbox)  # by this the task's processes are known
    return environment


def _over_their_limit(containers: Sequence[_ProcessContainer]) -> list[_ProcessContainer]:
    return [container for container in containers if container.over_limit()]


def _kill_rest(leader: processes.Process | None, sandbox: Path) -> None:
    """Kill what a task has started, now that its first process has ended."""

    def belongs(process: processes.Process) -> bool:
        if leader is not None and process.session == leader.pid and _is_session_of(leader):
            return True
        return processes.environment(process.pid).get("MESOS_SANDBOX") == str(sandbox)

    processes.kill_all(belongs)


def _is_session_of(leader: processes.Process) -> bool:
    """Whether the session of that number is (still) this leader's.

    As long as a session has members its number is not given again; once it has none, another process may have
    that number, and a later start.
    """
    found = processes.look(leader.pid)
    return found is None or found.start_time == leader.start_time


def _kill_leftovers(work_dir: Path, records: Records, wanted: Any, sandboxes: set[str]) -> int:
    """Kill all processes of the work folder but those of the wanted containers."""
    unwanted: list[Entry] = [entry for entry in records.all() if entry.container_id not in wanted]
    sessions = {p.pid for entry in unwanted for p in entry.alive()}
    below = f"{work_dir}/"

    def belongs(process: processes.Process) -> bool:
        if process.session in sessions:  # the leader is one of ours, so the session is
            return True
        sandbox = processes.environment(process.pid).get("MESOS_SANDBOX", "")
        return sandbox.startswith(below) and sandbox not in sandboxes

    count = processes.kill_all(belongs)
    for entry in unwanted:
        entry.forget()
    return count
