"""What the correlator simulator puts into its heaps, calibration finds: signs and conventions of both."""

from __future__ import annotations

from typing import Any

import katpoint
import numpy as np

from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Applied, Products, Solutions
from pipelines.calibration.solver import ScanSolver
from pipelines.common.l0 import Dump, DumpPart
from pipelines.correlator.meerkat import ENU, antenna_description
from pipelines.correlator.model import Model, ModelConfig

EVERYTHING = Products(delay=True, bandpass=True, gain=True, polarisation=True)
NAMES = sorted(ENU)[:8]
N_DUMPS = 4
UNPOLARISED = "cal, radec bpcal, 10:00:00.0, -30:00:00.0, (800 2000 1.3)"
POLARISED = "cal, radec polcal, 10:00:00.0, -30:00:00.0, (800 2000 1.3 0 0 0 0 0 1 0.05 -0.08 0.02)"


def model(target: str, **options: Any) -> Model:
    """An array that looks at a calibrator of 20 Jy, with the receivers' noise."""
    return Model(
        ModelConfig(
            name="bcp",
            antennas=tuple(katpoint.Antenna(antenna_description(name)) for name in NAMES),
            n_chans=64,
            n_chans_per_substream=64,
            bandwidth=107e6,
            centre_frequency=1284e6,
            adc_sample_rate=1712e6,
            int_time=8.0,
            start_time=1.6e9,
            sources=(katpoint.Target(target),),
            seed=3,
            **options,
        )
    )


def solutions(simulator: Model, target: str) -> Solutions:
    """Calibrate some dumps of it; its first antenna is the reference."""
    stream = simulator.stream
    pairs = Pairs.of(stream.bls_ordering)
    intervals = []
    for index in range(N_DUMPS):
        counts = np.zeros((stream.n_chans, stream.n_bls, 2), np.int32)
        simulator.fill(index, katpoint.Target(target), counts)
        vis = (counts[..., 0] + 1j * counts[..., 1]).astype(np.complex64) * np.float32(stream.scale)
        part = DumpPart(
            range(stream.n_chans),
            vis,
            np.zeros(vis.shape, np.uint8),
            np.ones(vis.shape, np.uint8),
            np.ones(stream.n_chans, np.float32),
        )
        interval = Interval(pairs, stream.n_chans)
        interval.add(Dump(index, 0.0, (part,)), simulator.dump_centre(index))
        intervals.append(interval)
    freqs = np.asarray(stream.channel_freqs)
    solver = ScanSolver(
        Interval(pairs, stream.n_chans),
        freqs,
        Sky.of(target, freqs),
        EVERYTHING,
        Applied(),
        preferred=NAMES[:1],
    )
    solver.add(intervals)
    outcome = solver.finish()
    assert outcome is not None
    return outcome[0]


def test_leakages_are_those_of_the_simulator() -> None:
    simulator = model(UNPOLARISED, leakage=0.05, cross_delay=3e-9, cross_phase=40.0)
    found = solutions(simulator, UNPOLARISED).polarisation.leakage
    assert found is not None
    h, v = simulator.gains.at(0.0, np.asarray(simulator.stream.channel_freqs))[0]
    phase = (h / np.abs(h) / (v / np.abs(v)))[:, np.newaxis]
    d_h, d_v = simulator.leakage.at(64).transpose(1, 2, 0)
    reference = d_h[:, :1]
    expected = np.stack(
        [phase * (d_h - reference), phase.conj() * (d_v + reference.conj())], axis=1
    )
    error = found - expected
    # Leakages of five per cent have products of a few tenths of a per cent; noise is as much.
    assert np.sqrt((np.abs(error) ** 2).mean()) < 0.006
    assert np.sqrt((np.abs(expected) ** 2).mean()) > 0.05


def test_the_delay_and_phase_between_polarisations_are_those_of_the_simulator() -> None:
    """The simulator delays v against h; a product is the gain of h over that of v."""
    simulator = model(POLARISED, cross_delay=3e-9, cross_phase=40.0)
    found = solutions(simulator, POLARISED).polarisation
    assert found.delay is not None and found.phase is not None
    assert abs(found.delay + 3e-9) < 0.1e-9
    freqs = np.asarray(simulator.stream.channel_freqs)
    between = found.phase * np.exp(2j * np.pi * found.delay * freqs)
    h, v = simulator.gains.at(16.0, freqs)[0]
    error = np.angle(between * v / h)
    assert np.sqrt((error**2).mean()) < 0.05
