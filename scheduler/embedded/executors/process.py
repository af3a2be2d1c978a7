"""Tasks as local processes.

Each task is a session of its own in its own sandbox folder, with ``stdout`` and ``stderr`` there. A task that
holds some of the ``cores`` resource is bound to those of them that this machine has. When its first process
ends, everything that the task has started is killed: it is found by its session and by ``MESOS_SANDBOX`` in
its environment, so that a daemon which has left the session does not survive either.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scheduler.embedded import processes
from scheduler.embedded.executors import (
    Container,
    ContainerLaunchError,
    Launch,
    Outcome,
    ProbeError,
    Running,
)
from scheduler.embedded.executors.folder import User, open_log, prepare

logger = logging.getLogger(__name__)

_INHERITED = ("HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME")
"""What a task sees of the cluster's own environment, besides PATH."""
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXEC_FAILED = 1
"""Exit status that Mesos' command executor reports when the program cannot be executed."""
_PID_DIR = Path("meta", "processes")


class ProcessExecutor:
    """Starts tasks as local processes.

    Parameters
    ----------
    work_dir
        Where the records of running processes are kept.
    """

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._records = work_dir / _PID_DIR

    async def launch(self, launch: Launch) -> Container:
        """Start a task; see :class:`~scheduler.embedded.executors.Executor`."""
        if "container" in launch.task.document:
            kind = launch.task.document["container"].get("type", "MESOS")
            raise ContainerLaunchError(
                f"this cluster runs tasks as plain processes; it has no containerizer for {kind}"
            )
        if not launch.command.get("value"):
            raise ContainerLaunchError("the command has no value to execute")
        user = await asyncio.to_thread(prepare, launch)
        started = await asyncio.to_thread(_start, launch, user, self._records)
        return _ProcessContainer(started)

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """Kill what tasks of an earlier run have left, whether or not there is a record of it."""
        count = await asyncio.to_thread(_kill_leftovers, self._work_dir, self._records)
        if count:
            logger.warning("killed %d processes that an earlier run has left", count)
        return {}

    async def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True, slots=True)
class _Started:
    """A process that runs, or the exit status of one that could not."""

    process: subprocess.Popen[bytes] | None
    sandbox: Path
    record: Path
    environment: Mapping[str, str]
    user: User | None


class _ProcessContainer:
    def __init__(self, started: _Started) -> None:
        self._process = started.process
        self._started = started
        self._escalation: asyncio.TimerHandle | None = None
        self._ended = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def started(self) -> Running:
        return Running()

    def kill(self, grace: float) -> None:
        if self._ended or self._process is None:
            return
        if self._escalation is None:
            self._signal(signal.SIGTERM)
        elif grace > 0:
            return
        else:
            self._escalation.cancel()
        loop = asyncio.get_running_loop()
        self._escalation = loop.call_later(grace, self._signal, signal.SIGKILL)

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        return await _run_beside(command, self._started)

    async def wait(self) -> Outcome:
        if self._process is None:
            return outcome(_EXEC_FAILED)
        await processes.ended(self._process.pid)
        self._ended = True
        if self._escalation is not None:
            self._escalation.cancel()
        # The first process is not reaped yet: as long as it is not, its number, which is that of
        # the session, cannot belong to anybody else.
        await asyncio.to_thread(_kill_rest, self._process.pid, self._started.sandbox)
        status = self._process.wait()
        self._started.record.unlink(missing_ok=True)
        return outcome(status)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the task's process group, whose leader is not reaped before `wait` is done."""
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def outcome(status: int) -> Outcome:
    """Say how a process ended in Mesos' words; a negative status is a signal."""
    if status >= 0:
        return Outcome(status == 0, f"Command exited with status {status}")
    name = signal.strsignal(-status) or f"{-status}"
    return Outcome(False, f"Command terminated with signal {name}")


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


def _arguments(command: Any) -> tuple[str, list[str]]:
    """Return program and argv; ``arguments`` hold argv[0], as with Mesos' command executor."""
    value = command["value"]
    if command.get("shell", True):
        return "/bin/sh", ["sh", "-c", value]
    return value, list(command.get("arguments") or [value])


