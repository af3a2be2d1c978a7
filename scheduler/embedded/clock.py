"""Time, so that the cluster can run on another one.

Everything in the embedded cluster that waits asks a :class:`Clock`. :class:`LoopClock` is the real one;
:class:`VirtualClock` stands still until it is told to advance, and then runs what is due in order.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that will be called."""

    def cancel(self) -> None:
        """Call it no more."""
        ...


class Clock(Protocol):
    """Where the time comes from."""

    def time(self) -> float:
        """Return Unix time, s, for people and protocols; it can jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment, for deadlines; it never jumps."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` in `delay` seconds."""
        ...


class LoopClock:
    """The time of the running event loop.

    Parameters
    ----------
    failed
        Told of an exception that a callback has raised; a loop would only log it.
    epoch
        Unix time at the loop's time 0, for a loop in virtual time; None: the system's clock counts.
    """

    def __init__(self, failed: Callable[[Exception], None], epoch: float | None = None) -> None:
        self._epoch = epoch
        self._loop = asyncio.get_running_loop()
        self._failed = failed

    def time(self) -> float:
        """Return Unix time, s."""
        return time.time() if self._epoch is None else self._epoch + self._loop.time()

    def monotonic(self) -> float:
        """Return the loop's time, s."""
        return self._loop.time()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` from the loop."""
        return self._loop.call_later(delay, self._call, callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as exc:
            self._failed(exc)


class _VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call, when the time comes."""
        self.callback = None


class VirtualClock:
    """A clock that only moves when told to.

    Parameters
    ----------
    start
        Unix time at the beginning, s.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._now = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _VirtualTimer]] = []

    def time(self) -> float:
        """Return virtual Unix time, s."""
        return self._start + self._now

    def monotonic(self) -> float:
        """Return seconds since the beginning."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` when the clock has been advanced by `delay` seconds."""
        timer = _VirtualTimer(callback)
        heapq.heappush(self._timers, (self._now + max(0.0, delay), next(self._order), timer))
        return timer

    def next_timer(self) -> float | None:
        """Return when something will happen next (as :meth:`monotonic` counts), None for never."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Let time pass; timers run in the order of their time, then of their creation."""
        until = self._now + seconds
        while self._timers and self._timers[0][0] <= until:
            self._now, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()
        self._now = until
