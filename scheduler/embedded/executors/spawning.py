"""Starting a task's supervisor, and what is noted of it for a cluster that finds it later. All of it blocks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scheduler.embedded import processes
from scheduler.embedded.executors import Launch
from scheduler.embedded.executors.folder import User, open_log

_SUPERVISOR: Final = Path(__file__).with_name("supervisor.py")
_FOLDER: Final = Path("meta", "processes")


@dataclass(frozen=True, slots=True)
class Entry:
    """The files that are kept of one container."""

    folder: Path
    container_id: str

    @property
    def record(self) -> Path:
        """Who runs."""
        return self.folder / f"{self.container_id}.json"

    @property
    def status(self) -> Path:
        """How it ended; written by the supervisor."""
        return self.folder / f"{self.container_id}.status"

    def note(self, supervisor: processes.Process, task: processes.Process | None) -> None:
        """Note who runs."""
        document = {
            "supervisor": _identity(supervisor),
            "task": None if task is None else _identity(task),
        }
        fresh = self.record.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        fresh.replace(self.record)

    def recall(self, sandbox: Path) -> Started | None:
        """Return what an earlier run has started and that still runs, or has ended with a known status."""
        noted = self._noted()
        if noted is None:
            return None
        supervisor, task = noted
        if not _is_alive(supervisor) and not self.status.exists():
            return None
        return Started(self, supervisor, task, None)

    def alive(self) -> list[processes.Process]:
        """Return those that have been noted and have not ended."""
        noted = self._noted()
        return [] if noted is None else [p for p in noted if p is not None and _is_alive(p)]

    def forget(self) -> None:
        """Remove the files."""
        self.record.unlink(missing_ok=True)
        self.status.unlink(missing_ok=True)

    def _noted(self) -> tuple[processes.Process, processes.Process | None] | None:
        """Return supervisor and task; None when the record is torn: then the environment still tells."""
        try:
            document = json.loads(self.record.read_text())
            task = document["task"]
            return _process(document["supervisor"]), None if task is None else _process(task)
        except (OSError, ValueError, KeyError, TypeError):
            return None


class Records:
    """The entries of one work folder.

    Parameters
    ----------
    work_dir
        The cluster's.
    """

    def __init__(self, work_dir: Path) -> None:
        self._folder = work_dir / _FOLDER

    def of(self, container_id: str) -> Entry:
        """Return the entry of a container, whether or not anything has been noted."""
        return Entry(self._folder, container_id)

    def all(self) -> Iterator[Entry]:
        """Yield everything that has been noted."""
        for path in sorted(self._folder.glob("*.*")):
            if path.suffix in (".json", ".status"):
                yield Entry(self._folder, path.stem)


@dataclass(frozen=True, slots=True)
class Started:
    """A task that runs under its supervisor, or that could not be executed."""

    entry: Entry
    supervisor: processes.Process | None
    """None when there is none because it could not even be started."""
    task: processes.Process | None
    child: subprocess.Popen[bytes] | None
    """The supervisor, when it is a child of this very process."""

    def status(self) -> int | None:
        """Return the task's exit status, negative for a signal; None when its supervisor was killed."""
        try:
            return os.waitstatus_to_exitcode(int(self.entry.status.read_text()))
        except (OSError, ValueError):
            return None

    def forget(self) -> None:
        """Reap the supervisor, which has ended, and remove the notes."""
        if self.child is not None:
            self.child.wait()
        self.entry.forget()


def spawn(
    launch: Launch,
    environment: Mapping[str, str],
    user: User | None,
    cgroups: Sequence[str],
    entry: Entry,
) -> Started:
    """Start a task; what cannot be executed has its reason in the sandbox' ``stderr``."""
    entry.folder.mkdir(parents=True, exist_ok=True)
    document = _document(launch, environment, user, cgroups)
    with ExitStack() as stack:
        out = stack.enter_context(open_log(launch.sandbox, "stdout", user))
        err = stack.enter_context(open_log(launch.sandbox, "stderr", user))
        reader, writer = os.pipe()
        answer = stack.enter_context(os.fdopen(reader))
        with os.fdopen(writer, "w") as report:
            document |= {"stdout": out.fileno(), "stderr": err.fileno(), "report": writer}
            child = _supervise(launch, entry, document, (out.fileno(), err.fileno(), writer))
            report.close()
        told = _read(answer.read())
        supervisor = processes.look(child.pid)
        if (error := told.get("error")) is not None:
            err.write(f"Failed to execute '{document['program']}': {error}\n".encode())
    task = processes.look(told["pid"]) if "pid" in told else None
    if supervisor is not None:
        entry.note(supervisor, task)
    return Started(entry, supervisor, task, child)


def _document(
    launch: Launch, environment: Mapping[str, str], user: User | None, cgroups: Sequence[str]
) -> dict[str, Any]:
    """Return what the supervisor has to know, but for its files."""
    program, arguments = program_of(launch.command)
    found = program if "/" in program else shutil.which(program, path=environment["PATH"])
    cores = _own_cores(launch)
    document: dict[str, Any] = {
        "program": found or program,
        "argv": arguments,
        "environment": environment,
        "cpus": sorted(cores),
        "nodes": sorted(_nodes_of(cores)),
        "cgroups": list(cgroups),
    }
    if user is not None:
        groups = os.getgrouplist(user.name, user.gid)
        document["user"] = {"uid": user.uid, "gid": user.gid, "groups": groups}
    return document


def _supervise(
    launch: Launch, entry: Entry, document: Mapping[str, Any], files: Sequence[int]
) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_SUPERVISOR), str(entry.status)],
        cwd=launch.sandbox,
        env={"MESOS_SANDBOX": str(launch.sandbox)},  # by this it is known, should it be left behind
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=files[1],
        pass_fds=files,
        start_new_session=True,
    )
    if child.stdin is not None:
        with child.stdin as pipe:
            pipe.write(json.dumps(document).encode())
    return child


def _read(text: str) -> dict[str, Any]:
    """Read what the supervisor has reported."""
    try:
        told: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"error": "its supervisor has ended"}
    return told


def program_of(command: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return program and argv; ``arguments`` hold argv[0], as with Mesos' command executor."""
    value = command["value"]
    if command.get("shell", True):
        return "/bin/sh", ["sh", "-c", value]
    return value, list(command.get("arguments") or [value])


def _own_cores(launch: Launch) -> set[int]:
    """Return the task's cores that exist here; a cluster may pretend to be larger than its machine."""
    cores = launch.task.resources.ranges.get("cores")
    return set() if cores is None else {c for c in os.sched_getaffinity(0) if c in cores}


def _nodes_of(cores: set[int]) -> set[int]:
    """Return the NUMA nodes of cores; empty where the kernel shows none."""
    return {
        int(node.name.removeprefix("node"))
        for core in cores
        for node in Path(f"/sys/devices/system/cpu/cpu{core}").glob("node[0-9]*")
    }


def _identity(process: processes.Process) -> list[int]:
    return [process.pid, process.start_time]


def _process(identity: Sequence[Any]) -> processes.Process:
    pid, start_time = (int(number) for number in identity)
    return processes.Process(pid, start_time, pid)


def _is_alive(process: processes.Process) -> bool:
    found = processes.look(process.pid)
    return found is not None and found.start_time == process.start_time and not found.zombie
