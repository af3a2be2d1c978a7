"""Clark's minor cycle: components are found among the brightest pixels only.

Clark 1980 (A&A 89, 377), with one difference: the point spread function is not cut to a patch. Only the
*pixels* are a selection, so what is subtracted from them is what Högbom's algorithm would subtract, and the
major cycle has only the w term and what has happened outside the selection to put right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

MAX_ACTIVE = 200_000
"""Pixels that a minor cycle looks at: bounds its time."""

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MinorLimits:
    """When a minor cycle ends, and how it steps.

    Attributes
    ----------
    gain : float
        Fraction of the peak that one component takes.
    stop : float
        Brightness at which it ends, Jy/beam.
    iterations : int
        Components at most.
    negative : bool
        Whether negative peaks are components, too.
    """

    gain: float
    stop: float
    iterations: int
    negative: bool


def minor_cycle(
    residual: Image, psf: Image, model: Image, mask: Mask | None, limits: MinorLimits
) -> int:
    """Add components to `model` until the selected pixels of `residual` are below the limit.

    Parameters
    ----------
    residual : float32 (size, size)
        Residual image, Jy/beam; not changed.
    psf : float32 (2 size, 2 size)
        Point spread function, peak 1 at ``[size, size]``: every offset within the image is on it.
    model : float32 (size, size)
        Components, Jy per pixel; changed.
    mask : bool (size, size), optional
        Where components may be.
    limits : MinorLimits
        Its limits.

    Returns
    -------
    int
        Number of components (with repetitions).
    """
    rows, columns = _select(residual, mask, limits)
    if rows.size == 0:
        return 0
    values = residual[rows, columns]
    return int(
        _subtract_peaks(
            rows,
            columns,
            values,
            psf,
            model,
            np.float32(limits.gain),
            np.float32(limits.stop),
            limits.iterations,
            limits.negative,
        )
    )


def _select(
    residual: Image, mask: Mask | None, limits: MinorLimits
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the pixels that can hold components."""
    size = np.abs(residual) if limits.negative else residual
    chosen = size > limits.stop
    if mask is not None:
        chosen &= mask
    if np.count_nonzero(chosen) > MAX_ACTIVE:
        level = np.partition(size[chosen], -MAX_ACTIVE)[-MAX_ACTIVE]
        chosen &= size > level
    rows, columns = np.nonzero(chosen)
    return rows, columns


@numba.njit(nogil=True)
def _subtract_peaks(rows, columns, values, psf, model, gain, stop, iterations, negative):  # type: ignore[no-untyped-def] # compiled
    centre_row, centre_column = psf.shape[0] // 2, psf.shape[1] // 2
    best = 0
    for i in range(values.size):
        if _brightness(values[i], negative) > _brightness(values[best], negative):
            best = i
    done = 0
    while done < iterations and _brightness(values[best], negative) > stop:
        flux = gain * values[best]
        row, column = rows[best], columns[best]
        model[row, column] += flux
        row_offset, column_offset = centre_row - row, centre_column - column
        best, brightest = 0, np.float32(-np.inf)
        for i in range(values.size):
            values[i] -= flux * psf[rows[i] + row_offset, columns[i] + column_offset]
            brightness = _brightness(values[i], negative)
            if brightness > brightest:
                best, brightest = i, brightness
        done += 1
    return done


@numba.njit(nogil=True)
def _brightness(value, negative):  # type: ignore[no-untyped-def] # compiled by numba
    return abs(value) if negative else value
