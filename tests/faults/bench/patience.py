"""Deadlines that hold on a machine that others use too.

What a process cannot do because it waits for a processor is no fault of what is tested. The kernel counts that
time for each thread (``/proc/PID/task/TID/schedstat``: run, *waited*, times run); a deadline here is later by
what the main threads of the bench, the controllers and the database have waited since it was set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path


class Waits:
    """How long some processes have waited for a processor, all together."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        """By process; of those that have ended, too."""

    def total(self, pids: Iterable[int]) -> float:
        """Return the seconds that these processes, and those that were asked about before, have waited."""
        for pid in (os.getpid(), *pids):
            try:
                words = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
            except OSError:  # it has ended
                continue
            self._last[pid] = max(int(words[1]) / 1e9, self._last.get(pid, 0.0))
        return sum(self._last.values())


class Patience:
    """So many seconds, from now on, of a machine of one's own.

    Parameters
    ----------
    waited
        Returns the seconds that were waited for a processor so far.
    """

    def __init__(self, seconds: float, waited: Callable[[], float]) -> None:
        self._waited = waited
        self._until = time.monotonic() + seconds - waited()

    @property
    def over(self) -> bool:
        """Whether they have passed."""
        return time.monotonic() > self._until + self._waited()
