"""Raw data of the Very Large Array: a point source at 36 GHz, weak in a channel, with dumps half missing."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.calibration.delay import fringe
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Products, Solutions
from tests.pipelines.calibration.conftest import Scan

tables = pytest.importorskip("casacore.tables")

ARCHIVE = Path("../shared/data/observations/J1008+0730_evla_ka.ms.tar.gz")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    if not ARCHIVE.exists():
        pytest.skip(f"{ARCHIVE} is not here")
    directory = tmp_path_factory.mktemp("ms")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    (name,) = directory.glob("*.ms")
    with tables.table(str(name), ack=False) as main:
        ant1, ant2, time, data = (
            main.getcol(column) for column in ("ANTENNA1", "ANTENNA2", "TIME", "DATA")
        )
    with tables.table(f"{name}/SPECTRAL_WINDOW", ack=False) as window:
        freqs = window.getcol("CHAN_FREQ")[0]
    antennas, index = np.unique(np.concatenate([ant1, ant2]), return_inverse=True)
    pairs = np.array(sorted(set(zip(*index.reshape(2, -1), strict=True))))
    row = {tuple(pair): k for k, pair in enumerate(pairs)}
    times = np.unique(time)
    vis = np.zeros((2, len(times), len(freqs), len(pairs)), np.complex64)
    for k, pair in enumerate(zip(*index.reshape(2, -1), strict=True)):
        # RR and LL stand for h and v.
        vis[:, np.searchsorted(times, time[k]), :, row[pair]] = data[k][:, [0, 3]].T
    weights = (vis != 0).astype(np.float32)
    names = tuple(f"ea{a:02d}" for a in antennas)
    made = Pairs(names, pairs[:, 0].copy(), pairs[:, 1].copy(), np.zeros((2, len(pairs)), np.int64))
    sky = Sky(np.ones((2, len(freqs))), np.zeros(len(freqs), np.complex128))
    return Scan(times, vis, weights, made, freqs, sky)


def coherence(vis: np.ndarray, weights: np.ndarray) -> float:
    """Vector over scalar average of visibilities averaged over frequency."""
    total = weights.sum(axis=2)
    mean = (vis * weights).sum(axis=2) / np.maximum(total, 1e-30)
    return float(np.abs((mean * total).sum()) / (np.abs(mean) * total).sum())


def calibrated(scan: Scan, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, Solutions]:
    """Visibilities with the gains of those with weight applied, their weights, and the gains.

    Delays and bandpass are those of the whole scan.
    """
    everything = Products(delay=True, bandpass=True, gain=True)
    outcome = scan.solve(everything, refant=None)
    assert outcome is not None
    found, applied = outcome
    assert applied.delays is not None and applied.bandpass is not None
    outcome = scan.with_weights(weights).solve(Products(gain=True), applied, found.refant)
    assert outcome is not None
    solutions, _ = outcome
    gains = np.stack(solutions.gains).transpose(1, 0, 2)[:, :, np.newaxis]
    gains = gains * applied.bandpass.transpose(1, 0, 2)[:, np.newaxis]
    gains = np.nan_to_num(gains * fringe(applied.delays, scan.freqs)[:, np.newaxis])
    pairs = gains[..., scan.pairs.ant1] * gains[..., scan.pairs.ant2].conj()
    power = np.abs(pairs) ** 2
    vis = scan.vis * pairs.conj() / np.maximum(power, 1e-30)
    return vis, scan.weights * power, solutions


def test_a_raw_point_source_becomes_coherent(scan: Scan) -> None:
    vis, weights, solutions = calibrated(scan, scan.weights)
    gains = np.stack(solutions.gains)
    # Two of the eighteen antennas give no signal.
    assert np.isfinite(gains).any(axis=0).mean() == pytest.approx(16 / 18)
    assert coherence(scan.vis, scan.weights) < 0.1
    assert coherence(vis, weights) > 0.95
    assert solutions.phase_rms < 0.3


def test_gains_of_one_half_of_the_band_calibrate_the_other(scan: Scan) -> None:
    """Gains that fitted the noise would not: the check is on channels they have not seen."""
    half = scan.weights.copy()
    half[:, :, 1::2] = 0
    vis, weights, _ = calibrated(scan, half)
    weights[:, :, ::2] = 0
    assert coherence(vis, weights) > 0.9
