"""The stage of a recorded scene: an embedded cluster in virtual time, whose tasks do what their commands say.

How long things took (a launch, the end of a program) is taken from the recording, as another machine would have
other times; what happens then is not.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.embedded import Cluster
from scheduler.embedded.checks import Check
from scheduler.embedded.clock import VirtualClock
from scheduler.embedded.executors import (
    Container,
    ContainerLaunchError,
    Launch,
    Outcome,
    ProbeError,
    Running,
    SandboxError,
)
from tests.contract.shell import Program, program

LAUNCH_TIME = 0.3
"""Seconds that a launch takes of which nothing was recorded."""
TOLERANCE = 1.6
"""Seconds by which a recorded end may differ from what the program and its kill policy say."""
_INSPECT_TIMEOUT = 5.0
"""Seconds after which a Docker container that does not come up is given up by its executor."""


@dataclass(frozen=True)
class Times:
    """When things happened to a task, in seconds of the recording; None: not recorded."""

    starting: float | None = None
    running: float | None = None
    ended: float | None = None


class Stage:
    """Runs tasks and looks after them; the recording's times are told to it beforehand.

    Parameters
    ----------
    clock
        The time.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._times: dict[str, Times] = {}
        self._pids = itertools.count(10_000)
        self.containers: dict[str, StagedContainer] = {}
        """The newest container of each task."""

    def expect(self, task_id: str, times: Times) -> None:
        """Tell what was recorded of the next launch of a task."""
        self._times[task_id] = times

    async def launch(self, launch: Launch) -> Container:
        """Make a task ready."""
        times = self._times.pop(launch.task.id, Times())
        await self.until(self.clock.monotonic() + LAUNCH_TIME, times.starting)
        _refuse(launch)
        played = program(launch.task.document)
        _make_sandbox(launch.sandbox, played)
        pid = None if launch.containerizer == "DOCKER" else next(self._pids)
        container = StagedContainer(self, launch, played, times, pid)
        self.containers[launch.task.id] = container
        return container

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """There is nothing of an earlier run."""
        return {}

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def probe(self, launch: Launch, container: Container, check: Check) -> int:
        """Look after a task, as its program is at this moment."""
        if check.kind == "COMMAND":
            return await container.run_beside(check.command)
        server = self.containers[launch.task.id].server
        if check.kind == "TCP":
            return int(check.document["tcp"]["port"] == server)
        if check.document["http"]["port"] != server:
            raise ProbeError("connection refused")
        return 200 if check.document["http"].get("path", "/") == "/" else 404

    async def until(self, default: float, recorded: float | None) -> None:
        """Wait until something was recorded, or else until then."""
        when = default if recorded is None else recorded
        done = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        timer = self.clock.call_later(when - self.clock.monotonic(), wake)
        try:
            await done
        finally:
            timer.cancel()


def _make_sandbox(folder: Path, played: Program) -> None:
    """Make the sandbox, with what the program says."""
    folder.mkdir(parents=True)
    latest = folder.with_name("latest")
    latest.unlink(missing_ok=True)
    latest.symlink_to(folder.name)
    for name, text in played.output.items():
        (folder / name).write_text(text)


def _refuse(launch: Launch) -> None:
    """Fail what cannot be launched."""
    command = launch.command
    if command.get("user") == "nosuchuser":
        raise SandboxError(
            f"Failed to create executor directory '{launch.sandbox}': "
            "Failed to chown directory to 'nosuchuser': No such user 'nosuchuser'"
        )
    if any(uri["value"] == "file:///no/such/file" for uri in command.get("uris", ())):
        raise ContainerLaunchError(
            f"Failed to fetch all URIs for container '{launch.container_id}': exited with status 1"
        )
    image = launch.task.document.get("container", {}).get("docker", {}).get("image", "")
    if image.startswith("localhost:1/"):
        raise ContainerLaunchError(f"Failed to pull {image}")


