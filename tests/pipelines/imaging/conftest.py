"""A simulated observation by direct Fourier sums in double precision; no gridder, no katpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

LIGHT = 299_792_458.0
LATITUDE = math.radians(-30.7)

# East, north, up in metres of eight antennas, spread like the inner part of MeerKAT.
ANTENNAS = np.array(
    [
        [-8.3, -207.3, 8.6],
        [1.1, -171.8, 8.5],
        [199.6, -112.3, 8.3],
        [-535.0, -318.8, 9.2],
        [295.1, -326.2, 8.0],
        [-371.7, 397.1, 7.5],
        [626.1, 55.9, 7.9],
        [-102.1, -1007.4, 8.8],
    ]
)


@dataclass(frozen=True)
class Observation:
    """Stokes I visibilities: uvw (rows, 3) in metres, baseline by baseline, and what was put in."""

    uvw: np.ndarray
    frequencies: np.ndarray
    vis: np.ndarray
    weights: np.ndarray
    sky: np.ndarray  # (sources, 3): l, m, flux

    @property
    def longest(self) -> float:
        length = np.sqrt(np.sum(self.uvw**2, axis=1)).max()
        return float(length * self.frequencies.max() / LIGHT)


def baselines(antennas: np.ndarray, dec: float, hour_angles: np.ndarray) -> np.ndarray:
    """uvw(A) - uvw(B) in metres, (baselines × times, 3); Thompson, Moran, Swenson eq. 4.1."""
    east, north, up = antennas.T
    x = -math.sin(LATITUDE) * north + math.cos(LATITUDE) * up
    z = math.cos(LATITUDE) * north + math.sin(LATITUDE) * up
    sin_h, cos_h = np.sin(hour_angles)[:, None], np.cos(hour_angles)[:, None]
    u = sin_h * x + cos_h * east
    radial = cos_h * x - sin_h * east
    v = -math.sin(dec) * radial + math.cos(dec) * z
    w = math.cos(dec) * radial + math.sin(dec) * z
    uvw = np.stack([u, v, w], axis=-1)
    first, second = np.triu_indices(len(antennas), 1)
    return (uvw[:, first] - uvw[:, second]).transpose(1, 0, 2).reshape(-1, 3)


def predict(uvw: np.ndarray, frequencies: np.ndarray, sky: np.ndarray, index: float = 0.0) -> np.ndarray:
    """Σ S exp(+2πi(ul + vm + w(n-1))), with a spectral index about the middle of the band."""
    vis = np.zeros((len(uvw), len(frequencies)), np.complex128)
    spectrum = (frequencies / frequencies.mean()) ** index
    for l, m, flux in sky:  # noqa: E741
        path = uvw @ np.array([l, m, math.sqrt(1 - l * l - m * m) - 1])
        vis += flux * spectrum * np.exp(2j * np.pi / LIGHT * path[:, None] * frequencies)
    return vis


def observe(
    sky: np.ndarray,
    *,
    rng: np.random.Generator,
    noise: float = 0.0,
    dec: float = math.radians(-35.0),
    hour_angle: float = 0.1,
    dumps: int = 3,
    seconds: float = 24.0,
    channels: int = 1024,
    index: float = 0.0,
    antennas: np.ndarray = ANTENNAS,
) -> Observation:
    hours = hour_angle + np.arange(dumps) * seconds / dumps * 2 * np.pi / 86164.1
    frequencies = 856e6 + 856e6 / channels * np.arange(channels)
    uvw = baselines(antennas, dec, hours)
    vis = predict(uvw, frequencies, sky, index)
    vis += noise * (rng.standard_normal(vis.shape) + 1j * rng.standard_normal(vis.shape))
    weights = np.ones(vis.shape, np.float32)
    return Observation(uvw, frequencies, vis.astype(np.complex64), weights, sky)


@pytest.fixture
def observation() -> Callable[..., Observation]:
    return observe
