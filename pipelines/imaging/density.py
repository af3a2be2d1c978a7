"""Imaging weights from the density of samples in the uv plane; `weighting` has the formulas.

A cell is one over the field of view wide. A visibility and its conjugate are one measurement: cells are counted
on the half plane v ≥ 0.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

from pipelines.imaging.geometry import SPEED_OF_LIGHT, ImageGrid
from pipelines.imaging.weighting import Weighting, WeightScheme


class DensityGrid:
    """Sums of weights over cells of the uv plane.

    Parameters
    ----------
    grid : ImageGrid
        Image for which weights are wanted: cells are ``1 / grid.field`` wavelengths wide.
    """

    def __init__(self, grid: ImageGrid) -> None:
        self._cell = 1.0 / grid.field
        self._half = grid.size // 2
        self._sums = np.zeros((self._half + 1, 2 * self._half + 1), np.float64)

    def add(
        self,
        uvw: npt.NDArray[np.float64],
        frequencies: npt.NDArray[np.float64],
        weights: npt.NDArray[np.float32],
    ) -> None:
        """Count one block: ``uvw`` (rows, 3) in metres, weights (rows, channels)."""
        _accumulate(self._sums, *self._scaled(uvw, frequencies), weights)

    def apply(
        self,
        scheme: WeightScheme,
        uvw: npt.NDArray[np.float64],
        frequencies: npt.NDArray[np.float64],
        weights: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Imaging weights of one block, after all blocks have been counted.

        Visibilities beyond the image's resolution (outside the uv plane of the grid) get weight zero.
        """
        constant, slope = briggs_terms(scheme, self._sums)
        result: npt.NDArray[np.float32] = _divided(
            self._sums, *self._scaled(uvw, frequencies), weights, constant, slope
        )
        return result

    def _scaled(
        self, uvw: npt.NDArray[np.float64], frequencies: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Coordinates in cells per hertz, so that one multiplication per sample is left."""
        return np.ascontiguousarray(uvw[:, :2]) / (SPEED_OF_LIGHT * self._cell), frequencies


def briggs_terms(scheme: WeightScheme, sums: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return (a, b) of the divisor ``a + b W_k``."""
    if scheme.kind is Weighting.UNIFORM:
        return 0.0, 1.0
    squares = float(np.sum(np.square(sums)))
    if scheme.kind is Weighting.NATURAL or squares == 0:
        return 1.0, 0.0
    return 1.0, (5.0 * 10.0**-scheme.robust) ** 2 * float(np.sum(sums)) / squares


@numba.njit(nogil=True, cache=True)
def _cell_of(u: float, v: float, half: int) -> tuple[int, int]:
    """Row and column of the cell, folded onto v ≥ 0; (-1, -1) outside."""
    row, column = math.floor(v + 0.5), math.floor(u + 0.5)
    if row < 0 or (row == 0 and column < 0):
        row, column = -row, -column
    if row > half or abs(column) > half:
        return -1, -1
    return row, column + half


@numba.njit(nogil=True, cache=True)
def _accumulate(sums, scaled, frequencies, weights):  # type: ignore[no-untyped-def] # compiled by numba
    half = sums.shape[0] - 1
    for row in range(scaled.shape[0]):
        for channel in range(frequencies.size):
            weight = weights[row, channel]
            if weight > 0:
                frequency = frequencies[channel]
                i, j = _cell_of(scaled[row, 0] * frequency, scaled[row, 1] * frequency, half)
                if i >= 0:
                    sums[i, j] += weight


@numba.njit(nogil=True, cache=True)
def _divided(sums, scaled, frequencies, weights, constant, slope):  # type: ignore[no-untyped-def] # compiled
    half = sums.shape[0] - 1
    out = np.zeros_like(weights)
    for row in range(scaled.shape[0]):
        for channel in range(frequencies.size):
            weight = weights[row, channel]
            if weight > 0:
                frequency = frequencies[channel]
                i, j = _cell_of(scaled[row, 0] * frequency, scaled[row, 1] * frequency, half)
                if i >= 0:
                    out[row, channel] = weight / (constant + slope * sums[i, j])
    return out
