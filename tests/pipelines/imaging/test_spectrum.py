from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.imaging.spectrum import make_basis, power_laws

L_BAND = np.linspace(856e6, 1712e6, 64)
seeds = st.integers(0, 2**32 - 1)


def shares(seed: int) -> np.ndarray:
    """Weights of channels, some of them flagged altogether."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 2, L_BAND.size) * (rng.random(L_BAND.size) > 0.3)
    weights[[0, -1]] = 1
    return weights / weights.sum()


@given(seeds, st.integers(1, 4))
def test_the_basis_is_orthonormal_and_begins_with_one(seed: int, terms: int) -> None:
    weights = shares(seed)
    basis = make_basis(L_BAND, weights, terms)
    assert np.all(basis.values[0] == 1)
    np.testing.assert_allclose((basis.values * weights) @ basis.values.T, np.eye(terms), atol=1e-9)
    powers = (L_BAND / basis.reference - 1) ** np.arange(terms)[:, None]
    np.testing.assert_allclose(basis.polynomials() @ powers, basis.values, atol=1e-8)


def test_there_are_no_more_terms_than_channels() -> None:
    assert make_basis(np.array([1e9, 1.1e9]), np.array([0.5, 0.5]), 4).terms == 2
    assert make_basis(np.array([1e9]), np.ones(1), 3).terms == 1


@given(seeds, st.floats(-3, 3), st.floats(1e-3, 1e3))
def test_a_power_law_is_read_from_two_terms_without_bias(
    seed: int, index: float, flux: float
) -> None:
    weights = shares(seed)
    basis = make_basis(L_BAND, weights, 2)
    laws = power_laws(basis)
    first, second = basis.values @ (weights * flux * (L_BAND / basis.reference) ** index)
    found = float(laws.index(second / first))
    assert found == pytest.approx(index, abs=1e-3)
    assert laws.flux(first, found) == pytest.approx(flux, rel=1e-3)


def test_what_is_no_power_law_has_no_index() -> None:
    laws = power_laws(make_basis(L_BAND, np.full(64, 1 / 64), 2))
    assert np.isnan(laws.index(50.0)) and np.isnan(laws.index(np.nan))
