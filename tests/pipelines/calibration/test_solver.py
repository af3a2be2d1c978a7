from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.calibration.delay import fringe, solve_delays
from pipelines.calibration.scan import Scan, average
from pipelines.calibration.solver import (
    Applied,
    Products,
    Solutions,
    choose_refant,
    phase_rms,
    solve_scan,
)

ALL = Products(delay=True, bandpass=True, gain=True)
Simulate = Callable[..., Any]


def total_gains(scan: Scan, applied: Applied, solutions: Solutions) -> np.ndarray:
    """(pol, T, chan, ant) of one solution of G per dump."""
    assert applied.delays is not None and applied.bandpass is not None
    gains = np.stack(solutions.gains).transpose(1, 0, 2)[:, :, np.newaxis]
    return (
        gains
        * applied.bandpass.transpose(1, 0, 2)[:, np.newaxis]
        * fringe(applied.delays, scan.freqs)
    )


@pytest.mark.parametrize("seed", range(8))
def test_delays_are_recovered_within_the_noise(simulate: Simulate, seed: int) -> None:
    """Within five standard errors: sigma_tau = sigma_phase / (2 pi rms(nu) sqrt(samples)), for two antennas."""
    observed = simulate(seed)
    scan = observed.scan
    delays = solve_delays(scan, 0)
    samples = len(scan.times) * len(scan.freqs) * (scan.n_antennas - 1)
    phase = observed.noise / np.sqrt(2) / 0.7**2
    bound = 5 * np.sqrt(2) * phase / (2 * np.pi * scan.freqs.std() * np.sqrt(samples))
    assert bound < 2e-9
    np.testing.assert_allclose(delays, observed.delays, rtol=0, atol=bound)


@pytest.mark.parametrize("seed", range(8))
def test_gains_in_all_are_recovered_within_the_noise(simulate: Simulate, seed: int) -> None:
    """Per channel, the bandpass's error rules: sigma / sqrt(dumps * (antennas - 1)), for gains of 0.7 or more.

    The rms over all is within 1.5 of that (two antennas' errors through the reference), no value beyond 6.
    """
    observed = simulate(seed)
    scan = observed.scan
    solutions, applied = solve_scan(scan, ALL, Applied(), 0)
    ratio = total_gains(scan, applied, solutions) / observed.gains
    ratio = ratio * np.abs(ratio[..., :1]) / ratio[..., :1]
    sigma = observed.noise / 0.7**2 / np.sqrt(len(scan.times) * (scan.n_antennas - 1))
    assert np.sqrt((np.abs(ratio - 1) ** 2).mean()) < 1.5 * sigma
    assert np.abs(ratio - 1).max() < 6 * sigma
    amplitude = np.abs(applied.bandpass).mean(axis=0)
    np.testing.assert_allclose(amplitude, 1, atol=1e-5)


def test_without_noise_everything_is_recovered(simulate: Simulate) -> None:
    observed = simulate(3, noise=0.0)
    solutions, applied = solve_scan(observed.scan, ALL, Applied(), 0)
    corrected = observed.scan.corrected(total_gains(observed.scan, applied, solutions))
    np.testing.assert_allclose(corrected.vis, 1, atol=2e-3)
    assert solutions.phase_rms < 1e-3
    np.testing.assert_allclose(solutions.delays, observed.delays, atol=1e-13)


def test_a_gain_calibrator_uses_the_delays_and_bandpass_in_force(simulate: Simulate) -> None:
    first = simulate(1)
    _, applied = solve_scan(first.scan, ALL, Applied(), 0)
    later = simulate(1, n_dumps=2)
    solutions, after = solve_scan(later.scan, Products(gain=True), applied, 0)
    assert solutions.delays is None and solutions.bandpass is None
    assert after is applied
    assert len(solutions.gains) == 2
    assert solutions.phase_rms < 0.1


def test_gains_of_longer_intervals_are_dated_at_their_middle(simulate: Simulate) -> None:
    scan = simulate(1, n_dumps=5).scan
    solutions, _ = solve_scan(scan, ALL, Applied(), 0, dumps_per_gain=2)
    assert solutions.gain_times == (1.6e9 + 1, 1.6e9 + 5, 1.6e9 + 8)


def test_flagged_samples_have_no_influence(simulate: Simulate) -> None:
    scan = simulate(2).scan
    weights = scan.weights.copy()
    rng = np.random.default_rng(0)
    bad = rng.uniform(size=weights.shape) < 0.2
    bad[:, :, 10] = True
    weights[bad] = 0
    clean = Scan(scan.times, np.where(bad, 0, scan.vis), weights, scan.hands, scan.freqs)
    dirty = Scan(scan.times, np.where(bad, 1e6, scan.vis), weights, scan.hands, scan.freqs)
    one, _ = solve_scan(clean, ALL, Applied(), 0)
    other, _ = solve_scan(dirty, ALL, Applied(), 0)
    np.testing.assert_array_equal(one.delays, other.delays)
    np.testing.assert_array_equal(one.bandpass, other.bandpass)
    assert np.isnan(one.bandpass[10]).all()
    assert np.isfinite(np.delete(one.bandpass, 10, axis=0)).all()


def test_a_dead_antenna_has_no_solutions_and_is_not_the_reference(simulate: Simulate) -> None:
    scan = simulate(4).scan
    weights = scan.weights.copy()
    weights[..., (scan.hands.ant1 == 0) | (scan.hands.ant2 == 0)] = 0
    scan = Scan(scan.times, scan.vis, weights, scan.hands, scan.freqs)
    refant = choose_refant(scan, ["m000", "nonsense", "m005"])
    assert refant == 5
    solutions, _ = solve_scan(scan, ALL, Applied(), refant)
    for array in (solutions.delays, solutions.bandpass, *solutions.gains):
        assert np.isnan(array[..., 0]).all()
        assert np.isfinite(array[..., 1:]).all()
    for gains in solutions.gains:
        np.testing.assert_allclose(np.angle(gains[:, 5]), 0, atol=1e-6)


def test_two_antennas_give_nothing(simulate: Simulate) -> None:
    scan = simulate(0, n_antennas=2).scan
    assert choose_refant(scan) is None
    solutions, _ = solve_scan(scan, ALL, Applied(), 0)
    assert solutions.empty


def test_weak_channels_are_solved_together(simulate: Simulate) -> None:
    """With a signal to noise below 1 per channel the bandpass has fewer degrees of freedom, not more noise."""
    scan = simulate(6, noise=4.0, n_antennas=12, n_dumps=10, drift=0.05).scan
    solutions, applied = solve_scan(scan, ALL, Applied(), 0)
    calibrated = scan.corrected(total_gains(scan, applied, solutions))
    assert np.isfinite(solutions.bandpass).mean() > 0.95
    mean, _ = average(calibrated.vis, calibrated.weights, (1, 2, 3))
    np.testing.assert_allclose(mean, 1, atol=0.1)
    assert phase_rms(calibrated) < phase_rms(scan)
