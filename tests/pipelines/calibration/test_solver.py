from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.calibration.delay import baseline_peaks, fringe
from pipelines.calibration.refant import choose_refant
from pipelines.calibration.solutions import Applied, Channels, Products, Solutions
from tests.pipelines.calibration.conftest import Scan, observe

ALL = Products(delay=True, bandpass=True, gain=True)
Simulate = Callable[..., Any]


def total_gains(scan: Scan, applied: Applied, solutions: Solutions) -> np.ndarray:
    """(pol, T, chan, ant) of one solution of G per dump."""
    assert applied.delays is not None and applied.bandpass is not None
    gains = np.stack(solutions.gains).transpose(1, 0, 2)[:, :, np.newaxis]
    return (
        gains
        * applied.bandpass.transpose(1, 0, 2)[:, np.newaxis]
        * fringe(applied.delays, scan.freqs)[:, np.newaxis]
    )


def solved(scan: Scan, wanted: Products = ALL, **options: Any) -> tuple[Solutions, Applied]:
    outcome = scan.solve(wanted, **options)
    assert outcome is not None
    return outcome


def corrected(scan: Scan, gains: np.ndarray) -> np.ndarray:
    """Parallel hands, (pol, T, chan, P)."""
    return scan.vis[:2] / (gains[..., scan.pairs.ant1] * gains[..., scan.pairs.ant2].conj())


@given(seed=st.integers(0, 2**32), batch=st.integers(2, 8))
@settings(deadline=None, max_examples=10)
def test_delays_are_recovered_within_the_noise(seed: int, batch: int) -> None:
    """Errors are those that no method could be below (Cramér and Rao): rms below 3, none above 6 of them.

    That of the reference antenna is in all of them, so that the rms of one scan scatters.

    The phase of antenna i in a sample has the inverse variance 2 |g_i|^2 sum_j |g_j|^2 / sigma^2.
    """
    observed = observe(seed)
    scan = observed.scan
    solutions, _ = solved(scan, Products(delay=True), batch=batch)
    assert solutions.delays is not None
    power = np.abs(observed.gains[:, 0]) ** 2
    angular = 2 * np.pi * (scan.freqs - scan.freqs.mean())[:, np.newaxis]
    others = power.sum(axis=-1, keepdims=True) - power
    information = (2 * power * others * angular**2).sum(axis=1) * len(scan.times)
    variance = observed.noise**2 / information
    sigma = np.sqrt(variance[:, 1:] + variance[:, :1])
    assert sigma.max() < 1e-9
    error = (solutions.delays - observed.delays)[:, 1:] / sigma
    assert np.sqrt((error**2).mean()) < 3
    assert np.abs(error).max() < 6