class StagedContainer:
    """A task on the stage."""

    def __init__(
        self, stage: Stage, launch: Launch, played: Program, times: Times, pid: int | None
    ) -> None:
        self._stage = stage
        self._launch = launch
        self._program = played
        self._times = times
        self._pid = pid
        self._began = 0.0
        self._runs = False
        self._killed = False
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int | None:
        return self._pid

    @property
    def server(self) -> int | None:
        """Port on which the task listens now."""
        return self._program.server if self._runs else None

    async def started(self) -> Running | None:
        now = self._stage.clock.monotonic()
        if (status := _refused(self._launch)) is not None:
            await self._stage.until(now + _INSPECT_TIMEOUT, self._times.ended)
            self._end(status)
            return None
        await self._stage.until(now + 0.02, self._times.running)
        self._runs = True
        self._began = self._stage.clock.monotonic()
        if self._program.seconds is not None:
            self._end_at(self._began + self._program.seconds, self._program.status)
        return Running(b"inspected" if self._pid is None else b"")

    def kill(self, grace: float) -> None:
        if self._killed and grace > 0:
            return
        self._killed = True
        now = self._stage.clock.monotonic()
        if self._program.on_term == "die":
            self._end_at(now, -int(signal.SIGTERM))
            return
        delay, status = _trapped(self._program.on_term)
        if status is not None and delay <= grace:
            self._end_at(now + delay, status)
        else:
            self._end_at(now + grace, -int(signal.SIGKILL))

    def lose(self, outcome: Outcome) -> None:
        """Let something from outside end it; at the recorded moment, when that is near."""
        now = self._stage.clock.monotonic()
        recorded = self._times.ended
        when = recorded if recorded is not None and abs(recorded - now) <= TOLERANCE else now
        self._stage.clock.call_later(when - now, lambda: self._set(outcome))

    def _set(self, outcome: Outcome) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        elapsed = self._stage.clock.monotonic() - self._began
        match command["value"].split():
            case ["test", "-f", name]:
                return 0 if self._program.has_file(name.strip("/"), elapsed) else 1
            case ["exit", status]:
                return int(status)
        raise ValueError(f"unknown check {command}")

    async def wait(self) -> Outcome:
        return await self._outcome

    def _end_at(self, when: float, status: int) -> None:
        """End then; at the recorded moment, when that is about the same."""
        recorded = self._times.ended
        if recorded is not None and abs(recorded - when) <= TOLERANCE:
            when = recorded
        delay = when - self._stage.clock.monotonic()
        self._stage.clock.call_later(delay, lambda: self._end(status))

    def _end(self, status: int) -> None:
        if self._pid is None:
            code = 128 - status if status < 0 else status
            self._set(Outcome(code == 0, f"Container exited with status {code}"))
        elif status >= 0:
            self._set(Outcome(status == 0, f"Command exited with status {status}"))
        else:
            name = signal.strsignal(-status)
            self._set(Outcome(False, f"Command terminated with signal {name}"))


def _refused(launch: Launch) -> int | None:
    """Return with which status ``docker run`` refuses a container at once."""
    docker = launch.task.document.get("container", {}).get("docker", {})
    parameters = {(p["key"], p["value"]) for p in docker.get("parameters", ())}
    impossible = {("nosuchparam", "x"), ("cpuset-cpus", "9999"), ("ulimit", "memlock=-1")}
    if parameters & impossible:
        return 125
    return 127 if launch.command.get("value") == "/no/such" else None


def _trapped(commands: str) -> tuple[float, int | None]:
    """Return how long a trap takes, and with which status it ends the program, if it does."""
    delay = 0.0
    for step in (part.strip() for part in commands.split(";")):
        match step.split():
            case ["sleep", count]:
                delay += float(count)
            case ["exit", status]:
                return delay, int(status)
    return delay, None


def make_cluster(stage: Stage, work_dir: Path, **settings: Any) -> Cluster:
    """Return a cluster without agents, which allocates only when it is told to, or at once as Mesos does."""
    return Cluster(
        [],
        work_dir=work_dir,
        port=0,
        allocation_interval=1e9,
        prompt_allocation=False,
        executor=stage,
        prober=stage,
        clock=stage.clock,
        **settings,
    )
