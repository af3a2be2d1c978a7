"""Clark's minor cycle: components are found among the brightest pixels only.

Clark 1980 (A&A 89, 377), with one difference: the point spread function is not cut to a patch. Only the
*pixels* are a selection, so what is subtracted from them is what Högbom's algorithm would subtract, and the
major cycle has only the w term and what has happened outside the selection to put right.

With several spectral terms (`spectrum`), a component is a peak of the first term's image and takes its part of
all terms there; the basis being orthonormal, that is its spectrum. What it leaves in the others is subtracted
with the point spread functions of all pairs of terms.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from pipelines.imaging.arrays import Image
from pipelines.imaging.limits import MinorLimits, Places

MAX_SUBTRACTED = 100
"""Components that are subtracted from a whole image one by one, between major cycles."""

MAX_ACTIVE = 200_000
"""Pixels that a minor cycle looks at: bounds its time."""


def minor_cycle(
    residual: Image, psf: Image, model: Image, places: Places, limits: MinorLimits
) -> int:
    """Add components to `model` until the selected pixels of `residual` are below the limit.

    Parameters
    ----------
    residual : float32 (terms, size, size)
        Residual images, Jy/beam; not changed.
    psf : float32 (pairs, 2 size, 2 size)
        Point spread functions of the pairs of terms (0, 0), (0, 1), …, (1, 1), …; the first has peak 1 at
        ``[size, size]``: every offset within the image is on it.
    model : float32 (terms, size, size)
        Components, Jy per pixel; changed.
    places : Places
        Where components may be.
    limits : MinorLimits
        Its limits.

    Returns
    -------
    int
        Number of components (with repetitions).
    """
    rows, columns = _select(places.brightness(residual[0]), limits.stop)
    if rows.size == 0:
        return 0
    negative = np.broadcast_to(places.negative, residual[0].shape)[rows, columns]
    return int(
        _subtract_peaks(
            rows,
            columns,
            np.ascontiguousarray(residual[:, rows, columns]),
            psf,
            pair_numbers(len(residual)),
            model,
            np.float32(limits.gain),
            np.float32(limits.stop),
            limits.iterations,
            negative,
        )
    )


def subtract(residual: Image, psf: Image, components: Image) -> bool:
    """Take the response to components away from the whole residual, if they are few.

    Parameters
    ----------
    residual : float32 (terms, size, size)
        Jy/beam; changed.
    psf : float32 (pairs, 2 size, 2 size)
        As for :func:`minor_cycle`.
    components : float32 (terms, size, size)
        Jy per pixel.

    Returns
    -------
    bool
        Whether that was done; a major cycle is cheaper for more than `MAX_SUBTRACTED`.
    """
    rows, columns = np.nonzero(components.any(axis=0))
    if rows.size > MAX_SUBTRACTED:
        return False
    fluxes = np.ascontiguousarray(components[:, rows, columns])
    _subtract_all(residual, psf, pair_numbers(len(residual)), rows, columns, fluxes)
    return True


def pair_numbers(terms: int) -> npt.NDArray[np.intp]:
    """Position of the pair (s, t) among (0, 0), (0, 1), …, (1, 1), …; intp (terms, terms)."""
    numbers = np.zeros((terms, terms), np.intp)
    upper = np.triu_indices(terms)
    numbers[upper] = np.arange(upper[0].size)
    return np.maximum(numbers, numbers.T)


def _select(brightness: Image, stop: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the pixels that can hold components."""
    chosen = brightness > stop
    if np.count_nonzero(chosen) > MAX_ACTIVE:
        chosen &= brightness > np.partition(brightness[chosen], -MAX_ACTIVE)[-MAX_ACTIVE]
    rows, columns = np.nonzero(chosen)
    return rows, columns


@numba.njit(nogil=True, cache=True)
def _subtract_peaks(  # type: ignore[no-untyped-def] # compiled by numba
    rows, columns, values, psf, pairs, model, gain, stop, iterations, negative
):
    terms, n_pixels = values.shape
    centre_row, centre_column = psf.shape[1] // 2, psf.shape[2] // 2
    best = 0
    for i in range(n_pixels):
        if _brightness(values[0, i], negative[i]) > _brightness(values[0, best], negative[best]):
            best = i
    component = np.empty(terms, np.float32)
    done = 0
    while done < iterations and _brightness(values[0, best], negative[best]) > stop:
        row, column = rows[best], columns[best]
        for term in range(terms):
            component[term] = gain * values[term, best]
            model[term, row, column] += component[term]
        row_offset, column_offset = centre_row - row, centre_column - column
        for term in range(terms):
            for other in range(terms):
                response, flux = psf[pairs[term, other]], component[other]
                for i in range(n_pixels):
                    place = response[rows[i] + row_offset, columns[i] + column_offset]
                    values[term, i] -= flux * place
        best, brightest = 0, np.float32(-np.inf)
        for i in range(n_pixels):
            brightness = _brightness(values[0, i], negative[i])
            if brightness > brightest:
                best, brightest = i, brightness
        done += 1
    return done


@numba.njit(nogil=True, cache=True)
def _subtract_all(residual, psf, pairs, rows, columns, fluxes):  # type: ignore[no-untyped-def] # compiled
    terms, size, _ = residual.shape
    for i in range(rows.size):
        row_offset, column_offset = psf.shape[1] // 2 - rows[i], psf.shape[2] // 2 - columns[i]
        for term in range(terms):
            for other in range(terms):
                response, flux = psf[pairs[term, other]], fluxes[other, i]
                for row in range(size):
                    for column in range(size):
                        value = response[row + row_offset, column + column_offset]
                        residual[term, row, column] -= flux * value


@numba.njit(nogil=True, cache=True)
def _brightness(value, negative):  # type: ignore[no-untyped-def] # compiled by numba
    return abs(value) if negative else value