@given(seed=st.integers(0, 2**32), batch=st.integers(2, 8))
@settings(deadline=None, max_examples=15)
def test_gains_in_all_are_recovered_within_the_noise(seed: int, batch: int) -> None:
    """Per channel, the bandpass's error rules: sigma / sqrt(dumps * (antennas - 1)), for gains of 0.7 or more.

    The rms over all is within 1.5 of that (two antennas' errors through the reference), no value beyond 7. In
    however many batches the scan comes.
    """
    observed = observe(seed)
    scan = observed.scan
    solutions, applied = solved(scan, batch=batch)
    ratio = total_gains(scan, applied, solutions) / observed.gains
    ratio = ratio * np.abs(ratio[..., :1]) / ratio[..., :1]
    sigma = observed.noise / 0.7**2 / np.sqrt(len(scan.times) * (scan.pairs.n_antennas - 1))
    assert np.sqrt((np.abs(ratio - 1) ** 2).mean()) < 1.5 * sigma
    assert np.abs(ratio - 1).max() < 7 * sigma
    assert applied.bandpass is not None
    np.testing.assert_allclose(np.abs(applied.bandpass).mean(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("batch", [2, 8])
def test_without_noise_everything_is_recovered(simulate: Simulate, batch: int) -> None:
    observed = simulate(3, noise=0.0)
    solutions, applied = solved(observed.scan, batch=batch)
    gains = total_gains(observed.scan, applied, solutions)
    np.testing.assert_allclose(corrected(observed.scan, gains), 1, atol=2e-3)
    assert solutions.phase_rms < 1e-3
    # A thousandth of a degree over the band: how its amplitude weighs the slope of an uneven bandpass.
    np.testing.assert_allclose(solutions.delays, observed.delays, rtol=0, atol=2e-12)


def test_channels_that_come_only_later_fit_in(simulate: Simulate) -> None:
    """The first bandpass has the edges of the band only, the last all of it: its level is another."""
    scan = simulate(3, noise=0.0).scan
    weights = scan.weights.copy()
    weights[:, :2, 16:48] = 0
    solutions, applied = solved(scan.with_weights(weights), batch=2)
    vis = corrected(scan, total_gains(scan, applied, solutions))
    np.testing.assert_allclose(vis, 1, atol=2e-3)


def test_a_scan_of_any_length_takes_no_more_memory_and_is_known_better(simulate: Simulate) -> None:
    """The sums are all that is kept: ten times the dumps, a third of the error."""
    errors = []
    for n_dumps in (4, 40):
        observed = simulate(5, n_dumps=n_dumps, drift=0.05)
        solutions, applied = solved(observed.scan, batch=4)
        ratio = total_gains(observed.scan, applied, solutions) / observed.gains
        ratio = (ratio * np.abs(ratio[..., :1]) / ratio[..., :1]).mean(axis=1)
        errors.append(np.abs(ratio - 1).std())
    assert errors[1] < 0.5 * errors[0]


def test_a_gain_calibrator_uses_the_delays_and_bandpass_in_force(simulate: Simulate) -> None:
    first = simulate(1)
    _, applied = solved(first.scan)
    later = simulate(1, n_dumps=2)
    solutions, after = solved(later.scan, Products(gain=True), applied=applied)
    assert solutions.delays is None and solutions.bandpass is None
    assert after.delays is applied.delays and after.bandpass is applied.bandpass
    assert len(solutions.gains) == 2
    assert solutions.phase_rms < 0.1


def test_delays_are_renewed_under_the_bandpass_in_force(simulate: Simulate) -> None:
    """Of some of the channels; gains that were solved with the first delays go with the last."""
    _, applied = solved(simulate(1, noise=0.03).scan)
    later = simulate(1, noise=0.03, max_delay=20e-9)
    wanted = Products(delay=True, gain=True)
    channels = Channels(slice(10, 40), slice(20, 60))
    solutions, after = solved(later.scan, wanted, applied=applied, channels=channels, batch=2)
    assert solutions.bandpass is None
    ratio = total_gains(later.scan, after, solutions) / later.gains
    ratio = ratio * np.abs(ratio[..., :1]) / ratio[..., :1]
    assert np.sqrt((np.abs(ratio - 1) ** 2).mean()) < 0.03
    assert np.abs(np.angle(ratio).mean(axis=2)).max() < 0.02


def test_gains_of_longer_intervals_are_dated_at_their_middle(simulate: Simulate) -> None:
    solutions, _ = solved(simulate(1, n_dumps=5).scan, dumps=2)
    assert solutions.gain_times == (1.6e9 + 1, 1.6e9 + 5, 1.6e9 + 8)


def test_the_quality_of_a_solution_is_its_error(simulate: Simulate) -> None:
    """One over its signal to noise, for amplitudes, within a tenth of what the scatter over channels is."""
    observed = simulate(9, n_antennas=12, n_chans=256, drift=0.01)
    solutions, applied = solved(observed.scan)
    assert applied.bandpass is not None and solutions.bandpass_snr is not None
    relative = np.abs(applied.bandpass / observed.gains[:, 0].transpose(1, 0, 2))
    scatter = relative.std(axis=0) / relative.mean(axis=0) * np.sqrt(2)
    np.testing.assert_allclose(1 / solutions.bandpass_snr, scatter, rtol=0.3)


def test_flagged_samples_have_no_influence(simulate: Simulate) -> None:
    scan = simulate(2).scan
    weights = scan.weights.copy()
    rng = np.random.default_rng(0)
    bad = rng.uniform(size=weights.shape) < 0.2
    bad[:, :, 10] = True
    weights[bad] = 0
    clean = Scan(scan.times, np.where(bad, 0, scan.vis), weights, scan.pairs, scan.freqs, scan.sky)
    dirty = Scan(
        scan.times, np.where(bad, 1e6, scan.vis), weights, scan.pairs, scan.freqs, scan.sky
    )
    one, _ = solved(clean)
    other, _ = solved(dirty)
    assert one.bandpass is not None and one.flagged is not None
    np.testing.assert_array_equal(one.delays, other.delays)
    np.testing.assert_array_equal(one.bandpass, other.bandpass)
    assert np.isnan(one.bandpass[10]).all()
    assert np.isfinite(np.delete(one.bandpass, 10, axis=0)).all()
    assert (one.flagged[10] == 1).all()
    np.testing.assert_allclose(np.delete(one.flagged, 10, axis=0).mean(), 0.2, atol=0.02)


def test_channels_that_are_left_out_have_no_part_in_delays_and_gains(simulate: Simulate) -> None:
    """They are solved for the bandpass, and only for that."""
    scan = simulate(8, noise=0.05).scan
    spoilt = scan.vis.copy()
    strange = 5 * np.exp(1j * np.outer(np.linspace(0, 5, 16), np.arange(8)))
    spoilt[:, :, 48:] *= strange[:, scan.pairs.ant1] * strange[:, scan.pairs.ant2].conj()
    used = Channels(slice(0, 48), slice(0, 48))
    one, _ = solved(scan, channels=used)
    other, _ = solved(replace(scan, vis=spoilt), channels=used)
    np.testing.assert_allclose(one.delays, other.delays, rtol=0, atol=1e-14)
    assert one.bandpass is not None and other.bandpass is not None
    assert np.isfinite(other.bandpass).all()
    # The level of the bandpass is that of all channels, and what the gains have less, it has more.
    ratio = [s.gains[0] * np.abs(s.bandpass[:48]).mean(axis=0) for s in (one, other)]
    np.testing.assert_allclose(ratio[0], ratio[1], rtol=1e-4)
    whole, _ = solved(replace(scan, vis=spoilt))
    assert np.abs(whole.delays - one.delays).max() > 1e-10


def test_a_dead_antenna_has_no_solutions_and_is_not_the_reference(simulate: Simulate) -> None:
    scan = simulate(4).scan
    weights = scan.weights.copy()
    weights[..., (scan.pairs.ant1 == 0) | (scan.pairs.ant2 == 0)] = 0
    scan = scan.with_weights(weights)
    intervals = scan.intervals()
    peaks = [baseline_peaks(intervals, pol, scan.freqs) for pol in range(2)]
    chosen = choose_refant(intervals, peaks, ["m000", "nonsense", "m005"])
    assert chosen is not None and chosen.antenna == 5 and "preferred" in chosen.why
    best = choose_refant(intervals, peaks)
    assert best is not None and best.antenna != 0 and "strongest" in best.why
    solutions, _ = solved(scan, refant=5)
    for array in (solutions.delays, solutions.bandpass, *solutions.gains):
        assert array is not None
        assert np.isnan(array[..., 0]).all()
        assert np.isfinite(array[..., 1:]).all()
    for gains in solutions.gains:
        # Referred to the final bandpass, whose own reference phase is 0.
        np.testing.assert_allclose(np.angle(gains[:, 5]), 0, atol=1e-6)


def test_two_antennas_give_nothing(simulate: Simulate) -> None:
    scan = simulate(0, n_antennas=2).scan
    assert scan.solve(ALL, refant=None) is None
    solutions, _ = solved(scan)
    assert solutions.empty


def test_weak_channels_are_solved_together(simulate: Simulate) -> None:
    """With a signal to noise below 1 per channel the bandpass has fewer degrees of freedom, not more noise."""
    scan = simulate(6, noise=4.0, n_antennas=12, n_dumps=10, drift=0.05).scan
    solutions, applied = solved(scan)
    gains = np.nan_to_num(total_gains(scan, applied, solutions))
    pairs = gains[..., scan.pairs.ant1] * gains[..., scan.pairs.ant2].conj()
    assert solutions.bandpass is not None
    assert np.isfinite(solutions.bandpass).mean() > 0.95
    mean = (scan.vis[:2] * pairs.conj()).sum() / (np.abs(pairs) ** 2).sum()
    np.testing.assert_allclose(mean, 1, atol=0.1)
    before = np.sqrt((np.angle(scan.vis[:2].mean(axis=2)) ** 2).mean())
    assert solutions.phase_rms < 0.5 * before
