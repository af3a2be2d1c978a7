"""Checks and health checks of a running task: when to look, and what follows from what is seen.

A *health check* has a verdict: the first good one is told, every bad one too, and after
``consecutive_failures`` bad ones the task is killed. Failures in the grace period before the first good one are
not counted. A *check* only observes: a result that differs from the last one is told. Looking itself is a
:class:`Prober`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from scheduler.embedded.clock import Clock, Timer
from scheduler.embedded.executors import Container, Launch, ProbeError

DEFAULT_DELAY = 15.0
DEFAULT_INTERVAL = 10.0
DEFAULT_TIMEOUT = 20.0
DEFAULT_GRACE = 10.0
DEFAULT_CONSECUTIVE_FAILURES = 3

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A ``CheckInfo`` or ``HealthCheck``; times in seconds."""

    kind: str
    """``COMMAND``, ``HTTP`` or ``TCP``."""
    document: Mapping[str, Any]
    delay: float
    interval: float
    timeout: float
    consecutive_failures: int = DEFAULT_CONSECUTIVE_FAILURES
    grace: float = DEFAULT_GRACE

    @classmethod
    def from_mesos(cls, document: Mapping[str, Any]) -> Check:
        """Read a validated message of either kind."""
        return cls(
            kind=document["type"],
            document=document,
            delay=document.get("delay_seconds", DEFAULT_DELAY),
            interval=document.get("interval_seconds", DEFAULT_INTERVAL),
            timeout=document.get("timeout_seconds", DEFAULT_TIMEOUT),
            consecutive_failures=document.get("consecutive_failures", DEFAULT_CONSECUTIVE_FAILURES),
            grace=document.get("grace_period_seconds", DEFAULT_GRACE),
        )

    @property
    def command(self) -> Mapping[str, Any]:
        """The ``CommandInfo`` of a COMMAND check."""
        body: Mapping[str, Any] = self.document["command"]
        inner: Mapping[str, Any] = body.get("command", body)
        return inner

    def status(self, value: int | None) -> dict[str, Any]:
        """Write a ``CheckStatusInfo``, without a value as long as there is none."""
        name = {"COMMAND": "exit_code", "HTTP": "status_code", "TCP": "succeeded"}[self.kind]
        shown = {} if value is None else {name: bool(value) if self.kind == "TCP" else value}
        return {"type": self.kind, self.kind.lower(): shown}

    def is_healthy(self, value: int) -> bool:
        """Judge what a probe has found."""
        if self.kind == "COMMAND":
            return value == 0
        if self.kind == "TCP":
            return bool(value)
        statuses = self.document["http"].get("statuses")
        return value in statuses if statuses else 200 <= value < 400


class Prober(Protocol):
    """Looks after a task."""

    async def probe(self, launch: Launch, container: Container, check: Check) -> int:
        """Look once.

        Returns
        -------
        int
            Exit status of a command, status of an HTTP answer, 1 or 0 for a TCP connection.

        Raises
        ------
        ProbeError
            If that could not be found out.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a health check says after one look."""

    healthy: bool
    kill: bool = False


class Health:
    """The state of a health check.

    Parameters
    ----------
    check
        What is checked.
    began
        When it began, s.
    """

    def __init__(self, check: Check, began: float) -> None:
        self._check = check
        self._began = began
        self._failures = 0
        self._initialising = True
        self._healthy: bool | None = None

    def judge(self, good: bool, now: float) -> Verdict | None:
        """Take the result of one look; None when there is nothing to be told."""
        if good:
            news = self._healthy is not True
            self._initialising, self._failures, self._healthy = False, 0, True
            return Verdict(True) if news else None
        if self._initialising and now - self._began <= self._check.grace:
            return None
        self._initialising, self._healthy = False, False
        self._failures += 1
        return Verdict(False, kill=self._failures >= self._check.consecutive_failures)


class TaskChecks:
    """The checks of one running task.

    Parameters
    ----------
    launch, container
        The task.
    prober
        Looks.
    clock
        The time.
    spawn
        Starts a background task.
    tell_health, tell_check
        Called when there is news; `tell_check` finds the news in :attr:`status`.
    """

    def __init__(
        self,
        launch: Launch,
        container: Container,
        prober: Prober,
        clock: Clock,
        spawn: Spawn,
        *,
        tell_health: Callable[[Verdict], None],
        tell_check: Callable[[], None],
    ) -> None:
        self._launch = launch
        self._container = container
        self._prober = prober
        self._clock = clock
        self._spawn = spawn
        self._tell_health = tell_health
        self._tell_check = tell_check
        self._timers: dict[Check, Timer] = {}
        self._probes: set[asyncio.Task[int]] = set()
        self._stopped = False
        self._value: int | None = None
        self.healthy: bool | None = None
        """The last verdict that has been told."""
        document = launch.task.document
        self._check = Check.from_mesos(document["check"]) if "check" in document else None
        health = document.get("health_check")
        self._health_check = None if health is None else Check.from_mesos(health)
        self._health: Health | None = None

    @property
    def status(self) -> dict[str, Any] | None:
        """The ``CheckStatusInfo`` as it is now, None without a check."""
        return None if self._check is None else self._check.status(self._value)

    def start(self) -> None:
        """Begin; the delays count from here."""
        if self._check is not None:
            self._schedule(self._check, self._check.delay, self._heard_check)
        if self._health_check is not None:
            self._health = Health(self._health_check, self._clock.monotonic())
            self._schedule(self._health_check, self._health_check.delay, self._heard_health)

    def stop(self) -> None:
        """Look no more; what has been seen of a check is not told again."""
        self._stopped = True
        self._value = None
        for timer in self._timers.values():
            timer.cancel()
        for probe in self._probes:
            probe.cancel()

    def _schedule(self, check: Check, delay: float, heard: Callable[[int | None], None]) -> None:
        if not self._stopped:
            self._timers[check] = self._clock.call_later(
                delay, lambda: self._spawn_probe(check, heard)
            )

    def _spawn_probe(self, check: Check, heard: Callable[[int | None], None]) -> None:
        self._spawn(self._look(check, heard))

    async def _look(self, check: Check, heard: Callable[[int | None], None]) -> None:
        probe = asyncio.ensure_future(self._prober.probe(self._launch, self._container, check))
        self._probes.add(probe)
        timer = None
        if check.timeout > 0:
            timer = self._clock.call_later(check.timeout, lambda: _cancel(probe))
        try:
            await asyncio.wait({probe})
        finally:
            probe.cancel()
            self._probes.discard(probe)
            if timer is not None:
                timer.cancel()
        if self._stopped:
            return
        found = None
        if not probe.cancelled():
            error = probe.exception()
            if error is None:
                found = probe.result()
            elif not isinstance(error, ProbeError):
                raise error
        heard(found)
        self._schedule(check, check.interval, heard)

    def _heard_health(self, found: int | None) -> None:
        if self._health is None or self._health_check is None:
            return
        good = found is not None and self._health_check.is_healthy(found)
        verdict = self._health.judge(good, self._clock.monotonic())
        if verdict is not None:
            self.healthy = verdict.healthy
            self._tell_health(verdict)

    def _heard_check(self, found: int | None) -> None:
        if found is None and self._check is not None and self._check.kind == "TCP":
            found = 0
        if found != self._value:
            self._value = found
            self._tell_check()


def _cancel(probe: asyncio.Task[int]) -> None:
    probe.cancel()
