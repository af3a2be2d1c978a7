from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from pipelines.calibration.stefcal import solve


def equations(
    rng: np.random.Generator, n_antennas: int, n_sets: int = 1, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gains, visibilities, and the two antennas of each baseline."""
    ant1, ant2 = np.triu_indices(n_antennas, 1)
    shape = (n_sets, n_antennas)
    gains = rng.uniform(0.5, 2, shape) * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    vis = gains[:, ant1] * gains[:, ant2].conj()
    error = rng.normal(size=vis.shape) + 1j * rng.normal(size=vis.shape)
    return gains, vis + noise / np.sqrt(2) * error, ant1, ant2


def referenced(gains: np.ndarray, refant: int) -> np.ndarray:
    reference = gains[..., refant : refant + 1]
    return gains * np.abs(reference) / reference


@given(st.integers(0, 2**32), st.integers(3, 16), st.data())
@settings(deadline=None, max_examples=60)
def test_noiseless_gains_are_recovered_from_any_start(
    seed: int, n_antennas: int, data: st.DataObject
) -> None:
    refant = data.draw(st.integers(0, n_antennas - 1))
    gains, vis, ant1, ant2 = equations(np.random.default_rng(seed), n_antennas, 3)
    solved = solve(vis, np.ones(vis.shape), ant1, ant2, n_antennas, refant)
    np.testing.assert_allclose(solved.gains, referenced(gains, refant), atol=2e-5)
    assert (solved.snr > 1e3).all()


@pytest.mark.parametrize("seed", range(6))
def test_noisy_gains_are_the_least_squares_solution(seed: int) -> None:
    """Against scipy's Levenberg-Marquardt on the same weighted residuals."""
    rng = np.random.default_rng(seed)
    gains, vis, ant1, ant2 = equations(rng, 7, noise=0.2)
    weights = rng.uniform(0.2, 2, vis.shape)
    weights[0, rng.integers(0, 21, 4)] = 0

    def residuals(x: np.ndarray) -> np.ndarray:
        g = x[:7] + 1j * x[7:]
        r = np.sqrt(weights[0]) * (vis[0] - g[ant1] * g[ant2].conj())
        return np.concatenate([r.real, r.imag])

    start = np.concatenate([gains[0].real, gains[0].imag])
    fit = least_squares(residuals, start, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    expected = referenced(fit.x[:7] + 1j * fit.x[7:], 2)
    solved = solve(vis * weights, weights, ant1, ant2, 7, 2)
    np.testing.assert_allclose(solved.gains[0], expected, atol=1e-5)


def test_errors_are_those_of_the_noise() -> None:
    """The variance of a gain is near sigma^2 / sum_j |g_j|^2, plus the reference's share of phase."""
    noise, n = 0.3, 12
    gains, vis, ant1, ant2 = equations(np.random.default_rng(5), n, 400, noise)
    solved = solve(vis, np.ones(vis.shape), ant1, ant2, n, 0)
    power = (np.abs(gains) ** 2).sum(axis=1, keepdims=True) - np.abs(gains) ** 2
    expected = noise / np.sqrt(power)
    error = np.abs(np.abs(solved.gains) - np.abs(gains))
    assert np.sqrt((error**2).mean() / (expected**2 / 2).mean()) == pytest.approx(1, abs=0.1)
    quoted = np.abs(solved.gains) / solved.snr
    assert np.median(quoted / expected) == pytest.approx(1, abs=0.1)


@given(st.integers(0, 2**32), st.sets(st.integers(1, 7), min_size=6, max_size=7))
@settings(deadline=None, max_examples=20)
def test_fewer_than_three_inputs_with_data_have_no_gain(seed: int, dead: set[int]) -> None:
    _, vis, ant1, ant2 = equations(np.random.default_rng(seed), 8, 1, noise=0.01)
    weights = np.ones(vis.shape)
    weights[:, np.isin(ant1, list(dead)) | np.isin(ant2, list(dead))] = 0
    assert np.isnan(solve(vis * weights, weights, ant1, ant2, 8, 0).gains).all()


# With fewer than three alive, noise alone is left among the others, and now and then looks like gains.
@given(st.integers(0, 2**32), st.sets(st.integers(1, 7), max_size=5))
@settings(deadline=None, max_examples=40)
def test_dead_inputs_have_no_gain_and_do_no_harm(seed: int, dead: set[int]) -> None:
    """Dead by flags (odd) or by giving nothing but noise (even)."""
    rng = np.random.default_rng(seed)
    n = 8
    gains, vis, ant1, ant2 = equations(rng, n, 1, noise=0.01)
    weights = np.ones(vis.shape)
    for ant in dead:
        touched = (ant1 == ant) | (ant2 == ant)
        if ant % 2:
            weights[:, touched] = 0
        else:
            shape = (1, touched.sum())
            vis[:, touched] = 1e-4 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    solved = solve(vis * weights, weights, ant1, ant2, n, 0)
    alive = np.array([ant not in dead for ant in range(n)])
    assert np.isnan(solved.gains[0, ~alive]).all()
    if alive.sum() > 3:
        # Three antennas have no redundancy, so nothing shows that a fourth one is noise.
        np.testing.assert_allclose(solved.gains[0, alive], referenced(gains, 0)[0, alive], atol=0.2)


def test_without_the_reference_antenna_there_is_no_solution() -> None:
    _, vis, ant1, ant2 = equations(np.random.default_rng(0), 6)
    weights = np.ones(vis.shape)
    weights[:, (ant1 == 2) | (ant2 == 2)] = 0
    solved = solve(vis * weights, weights, ant1, ant2, 6, 2)
    assert np.isnan(solved.gains).all()
    assert (solved.snr == 0).all()


def test_an_antenna_apart_from_the_reference_has_no_gain() -> None:
    """Two groups without a baseline between them: only that of the reference antenna is solved."""
    gains, vis, ant1, ant2 = equations(np.random.default_rng(0), 8)
    weights = np.ones(vis.shape)
    weights[:, (ant1 < 4) != (ant2 < 4)] = 0
    solved = solve(vis * weights, weights, ant1, ant2, 8, 5)
    assert np.isnan(solved.gains[0, :4]).all()
    np.testing.assert_allclose(solved.gains[0, 4:], referenced(gains, 5)[0, 4:], atol=2e-5)
