"""Compile what imaging compiles."""

from __future__ import annotations

import numpy as np

from pipelines.imaging.density import DensityGrid
from pipelines.imaging.geometry import MIN_SIZE, ImageGrid
from pipelines.imaging.limits import MinorLimits, Places
from pipelines.imaging.minor_cycle import minor_cycle, subtract
from pipelines.imaging.weighting import WeightScheme


def warm_up() -> None:
    """Weigh a few samples and clean a small image; blocks."""
    size = MIN_SIZE
    density = DensityGrid(ImageGrid(size, 1e-5))
    uvw, frequencies = np.zeros((2, 3)), np.array([1e9])
    weights = np.ones((2, 1), np.float32)
    density.add(uvw, frequencies, weights)
    density.apply(WeightScheme(), uvw, frequencies, weights)
    psf = np.zeros((1, 2 * size, 2 * size), np.float32)
    psf[0, size, size] = 1
    residual, model = np.zeros((2, 1, size, size), np.float32)
    residual[0, 8, 8] = 1
    minor_cycle(residual, psf, model, Places(), MinorLimits(0.1, 0.5, 10))
    subtract(residual, psf, model)
