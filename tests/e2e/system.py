"""Real programs of the system, started, watched and ended as a person would."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from secrets import randbelow
from types import TracebackType
from typing import Any, Final, Self

import psutil

from scheduler.packing.solve import warm_up
from sdpcontroller.children import with_parent
from tests.conftest import PATIENCE, free_port, free_ports, wait_for_port

BIN: Final = Path(sys.executable).parent
SDP: Final = str(BIN / "sdp")
MARK: Final = "SDP_TEST_RUN"
"""Environment variable by which the services of one test are known; tasks are known by their sandboxes."""

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_POLL: Final = 0.05


def eventually(what: str, holds: Callable[[], Any], timeout: float) -> Any:
    """Return the first true value of `holds`, or fail with its last one."""
    deadline = time.monotonic() + timeout
    while True:
        if value := holds():
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s ({value!r})"
        time.sleep(_POLL)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


class Run:
    """One run of the system in a folder of its own: whose processes can be told from all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.environment = {**os.environ, MARK: self.mark, "COLUMNS": "150", "LINES": "60"}

    def processes(self) -> list[psutil.Process]:
        """Every process of this run that has not ended, daemons and tasks included."""
        return [p for p in psutil.process_iter() if p.pid != os.getpid() and self._owns(p)]

    def _owns(self, process: psutil.Process) -> bool:
        below = f"{self.folder}/"
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            environment = process.environ()
            places = [environment.get("MESOS_SANDBOX", ""), f"{process.cwd()}/", *process.cmdline()]
        except psutil.Error:
            return False
        return environment.get(MARK) == self.mark or any(below in place for place in places)

    def left(self) -> list[str]:
        """Command lines of the processes of this run, for people."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found.append(f"{process.pid}: {' '.join(process.cmdline())[:200]}")
        return found

    def task(self, program: str, name: str) -> psutil.Process:
        """The process of a task, by its program and its name."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if _supervises(words):
                    continue
                if f"pipelines.{program}" in words and (not name or name in words):
                    return process
        raise AssertionError(f"no process of {name} among {self.left()}")

    def ports(self) -> set[int]:
        """TCP ports that the processes of this run listen on."""
        found: set[int] = set()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                connections = process.net_connections(kind="tcp")
                found |= {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
        return found

    def kill_all(self) -> None:
        """End what a failed test has left."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(5)


class Terminal:
    """A command on a terminal of its own, as somebody sits before it: Ctrl-C is the key."""

    def __init__(self, run: Run, command: Sequence[str]) -> None:
        self._run = run
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=run.environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        os.close(self._master)
        if error is not None:
            self._run.kill_all()

    @property
    def text(self) -> str:
        """What was printed so far, without colours and movements of the cursor."""
        return _ESCAPES.sub("", self._seen).replace("\r\n", "\n")

    def _read(self, timeout: float) -> bool:
        """Take what is printed; false when nobody will print any more."""
        ready, _, _ = select.select([self._master], [], [], timeout)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nobody has the terminal open any more
            return False
        self._seen += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, words: str, timeout: float) -> None:
        """Wait until something is on the terminal."""
        deadline = time.monotonic() + timeout
        while words not in self.text:
            alive = self._read(_POLL)
            assert alive, f"ended without {words!r}:\n{self.text[-4000:]}"
            assert time.monotonic() < deadline, (
                f"no {words!r} in {timeout:g} s:\n{self.text[-4000:]}"
            )

    def press_ctrl_c(self) -> None:
        """Press Ctrl-C."""
        os.write(self._master, b"\x03")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; SIGINT is sent as the key."""
        if number is signal.SIGINT:
            self.press_ctrl_c()
        else:
            self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit status."""
        deadline = time.monotonic() + timeout
        while self._read(_POLL):
            assert time.monotonic() < deadline, f"still runs after {timeout:g} s:\n{self.text}"
        return self._process.wait(max(1.0, deadline - time.monotonic()))


def _take_terminal() -> None:
    """Make standard input the session's terminal, so that its keys send signals."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Stack:
    """Redis, ``sdp cluster`` and ``sdp master`` as processes.

    The cluster pretends to a machine of four cores and 12 GB, whatever runs it, so that what fits and what
    does not is the same everywhere; or it has the agents that are described.

    Parameters
    ----------
    spec
        Agents as ``sdp cluster --spec`` takes them.
    """

    def __init__(self, folder: Path, spec: Sequence[Mapping[str, Any]] | None = None) -> None:
        self._spec = spec
        self.run = Run(folder)
        self.folder = folder
        ports = (free_port() for _ in range(4))
        self.redis_port, self.mesos_port, self.katcp_port, self._goahead_port = ports
        self._multicast = f"239.{192 + randbelow(4)}.{randbelow(256)}.0/24"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        warm_up()  # compiles on a fresh machine, which takes longer than our deadlines
        try:
            self._start_redis()
            self._start_cluster()
            self.start_master()
        except BaseException:
            self.run.kill_all()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            for name in reversed(list(self._processes)):
                process = self._processes.pop(name)
                process.terminate()
                assert process.wait(2 * PATIENCE) == 0, f"{name}: {self.log(name)[-2000:]}"
            eventually("nothing is left", lambda: not self.run.left(), timeout=PATIENCE)
        finally:
            self.run.kill_all()

    def _start_redis(self) -> None:
        data = self.folder / "redis"
        data.mkdir()
        options = ["--bind", "127.0.0.1", "--dir", str(data), "--appendonly", "yes"]
        self._start("redis", ["redis-server", "--port", str(self.redis_port), *options])
        wait_for_port("127.0.0.1", self.redis_port, self._processes["redis"])

    def _start_cluster(self) -> None:
        work_dir = ["--work-dir", str(self.folder / "cluster")]
        agents = self._shared_machine() if self._spec is None else self._described(self._spec)
        self._start("cluster", [SDP, "cluster", "--port", str(self.mesos_port), *work_dir, *agents])
        wait_for_port("127.0.0.1", self.mesos_port, self._processes["cluster"])

    def _described(self, spec: Sequence[Mapping[str, Any]]) -> list[str]:
        path = self.folder / "agents.json"
        path.write_text(json.dumps(spec))
        return ["--spec", str(path)]

    def _shared_machine(self) -> list[str]:
        topology = self.folder / "machine.xml"
        machine = "package:1 [numa(memory=12GB)] core:4 pu:1"
        made = subprocess.run(
            ["lstopo", "--input", machine, "--of", "xml"], check=True, capture_output=True
        )
        topology.write_bytes(made.stdout)
        # Other clusters may run on this machine, a demonstration say: ports and groups of our own.
        first = free_ports(600)
        data = ["--data", str(self.folder / "data")]
        return [*data, "--topology", str(topology), "--ports", f"{first}-{first + 599}"]

    def start_master(self) -> None:
        """Start a controller; on the same database, if there was one before."""
        self._start_master("master", self.katcp_port, self._goahead_port)
        wait_for_port("127.0.0.1", self.katcp_port, self._processes["master"])

    def start_standby(self, name: str, port: int) -> None:
        """Start a second controller, which will answer at a port once it leads."""
        said = self.log(name) if (self.folder / f"{name}.log").exists() else ""
        self._start_master(name, port, free_port())
        eventually(
            "it stands by", lambda: "standing by" in self.log(name)[len(said) :], timeout=PATIENCE
        )

    def _start_master(self, name: str, port: int, goahead: int) -> None:
        command = [SDP, "master", "--port", str(port), "--fit-timeout", "20"]
        command += ["--mesos", f"127.0.0.1:{self.mesos_port}"]
        command += ["--multicast", self._multicast, "--goahead-port", str(goahead)]
        command += ["--redis", f"redis://127.0.0.1:{self.redis_port}/0"]
        self._start(name, command)

    def kill_master(self, name: str = "master") -> None:
        """End a controller as a failing machine would."""
        process = self._processes.pop(name)
        process.kill()
        process.wait(10)

    def end_master(self, name: str = "master") -> subprocess.Popen[bytes]:
        """Tell a controller to end in order; it may take its time."""
        process = self._processes.pop(name)
        process.terminate()
        return process

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                with_parent(command, signal.SIGTERM if name == "cluster" else signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.run.environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        """What a service has written to its log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def mesos_state(self) -> Mapping[str, Any]:
        """The Mesos master's own account."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.mesos_port}/state", timeout=PATIENCE
        ) as reply:
            state: dict[str, Any] = json.load(reply)
        return state

    def in_use(self) -> list[str]:
        """What the cluster says that tasks hold, and the tasks; empty when all is free."""
        state = self.mesos_state()
        frameworks = state["frameworks"]
        held = [task["id"] for framework in frameworks for task in framework["tasks"]]
        for agent in state["slaves"]:
            used = agent["used_resources"].items()
            held += [f"{agent['hostname']} {name} {amount}" for name, amount in used if amount]
        return held

    def tasks_running(self) -> list[str]:
        """Command lines of the tasks' processes."""
        sandboxes = f"{self.folder}/cluster/"
        found = []
        for process in self.run.processes():
            with contextlib.suppress(psutil.Error):
                # Redis, the telescope state, writes its title over its environment.
                places = (process.environ().get("MESOS_SANDBOX", ""), process.cwd())
                words = process.cmdline()
                if any(place.startswith(sandboxes) for place in places) and not _supervises(words):
                    found.append(" ".join(words))
        return sorted(found)

    def assert_all_free(self) -> None:
        """The cluster has everything back, and nothing of any task runs."""
        eventually("the cluster has everything back", lambda: not self.in_use(), timeout=PATIENCE)
        assert self.in_use() == []
        assert self.tasks_running() == []


def _supervises(words: Sequence[str]) -> bool:
    """Whether it is the executor's process beside a task, not the task."""
    return any(word.endswith("/supervisor.py") for word in words)


@contextlib.contextmanager
def multicast_sender() -> Iterator[socket.socket]:
    """A UDP socket that sends to multicast groups on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        yield sock
