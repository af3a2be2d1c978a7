from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.calibration.solutions import Applied, Polarisation, Products
from tests.pipelines.calibration.conftest import Observed, observe

EVERYTHING = Products(delay=True, bandpass=True, gain=True, polarisation=True)


def polarisation(
    observed: Observed, applied: Applied | None = None
) -> tuple[Polarisation, Applied]:
    outcome = observed.scan.solve(EVERYTHING, applied)
    assert outcome is not None
    return outcome[0].polarisation, outcome[1]


def cross_phase(observed: Observed) -> np.ndarray:
    """(chan,) gain of h over that of v of the reference antenna, amplitude 1."""
    ratio = observed.gains[0, 0, :, 0] / observed.gains[1, 0, :, 0]
    return ratio / np.abs(ratio)


def leakage_seen(observed: Observed) -> np.ndarray:
    """(chan, pol, ant): the leakages in the frame of gains without a phase between the polarisations."""
    phase = cross_phase(observed)[:, np.newaxis]
    d_h, d_v = observed.leakage
    return np.stack([phase * (d_h - d_h[0]), phase.conj() * (d_v + d_h[0].conj())], axis=1)


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=8)
def test_leakages_are_recovered_within_the_noise(seed: int) -> None:
    """Sigma of one: noise over the gains, sqrt(dumps * 2 (antennas - 1)) samples; of second order: |d|^2."""
    observed = observe(seed, noise=0.1, drift=0.02, leakage=0.02, n_antennas=12)
    found, _ = polarisation(observed)
    assert found.delay is None and found.leakage is not None and found.leakage_snr is not None
    assert (found.leakage[:, 0, 0] == 0).all()
    error = np.abs(found.leakage - leakage_seen(observed))
    sigma = observed.noise / 0.7**2 / np.sqrt(6 * 11)
    assert np.sqrt((error**2).mean()) < 1.5 * sigma + 0.002
    # That of the reference antenna is in all of them.
    quoted = np.delete(1 / found.leakage_snr[0], 0)
    assert 0.3 < np.median(quoted) / np.sqrt((error**2).mean()) < 1.5


@given(seed=st.integers(0, 2**32), sign=st.sampled_from([-1, 1]))
@settings(deadline=None, max_examples=8)
def test_the_phase_between_polarisations_is_recovered_within_the_noise(
    seed: int, sign: int
) -> None:
    """Of U and of V, with the right sign; the noise is of two hands of all pairs, over the polarised part."""
    stokes = (0.05, 0.06 * sign, 0.02)
    observed = observe(seed, noise=0.05, drift=0.01, stokes=stokes, n_antennas=12)
    found, _ = polarisation(observed)
    assert found.leakage is None and found.delay is not None and found.phase is not None
    between = np.exp(2j * np.pi * found.delay * observed.scan.freqs) * found.phase
    error = np.angle(between / cross_phase(observed))
    polarised = abs(stokes[1] + 1j * stokes[2]) * 0.7**2
    sigma = observed.noise / polarised / np.sqrt(6 * 2 * 66)
    # The gains of the reference antenna, as all others, have errors of their own.
    sigma = np.hypot(sigma, observed.noise / 0.7**2 / np.sqrt(6 * 11))
    assert np.sqrt((error**2).mean()) < 2 * sigma
    ratio = observed.gains[0, 0, :, 0] / observed.gains[1, 0, :, 0]
    slope = np.polyfit(observed.scan.freqs - 1.4e9, np.unwrap(np.angle(ratio)), 1)[0] / (2 * np.pi)
    assert abs(found.delay - slope) < 1e-9


def test_leakage_that_is_known_is_taken_off_before_the_phase() -> None:
    """Leakage adds to the cross hands what looks like polarisation."""
    _, applied = polarisation(observe(1, noise=0.01, drift=0, leakage=0.03, n_antennas=6))
    assert applied.leakage is not None
    errors = []
    for known in (applied, Applied()):
        observed = observe(
            1, noise=0.01, drift=0, leakage=0.03, n_antennas=6, stokes=(0.0, 0.03, 0.0)
        )
        found, _ = polarisation(observed, known)
        assert found.delay is not None and found.phase is not None
        between = np.exp(2j * np.pi * found.delay * observed.scan.freqs) * found.phase
        errors.append(np.abs(np.angle(between / cross_phase(observed))).mean())
    assert errors[0] < 0.5 * errors[1]


def test_an_unpolarised_calibrator_shows_no_phase_and_noise_shows_nothing() -> None:
    found, _ = polarisation(observe(2, noise=0.3))
    assert found.phase is None
    weak, _ = polarisation(observe(2, noise=3.0, stokes=(0.0, 0.006, 0.0)))
    assert weak.phase is None and weak.leakage is None


def test_an_array_without_cross_hands_has_the_rest() -> None:
    scan = observe(3).scan
    pairs = type(scan.pairs)(
        scan.pairs.antennas, scan.pairs.ant1, scan.pairs.ant2, scan.pairs.products[:2].copy()
    )
    halved = type(scan)(scan.times, scan.vis[:2], scan.weights[:2], pairs, scan.freqs, scan.sky)
    whole, half = scan.solve(EVERYTHING), halved.solve(EVERYTHING)
    assert whole is not None and half is not None
    np.testing.assert_array_equal(whole[0].bandpass, half[0].bandpass)
    assert half[0].polarisation == Polarisation()
