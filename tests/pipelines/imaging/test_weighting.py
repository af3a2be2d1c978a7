from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.imaging.density import DensityGrid
from pipelines.imaging.errors import SettingsError
from pipelines.imaging.geometry import ARCSEC, SPEED_OF_LIGHT, ImageGrid
from pipelines.imaging.weighting import Weighting, WeightScheme

GRID = ImageGrid(256, 10 * ARCSEC)


def weighed(scheme: WeightScheme, uvw: np.ndarray, frequencies: np.ndarray, weights: np.ndarray):
    density = DensityGrid(GRID)
    half = len(uvw) // 2
    density.add(uvw[:half], frequencies, weights[:half])
    density.add(uvw[half:], frequencies, weights[half:])
    return density.apply(scheme, uvw, frequencies, weights)


@pytest.fixture
def sampling():
    rng = np.random.default_rng(5)
    uvw = np.concatenate([rng.normal(0, 150, (200, 3)), rng.normal(0, 600, (200, 3))])
    weights = rng.uniform(0, 3, (400, 16)).astype(np.float32)
    weights[::9, 3] = 0
    return uvw, np.linspace(0.9e9, 1.7e9, 16), weights


def cells(uvw: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """A cell's number for each sample, -1 outside: written a second time, slowly."""
    numbers = np.full((len(uvw), len(frequencies)), -1)
    for i, (u, v, _) in enumerate(uvw):
        for j, frequency in enumerate(frequencies):
            scale = frequency / SPEED_OF_LIGHT * GRID.field
            x, y = round(u * scale), round(v * scale)
            if (y, x) < (0, 0):
                x, y = -x, -y
            if max(abs(x), y) <= GRID.size // 2:
                numbers[i, j] = y * 10_000 + x + 5_000
    return numbers


def test_natural_weights_are_the_weights(sampling) -> None:
    uvw, frequencies, weights = sampling
    out = weighed(WeightScheme(Weighting.NATURAL), uvw, frequencies, weights)
    inside = cells(uvw, frequencies) >= 0
    assert np.array_equal(out, np.where(inside, weights, 0))


def test_uniform_weights_give_each_cell_the_same(sampling) -> None:
    uvw, frequencies, weights = sampling
    out = weighed(WeightScheme(Weighting.UNIFORM), uvw, frequencies, weights)
    numbers = cells(uvw, frequencies)
    for number in np.unique(numbers[(numbers >= 0) & (weights > 0)]):
        assert out[numbers == number].sum() == pytest.approx(1, rel=1e-5)
    assert not out[numbers < 0].any()


@pytest.mark.parametrize("robust", [-1.0, 0.0, 1.5])
def test_briggs_weights_follow_the_formula(sampling, robust: float) -> None:
    uvw, frequencies, weights = sampling
    out = weighed(WeightScheme(Weighting.BRIGGS, robust), uvw, frequencies, weights)
    numbers = cells(uvw, frequencies)
    names, index = np.unique(numbers, return_inverse=True)
    sums = np.bincount(index.ravel(), weights.ravel().astype(float))
    sums[names < 0] = 0
    f2 = (5 * 10**-robust) ** 2 / (np.sum(sums**2) / np.sum(sums))
    expected = np.where(numbers >= 0, weights / (1 + f2 * sums[index.reshape(numbers.shape)]), 0)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_conjugate_visibilities_are_the_same_cell(sampling) -> None:
    uvw, frequencies, weights = sampling
    scheme = WeightScheme(Weighting.UNIFORM)
    some = np.where(np.arange(400)[:, None] % 2, -uvw, uvw)
    np.testing.assert_allclose(
        weighed(scheme, some, frequencies, weights), weighed(scheme, uvw, frequencies, weights)
    )


@pytest.mark.parametrize("robust", [math.nan, math.inf, -6, 100])
def test_nonsense_is_refused(robust: float) -> None:
    with pytest.raises(SettingsError):
        WeightScheme(Weighting.BRIGGS, robust)
