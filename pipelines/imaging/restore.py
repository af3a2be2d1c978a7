"""From components to the image that people read."""

from __future__ import annotations

import math

import numpy as np

from pipelines.imaging.arrays import Image
from pipelines.imaging.beam import Beam

REACH = 2.6
"""The Gaussian is cut where it is REACH full widths from its centre, at 1e-8 of its peak."""


def restore(model: Image, residual: Image, beam: Beam) -> Image:
    """Put the beam's Gaussian at each component and add the residual.

    Parameters
    ----------
    model : float32 (size, size)
        Components, Jy per pixel.
    residual : float32 (size, size)
        Jy/beam.
    beam : Beam
        Restoring beam.

    Returns
    -------
    float32 (size, size)
        Jy/beam.
    """
    reach = math.ceil(REACH * beam.major)
    size = model.shape[0]
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    stamp = np.exp(-beam.exponents(offsets[:, None], offsets[None, :])).astype(np.float32)
    # A margin as wide as the stamp, so that no component needs a case of its own.
    canvas = np.zeros((size + 2 * reach, size + 2 * reach), np.float32)
    for row, column in np.argwhere(model):
        canvas[row : row + 2 * reach + 1, column : column + 2 * reach + 1] += (
            model[row, column] * stamp
        )
    restored: Image = canvas[reach : reach + size, reach : reach + size] + residual
    return restored
