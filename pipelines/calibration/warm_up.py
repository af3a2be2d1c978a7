"""Compiling the solvers before the first scan comes."""

from __future__ import annotations

import numpy as np

from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Applied, Products
from pipelines.calibration.solver import ScanSolver
from pipelines.common.baselines import correlator_ordering
from pipelines.common.l0 import Dump, DumpPart

_N_CHANS = 8


def warm_up() -> None:
    """Solve a small scan for everything. Blocks: for a worker thread."""
    ordering = correlator_ordering(["a", "b", "c"])
    pairs = Pairs.of(ordering)
    freqs = np.linspace(1e9, 1.01e9, _N_CHANS, dtype=np.float64)
    shape = (_N_CHANS, len(ordering))
    part = DumpPart(
        range(_N_CHANS),
        np.ones(shape, np.complex64),
        np.zeros(shape, np.uint8),
        np.ones(shape, np.uint8),
        np.ones(_N_CHANS, np.float32),
    )
    interval = Interval(pairs, _N_CHANS)
    interval.add(Dump(0, 0.0, (part,)), 0.0)
    solver = ScanSolver(
        Interval(pairs, _N_CHANS),
        freqs,
        Sky(np.ones((2, _N_CHANS)), np.zeros(_N_CHANS, np.complex128)),
        Products(delay=True, bandpass=True, gain=True, polarisation=True),
        Applied(),
    )
    solver.add([interval])
    solver.finish()
