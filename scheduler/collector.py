"""Python's garbage collector in a process that serves a large cluster.

A controller, a master and agents make few cycles and keep many objects. Looking at all of them again and
again is a quarter of the time that an embedded cluster takes to launch ten thousand tasks on five thousand
agents (``benchmarks/cluster.py``), and each look at all that numba has loaded holds an event loop up for a
tenth of a second.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

THRESHOLDS: Final = (1_000, 5, 40_000)
"""Of `gc.set_threshold`: new objects until the young are looked at, such looks until those that survived one
are, such looks until all are. A look takes a microsecond or two for each object, and nothing else goes on
meanwhile."""
PERIOD: Final = 0.2
"""Seconds between two looks at the young that do not wait for their number."""
ROUND: Final = 5
"""Of these looks, every so many is also at those that survived one."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let the collector not look at all, and then at everything once, for the last time: :func:`calm`.

    While a program is loaded, it looks at what stays again and again: a third of a second of the controller's.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        calm()


def calm() -> None:
    """Let the collector look less often, and never again at what is there now.

    It is for programs, not for libraries: it concerns the whole process.
    """
    gc.collect()
    gc.set_threshold(*THRESHOLDS)
    settle()


def settle() -> None:
    """Let the collector never again look at what is there now; takes no time."""
    gc.freeze()


async def keep_looking() -> None:
    """Let the collector look at the young every so often, before they are many, until cancelled.

    It counts those that came less those that went. Where new ones take the place of old ones, as readings of
    sensors do, that hardly grows, and the young are tens of thousands when it looks: forty milliseconds.
    """
    # Not by their number: to ask for it (gc.get_objects) is to hold what other threads are about to make, and a
    # tuple that somebody else holds cannot be made.
    for number in itertools.count(1):
        await asyncio.sleep(PERIOD)
        gc.collect(0 if number % ROUND else 1)
