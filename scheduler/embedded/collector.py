"""Python's garbage collector in a process that serves a large cluster.

Master and agents make few cycles and keep many objects; looking at all of them again and again is a quarter of
the time that launching ten thousand tasks on five thousand agents takes (``benchmarks/cluster.py``).
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 50, 100)
"""Of `gc.set_threshold`."""


def calm() -> None:
    """Let the collector look less often, and never again at what is there now.

    It is for programs, not for libraries: it concerns the whole process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
