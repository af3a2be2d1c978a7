"""Tasks that follow a script in the cluster's own time: nothing runs, thousands cost little.

A task's script comes from a function of its launch, or from its label ``sdp.simulation``: a JSON object with
the fields of :class:`Script`, e.g. ``{"start": 2.5, "run": 60, "exit_status": 3}``.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from scheduler.embedded.clock import Clock, LoopClock, Timer
from scheduler.embedded.executors import Container, ContainerLaunchError, Launch, Outcome, Running
from scheduler.embedded.executors.outcomes import command_outcome, memory_outcome

LABEL: Final = "sdp.simulation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a simulated task does; times in seconds, infinity is never."""

    launch: float = 0.0
    """Until TASK_STARTING: what fetching and pulling take."""
    launch_error: str | None = None
    """Text of the failure with which the launch ends instead."""
    start: float = 0.0
    """From TASK_STARTING to TASK_RUNNING."""
    run: float = math.inf
    """From TASK_RUNNING to its end, should nobody end it."""
    exit_status: int = 0
    """Its exit status then; negative: the signal that ends it."""
    out_of_memory: bool = False
    """Whether it ends then by exceeding its memory."""
    executor_lost: bool = False
    """Whether it ends then because its executor is killed."""
    stop: float = 0.0
    """From SIGTERM to its end; longer than the grace period: SIGKILL comes first."""
    stop_status: int = -signal.SIGTERM
    """Its exit status after SIGTERM."""
    unhealthy: tuple[tuple[float, float], ...] = ()
    """When its health checks fail, of kind COMMAND: from and to, since TASK_RUNNING."""
    unkillable: bool = False
    """Whether SIGKILL does nothing either, as with a process that hangs in the kernel."""

    @classmethod
    def from_label(cls, text: str) -> Self:
        """Read the label of a task.

        Raises
        ------
        ValueError
            If it is no JSON object of known fields with values of their types.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        known = {name: type(getattr(cls(), name)) for name in cls.__dataclass_fields__}
        if isinstance(periods := fields.get("unhealthy"), list):
            fields["unhealthy"] = tuple(tuple(p) if isinstance(p, list) else p for p in periods)
        for name, value in fields.items():
            if name not in known:
                raise ValueError(f"there is no field {name!r}; there are {', '.join(known)}")
            if not _suits(value, known[name]):
                raise ValueError(f"{name} cannot be {value!r}")
        return cls(**fields)

    def outcome(self, launch: Launch) -> Outcome:
        """Return how the task ends by itself."""
        if self.executor_lost:
            return Outcome.executor_lost("Executor terminated")
        if self.out_of_memory:
            return memory_outcome(launch.memory, None)
        return command_outcome(self.exit_status)


def script_of_label(launch: Launch) -> Script:
    """Return what a task's label says, or the default: it runs until it is killed.

    Raises
    ------
    ContainerLaunchError
        If the label cannot be read.
    """
    text = next((x.get("value", "") for x in launch.task.labels if x["key"] == LABEL), None)
    if text is None:
        return _DEFAULT
    try:
        return Script.from_label(text)
    except (ValueError, RecursionError) as exc:
        raise ContainerLaunchError(f"the label {LABEL} is no script: {exc}") from exc


class SimulatedExecutor:
    """Pretends to run tasks.

    Parameters
    ----------
    clock
        The cluster's; None: that of the running event loop.
    script
        What each task does.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        script: Callable[[Launch], Script] = script_of_label,
    ) -> None:
        self._clock = clock or LoopClock(_report)
        self._script = script
        self.containers: dict[str, SimulatedContainer] = {}
        """What runs, by container id."""

    async def launch(self, launch: Launch) -> SimulatedContainer:
        """Pretend to start a task; see :class:`~scheduler.embedded.executors.Executor`."""
        script = self._script(launch)
        if script.launch > 0:
            await _pause(self._clock, script.launch)
        if script.launch_error is not None:
            raise ContainerLaunchError(script.launch_error)
        container = SimulatedContainer(self._clock, launch, script, self.containers)
        self.containers[launch.container_id] = container
        return container

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """There is nothing that could have been left."""
        return {}

    async def close(self) -> None:
        """There is nothing to let go of."""


class SimulatedContainer:
    """A task that is pretended to run; tests end it with :meth:`end`.

    Parameters
    ----------
    clock
        The cluster's.
    launch
        The task.
    script
        What it does.
    running
        Where it is listed until it ends.
    """

    pid = None

    def __init__(
        self,
        clock: Clock,
        launch: Launch,
        script: Script,
        running: dict[str, SimulatedContainer],
    ) -> None:
        self.launch = launch
        self._clock = clock
        self._script = script
        self._running = running
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._timers: list[Timer] = []
        self._since = 0.0
        if 0 < script.start < math.inf:
            self._later(script.start, self._begin)
        elif not script.start:
            self._begin()

    async def started(self) -> Running | None:
        """Return when it runs; None when it was ended before."""
        return Running() if await self._begun else None

    def kill(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after the grace period, as far as the script heeds them."""
        script = self._script
        if script.stop <= grace:
            self._later(script.stop, lambda: self.end(command_outcome(script.stop_status)))
        elif not script.unkillable:
            self._later(grace, lambda: self.end(command_outcome(-signal.SIGKILL)))

    def end(self, outcome: Outcome) -> None:
        """End it, unless it has ended."""
        if self._outcome.done():
            return
        for timer in self._timers:
            timer.cancel()
        self._outcome.set_result(outcome)
        if not self._begun.done():
            self._begun.set_result(False)
        self._running.pop(self.launch.container_id, None)

    def discard(self) -> None:
        """Let it be no more, without anybody hearing of it."""
        for timer in self._timers:
            timer.cancel()
        self._running.pop(self.launch.container_id, None)

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        """Return the exit status of a check: 1 while the script says that it is unhealthy."""
        age = self._clock.monotonic() - self._since
        return int(any(begin <= age < end for begin, end in self._script.unhealthy))

    async def wait(self) -> Outcome:
        """Return how it has ended."""
        return await self._outcome

    def _begin(self) -> None:
        self._since = self._clock.monotonic()
        self._begun.set_result(True)
        if self._script.run < math.inf:
            self._later(self._script.run, lambda: self.end(self._script.outcome(self.launch)))

    def _later(self, delay: float, callback: Callable[[], None]) -> None:
        self._timers.append(self._clock.call_later(delay, callback))


def _report(error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "a script", "exception": error})


async def _pause(clock: Clock, seconds: float) -> None:
    done = asyncio.Event()
    if seconds < math.inf:
        clock.call_later(seconds, done.set)
    await done.wait()


def _suits(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    if kind is type(None):
        return isinstance(value, str)
    if kind is tuple:
        return isinstance(value, tuple) and all(map(_is_period, value))
    if kind is bool:
        return isinstance(value, bool)
    return isinstance(value, int) and not isinstance(value, bool) and -65 < value < 256


def _is_period(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_suits(x, float) for x in value)


_DEFAULT: Final = Script()
