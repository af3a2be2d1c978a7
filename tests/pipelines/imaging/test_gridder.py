from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from pipelines.imaging.errors import MissingExtraError
from pipelines.imaging.geometry import ARCSEC, ImageGrid
from pipelines.imaging.gridder import Gridder, ducc_wgridder

LIGHT = 299_792_458.0
GRID = ImageGrid(512, 10 * ARCSEC)


@pytest.fixture
def observed(observation):
    sky = np.array([[0.004, 0.002, 1.0], [-0.009, 0.0101, 0.6], [0.0003, -0.011, 0.3]])
    return observation(sky, rng=np.random.default_rng(1), noise=0.3, channels=64, hour_angle=1.0)


def weights_of(observed) -> np.ndarray:
    weights = np.random.default_rng(2).uniform(0, 2, observed.vis.shape).astype(np.float32)
    weights[::7] = 0
    return weights


def test_the_image_is_the_direct_transform(observed) -> None:
    weights = weights_of(observed)
    image = Gridder(GRID).to_image(observed.uvw, observed.frequencies, observed.vis, weights)
    image = image / weights.sum(dtype=np.float64)
    rng = np.random.default_rng(3)
    pixels = [(256, 256), (0, 0), (511, 3), *rng.integers(0, 512, (30, 2)).tolist()]
    peak = np.abs(image).max()
    for row, column in pixels:
        l, m = -(column - 256) * GRID.pixel, (row - 256) * GRID.pixel  # noqa: E741
        path = observed.uvw @ np.array([l, m, math.sqrt(1 - l * l - m * m) - 1])
        phase = np.exp(-2j * np.pi / LIGHT * path[:, None] * observed.frequencies)
        direct = np.sum((weights.astype(float) * observed.vis * phase).real)
        direct /= weights.sum(dtype=np.float64)
        assert image[row, column] == pytest.approx(direct, abs=1e-4 * peak)


@pytest.mark.parametrize(("east", "north"), [(90, 40), (-35, 120), (0, -200), (210, 0)])
def test_a_source_lands_at_its_pixel(observation, east: int, north: int) -> None:
    """East of the centre is at smaller columns, north at larger rows; w is on the right side, too."""
    sky = np.array([[east * GRID.pixel, north * GRID.pixel, 2.0]])
    observed = observation(sky, rng=np.random.default_rng(1), channels=64, hour_angle=1.2)
    weights = observed.weights
    image = Gridder(GRID).to_image(observed.uvw, observed.frequencies, observed.vis, weights)
    image = image / weights.sum(dtype=np.float64)
    assert np.unravel_index(image.argmax(), image.shape) == (256 + north, 256 - east)
    assert image.max() == pytest.approx(2.0, rel=1e-4)


def test_prediction_is_the_direct_sum(observed) -> None:
    model = np.zeros((512, 512), np.float32)
    model[300, 100], model[20, 400] = 1.5, 0.25
    vis = Gridder(GRID).to_visibilities(observed.uvw, observed.frequencies, model)
    expected = np.zeros(vis.shape, complex)
    for row, column in np.argwhere(model):
        l, m = -(column - 256) * GRID.pixel, (row - 256) * GRID.pixel  # noqa: E741
        path = observed.uvw @ np.array([l, m, math.sqrt(1 - l * l - m * m) - 1])
        wave = np.exp(2j * np.pi / LIGHT * path[:, None] * observed.frequencies)
        expected += model[row, column] * wave
    assert np.abs(vis - expected).max() < 4e-4


def test_without_ducc0_one_learns_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ducc0", None)
    with pytest.raises(MissingExtraError, match="extra 'imaging'"):
        ducc_wgridder()
