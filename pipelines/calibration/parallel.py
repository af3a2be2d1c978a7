"""Work on ranges of channels in several threads; numba's kernels release the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from pipelines.catalogue import CALIBRATION_THREADS


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CALIBRATION_THREADS, thread_name_prefix="calibration")


def in_ranges(n: int, multiple: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` for ranges that cover ``range(n)``, one a thread.

    Parameters
    ----------
    n
        Items, channels as a rule.
    multiple
        Ranges begin at multiples of this, so that results do not depend on the number of threads.
    work
        Must write to places of its own range only.
    """
    blocks = -(-n // multiple)
    share = -(-blocks // CALIBRATION_THREADS) * multiple
    ranges = [(start, min(start + share, n)) for start in range(0, n, share)]
    if len(ranges) == 1:
        work(*ranges[0])
        return
    for done in [_pool().submit(work, *bounds) for bounds in ranges]:
        done.result()