def _start(launch: Launch, user: User | None, records: Path) -> _Started:
    """Start the process. In a worker thread, as the binding to cores is the thread's own."""
    program, arguments = _arguments(launch.command)
    environment = task_environment(launch, None if user is None else user.home)
    record = records / f"{launch.container_id}.json"
    with (
        open_log(launch.sandbox, "stdout", user) as out,
        open_log(launch.sandbox, "stderr", user) as err,
    ):
        try:
            with _bound_to(_own_cores(launch)):
                process = _popen(program, arguments, environment, launch.sandbox, out, err, user)
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            err.write(f"Failed to execute '{program}': {exc}\n".encode())
            return _Started(None, launch.sandbox, record, environment, user)
    _write_record(record, process.pid, launch.sandbox)
    return _Started(process, launch.sandbox, record, environment, user)


def _popen(
    program: str,
    arguments: Sequence[str],
    environment: dict[str, str],
    sandbox: Path,
    out: IO[bytes],
    err: IO[bytes],
    user: User | None,
) -> subprocess.Popen[bytes]:
    path = environment["PATH"]
    found = program if "/" in program else shutil.which(program, path=path) or program
    return subprocess.Popen(
        arguments,
        executable=found,
        cwd=sandbox,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
        **_identity(user),
    )


def _identity(user: User | None) -> dict[str, Any]:
    """Return what makes a new process somebody else's."""
    if user is None:
        return {}
    groups = os.getgrouplist(user.name, user.gid)
    return {"user": user.uid, "group": user.gid, "extra_groups": groups}


async def _run_beside(command: Mapping[str, Any], started: _Started) -> int:
    """Run a check's command in the sandbox, as the task's user; cancelled, it is killed."""
    program, arguments = _arguments(command)
    environment = dict(started.environment)
    for variable in command.get("environment", {}).get("variables", ()):
        environment[variable["name"]] = variable.get("value", "")
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            executable=shutil.which(program, path=environment["PATH"]) or program,
            cwd=started.sandbox,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **_identity(started.user),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        raise ProbeError(str(exc)) from exc
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _own_cores(launch: Launch) -> set[int]:
    """Return the task's cores that exist here; a cluster may pretend to be larger than its machine."""
    cores = launch.task.resources.ranges.get("cores")
    return set() if cores is None else {c for c in os.sched_getaffinity(0) if c in cores}


@contextlib.contextmanager
def _bound_to(cores: set[int]) -> Any:
    """Bind this thread for a while: a child is born with the binding of the thread that starts it."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _kill_rest(session: int, sandbox: Path) -> None:
    """Kill what a task has started, now that its first process has ended."""

    def belongs(process: processes.Process) -> bool:
        if process.session == session:
            return True
        return processes.environment(process.pid).get("MESOS_SANDBOX") == str(sandbox)

    processes.kill_all(belongs)


def _write_record(record: Path, pid: int, sandbox: Path) -> None:
    """Note who runs, for a cluster that finds the work folder after this one was killed."""
    process = processes.look(pid)
    if process is None:
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    document = {"pid": pid, "start_time": process.start_time, "sandbox": str(sandbox)}
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    fresh.replace(record)


def _kill_leftovers(work_dir: Path, records: Path) -> int:
    known = {(r["pid"], r["start_time"]) for r in map(_read_record, _records(records)) if r}
    alive = {p.pid for p in processes.everyone() if (p.pid, p.start_time) in known}
    below = f"{work_dir}/"

    def belongs(process: processes.Process) -> bool:
        if process.session in alive:  # the leader is one of ours, so the session is
            return True
        return processes.environment(process.pid).get("MESOS_SANDBOX", "").startswith(below)

    count = processes.kill_all(belongs)
    for record in _records(records):
        record.unlink(missing_ok=True)
    return count


def _records(records: Path) -> list[Path]:
    return sorted(records.glob("*.json"))


def _read_record(record: Path) -> dict[str, Any] | None:
    """Return a record, None when it is torn: then the environment still tells the process."""
    try:
        document = json.loads(record.read_text())
        return {"pid": int(document["pid"]), "start_time": int(document["start_time"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
