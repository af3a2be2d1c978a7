"""Compile what imaging compiles."""

from __future__ import annotations

import numpy as np

from pipelines.imaging.geometry import MIN_SIZE, ImageGrid
from pipelines.imaging.minor_cycle import MinorLimits, minor_cycle
from pipelines.imaging.weighting import DensityGrid, WeightScheme


def warm_up() -> None:
    """Weigh a few samples and clean a small image; blocks."""
    size = MIN_SIZE
    density = DensityGrid(ImageGrid(size, 1e-5))
    uvw, frequencies = np.zeros((2, 3)), np.array([1e9])
    weights = np.ones((2, 1), np.float32)
    density.add(uvw, frequencies, weights)
    density.apply(WeightScheme(), uvw, frequencies, weights)
    psf = np.zeros((2 * size, 2 * size), np.float32)
    psf[size, size] = 1
    residual, model = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    residual[8, 8] = 1
    minor_cycle(residual, psf, model, None, MinorLimits(0.1, 0.5, 10, False))
