"""Compile before the first dump comes."""

from __future__ import annotations

import numpy as np

from pipelines.common.baselines import correlator_ordering
from pipelines.common.l0 import DumpPart
from pipelines.display.history import Axes, History


def warm_up() -> None:
    """Compile the kernels, or read them from the disk; blocks."""
    ordering = correlator_ordering(["a"])
    n_bls = len(ordering)
    part = DumpPart(
        range(2),
        np.zeros((2, n_bls), np.complex64),
        np.zeros((2, n_bls), np.uint8),
        np.ones((2, n_bls), np.uint8),
        np.ones(2, np.float32),
    )
    History(Axes(ordering, np.array([1e9, 2e9])), depth=2).take(0.0, [part])
