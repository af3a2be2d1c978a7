"""Raw data of the Very Large Array: a point source at 36 GHz, weak in a channel, with dumps half missing."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.calibration.delay import fringe
from pipelines.calibration.scan import ParallelHands, Scan, average
from pipelines.calibration.solver import Applied, Products, choose_refant, phase_rms, solve_scan

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
    hands = ParallelHands(
        tuple(f"ea{a:02d}" for a in antennas), pairs[:, 0], pairs[:, 1], np.zeros((2, len(pairs)))
    )
    return Scan(times, vis, weights, hands, freqs)


def coherence(scan: Scan, channels: slice) -> float:
    """Vector over scalar average of visibilities averaged over the given channels."""
    mean, weight = average(scan.vis[:, :, channels], scan.weights[:, :, channels], axis=2)
    return float(np.abs((mean * weight).sum()) / (np.abs(mean) * weight).sum())


def calibrated(scan: Scan, part: Scan) -> tuple[Scan, float]:
    """Apply to `scan` what `part` gives; delays and bandpass are those of the whole scan."""
    refant = choose_refant(scan)
    assert refant is not None
    everything = Products(delay=True, bandpass=True, gain=True)
    _, applied = solve_scan(scan, everything, Applied(), refant)
    assert applied.delays is not None and applied.bandpass is not None
    corrected = scan.corrected(fringe(applied.delays, scan.freqs))
    corrected = corrected.corrected(applied.bandpass.transpose(1, 0, 2)[:, np.newaxis])
    solutions, _ = solve_scan(
        Scan(scan.times, scan.vis, part.weights, scan.hands, scan.freqs),
        Products(gain=True),
        applied,
        refant,
    )
    gains = np.stack(solutions.gains)
    result = corrected.corrected(gains.transpose(1, 0, 2)[:, :, np.newaxis])
    return result, float(np.isfinite(gains).any(axis=0).mean())


def test_a_raw_point_source_becomes_coherent(scan: Scan) -> None:
    result, solved = calibrated(scan, scan)
    everything = slice(None)
    # Two of the eighteen antennas give no signal.
    assert solved == pytest.approx(16 / 18)
    assert coherence(scan, everything) < 0.1
    assert coherence(result, everything) > 0.95
    assert phase_rms(scan) > 1.5
    assert phase_rms(result) < 0.3


def test_gains_of_one_half_of_the_band_calibrate_the_other(scan: Scan) -> None:
    """Gains that fitted the noise would not: the check is on channels they have not seen."""
    weights = scan.weights.copy()
    weights[:, :, 1::2] = 0
    half = Scan(scan.times, scan.vis, weights, scan.hands, scan.freqs)
    result, _ = calibrated(scan, half)
    assert coherence(result, slice(1, None, 2)) > 0.9
