"""Compiling the solvers before the first scan comes."""

from __future__ import annotations

from collections import deque

import numpy as np

from pipelines.calibration.scan import ParallelHands, Scan, ScanDump
from pipelines.calibration.solver import Applied, Products, solve_scan
from pipelines.common.baselines import correlator_ordering


def warm_up() -> None:
    """Solve a small scan for everything. Blocks: for a worker thread."""
    hands = ParallelHands.of(correlator_ordering(["a", "b", "c"]))
    freqs = np.linspace(1e9, 1.01e9, 8, dtype=np.float64)
    shape = (2, len(freqs), hands.n_pairs)
    dump = ScanDump(0.0, np.ones(shape, np.complex64), np.ones(shape, np.float32))
    scan = Scan.of(deque([dump]), hands, freqs, np.ones(len(freqs), np.float64))
    solve_scan(scan, Products(delay=True, bandpass=True, gain=True), Applied(), 0)
