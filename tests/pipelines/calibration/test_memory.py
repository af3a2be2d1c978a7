"""What calibration allocates is what the controller's formula says, however long a scan is."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from pipelines import catalogue
from pipelines.calibration.interval import interval_bytes
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.settings import CalMemory, CalSettings
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Applied, Products
from pipelines.calibration.solver import ScanSolver
from pipelines.calibration.warm_up import warm_up
from pipelines.common.baselines import correlator_ordering
from pipelines.common.l0 import Dump, DumpPart

EVERYTHING = Products(delay=True, bandpass=True, gain=True, polarisation=True)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """What numba allocates as it compiles is no part of it."""
    warm_up()


def noise(n_chans: int, n_bls: int) -> Dump:
    """A dump with signal in it, but little in each channel: blocks of channels are solved, too."""
    rng = np.random.default_rng(0)
    vis = 1 + 2 * rng.standard_normal((n_chans, n_bls, 2), np.float32).view(np.complex64)[..., 0]
    part = DumpPart(
        range(n_chans),
        vis,
        np.zeros(vis.shape, np.uint8),
        np.ones(vis.shape, np.uint8),
        np.ones(n_chans, np.float32),
    )
    return Dump(0, 0.0, (part,))


def peak(n_antennas: int, n_chans: int, n_dumps: int, batch: int) -> tuple[int, int]:
    """Bytes of the memory of a calibration, and of all at most while a scan is solved."""
    ordering = correlator_ordering([f"m{i:03d}" for i in range(n_antennas)])
    pairs = Pairs.of(ordering)
    dump = noise(n_chans, len(ordering))
    freqs = np.linspace(1e9, 1.8e9, n_chans, dtype=np.float64)
    gc.collect()
    tracemalloc.start()
    try:
        memory = CalMemory(pairs, n_chans, batch)
        held, _ = tracemalloc.get_traced_memory()
        sky = Sky(np.ones((2, n_chans)), np.zeros(n_chans, np.complex128))
        solver = ScanSolver(memory.scan, freqs, sky, EVERYTHING, Applied())
        for _ in range(n_dumps // batch):
            intervals = [memory.free.pop() for _ in range(batch)]
            for interval in intervals:
                interval.clear()
                interval.add(dump, 0.0)
            solver.add(intervals)
            memory.free += intervals
        outcome = solver.finish()
        assert outcome is not None and not outcome[0].empty
        return held, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("n_antennas", "n_chans", "fixed"), [(4, 8192, 0.5), (16, 1024, 8.0), (24, 512, 8.0)]
)
def test_the_formula_is_what_is_allocated(n_antennas: int, n_chans: int, fixed: float) -> None:
    """The arrays that are held exactly; with what solving takes, never more, and not much less.

    Of what does not depend on the array, delay spectra are some MiB where there are many pairs; the report,
    which has the rest, is not drawn here.
    """
    batch = 2
    held, most = peak(n_antennas, n_chans, batch, batch)
    n_pairs = n_antennas * (n_antennas - 1) // 2
    interval = catalogue.calibration_interval_bytes(n_chans, n_antennas, 4 * n_pairs)
    assert held == pytest.approx((2 * batch + 1) * interval, rel=0.01, abs=64e3)
    of_the_array = catalogue.calibration_bytes(n_chans, n_antennas, batch)
    of_the_array -= catalogue.calibration_bytes(0, 0)
    assert 0.9 * of_the_array <= most <= of_the_array + fixed * 2**20


def test_it_does_not_depend_on_how_long_a_scan_is() -> None:
    _, short = peak(8, 256, 4, 2)
    _, long = peak(8, 256, 80, 2)
    assert long - short < 80 * 2 * 8 * 64  # gains, their quality and times


def test_an_interval_is_what_it_says() -> None:
    pairs = Pairs.of(correlator_ordering(["a", "b", "c"]))
    assert interval_bytes(pairs, 100) == 100 * (3 * 4 * 12 + 3 * 4)


def test_the_batch_follows_from_the_buffer_of_the_document() -> None:
    assert CalSettings("cal", 1500.0).batch(8.0) == catalogue.CALIBRATION_BATCH
    assert CalSettings("cal", 60.0).batch(8.0) == 3
    assert CalSettings("cal", 60.0, g_solint=16.0).batch(8.0) == 1
    assert CalSettings("cal", 1.0).batch(8.0) == 1
