"""Time that work takes, told apart from what else the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable

TRIES = 5


def least_seconds(work: Callable[[], object], enough: float = 0.0) -> float:
    """Return the least CPU time of several runs; of fewer once one took no more than `enough`.

    One run alone may have the garbage of all other tests to collect, and a neighbour in its core.
    """
    least = float("inf")
    for _ in range(TRIES):
        began = time.process_time()
        work()
        least = min(least, time.process_time() - began)
        if least <= enough:
            break
    return least
