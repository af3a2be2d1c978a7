"""An event loop on which an hour takes as long as what happens in it.

Whenever nothing is ready the clock jumps to the next timer. There is no waiting for anything outside: no
sockets, processes or threads; code that needs them has to be given something in their place.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from scheduler.errors import ClusterError

_T = TypeVar("_T")


class StandstillError(ClusterError):
    """Nothing is ready and no timer runs: whoever waits would wait for ever."""


class _Selector(selectors.SelectSelector):
    """Lets time pass instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now; else let `timeout` seconds pass, at once."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise StandstillError("everything waits, and no timer runs")
        if not ready and timeout is not None:
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own, which begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-6  # so that a jump that is rounded down still reaches its timer

    def time(self) -> float:
        """Return seconds since the beginning."""
        return self._virtual.now


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run something in virtual time, to its end.

    Raises
    ------
    StandstillError
        If it waits for something that cannot happen.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
