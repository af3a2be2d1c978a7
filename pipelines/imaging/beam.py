"""The synthesised beam: the Gaussian that fits the point spread function's main lobe, and its sidelobes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.imaging.errors import ImagingError

FIT_ABOVE = 0.4
"""Fraction of the peak above which the main lobe is fitted; below, it is not Gaussian any more."""

MIN_FIT_PIXELS = 6
FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))


@dataclass(frozen=True)
class Beam:
    """Elliptical Gaussian with peak one.

    Attributes
    ----------
    major, minor : float
        Full widths at half maximum, in pixels.
    angle : float
        Position angle of the major axis from north through east, radians, within (-π/2, π/2].
    """

    major: float
    minor: float
    angle: float

    def exponents(
        self, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return ``-ln`` of the beam at offsets in pixels (rows to the north, columns to the west)."""
        along = rows * math.cos(self.angle) - columns * math.sin(self.angle)
        across = rows * math.sin(self.angle) + columns * math.cos(self.angle)
        scaled: npt.NDArray[np.float64] = np.square(along / self.major)
        scaled = scaled + np.square(across / self.minor)
        return 4 * math.log(2) * scaled

    @property
    def area(self) -> float:
        """Integral in pixels: what turns Jy/beam into Jy/pixel."""
        return math.pi * self.major * self.minor / (4 * math.log(2))


def fit_beam(psf: npt.NDArray[np.float32]) -> Beam:
    """Fit a Gaussian with its peak fixed to the main lobe of a point spread function.

    The logarithm of the lobe is a quadratic form in the offset; it is fitted linearly, weighted with the
    squared values, which makes it the least-squares fit to the values themselves in first order.

    Parameters
    ----------
    psf : float32 (size, size)
        Peak 1 at ``[size // 2, size // 2]``.

    Raises
    ------
    ImagingError
        There is no main lobe: the visibilities do not resolve anything.
    """
    rows, columns, values = _main_lobe(psf)
    design = np.stack([rows**2, 2 * rows * columns, columns**2], axis=1)
    weights = values
    form = np.linalg.lstsq(design * weights[:, None], -np.log(values) * weights, rcond=None)[0]
    widths, axes = np.linalg.eigh(np.array([[form[0], form[1]], [form[1], form[2]]]))
    if not np.all(np.isfinite(widths)) or widths[0] <= 0:
        raise ImagingError(
            "the point spread function has no Gaussian main lobe; too few baselines in one direction"
            " or an image too small for the beam"
        )
    major, minor = np.sqrt(4 * math.log(2) / widths)
    north, west = axes[:, 0]
    angle = math.atan2(-west, north)
    if angle <= -math.pi / 2:
        angle += math.pi
    elif angle > math.pi / 2:
        angle -= math.pi
    return Beam(float(major), float(minor), angle)


def _main_lobe(
    psf: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Offsets and values of the pixels that hang together with the centre."""
    centre = psf.shape[0] // 2
    for level in (FIT_ABOVE, 0.2, 0.1, 0.05):
        rows, columns = np.nonzero(_around_centre(psf > level))
        if rows.size >= MIN_FIT_PIXELS or rows.size == 0:
            break
    if rows.size < MIN_FIT_PIXELS:
        raise ImagingError(
            f"the main lobe of the point spread function covers {rows.size} pixels;"
            " choose a smaller --pixel"
        )
    values = np.clip(psf[rows, columns].astype(np.float64), 1e-3, 1.0)
    return (rows - centre).astype(np.float64), (columns - centre).astype(np.float64), values


def _around_centre(above: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What hangs together with the centre, side by side."""
    found = np.zeros_like(above)
    centre = above.shape[0] // 2
    reach = 0
    while True:
        # The lobe grows by a pixel a time, so nothing outside this square can be part of it yet.
        square = (slice(centre - reach, centre + reach + 1),) * 2
        grown, before = found[square].copy(), np.count_nonzero(found)
        grown[reach, reach] = True
        grown[1:] |= found[square][:-1]
        grown[:-1] |= found[square][1:]
        grown[:, 1:] |= found[square][:, :-1]
        grown[:, :-1] |= found[square][:, 1:]
        found[square] = grown & above[square]
        if np.count_nonzero(found) == before:
            return found
        reach = min(reach + 1, centre - 1)


def highest_sidelobe(psf: npt.NDArray[np.float32], beam: Beam) -> float:
    """Largest absolute value outside the main lobe, the ellipse of twice the beam's full widths."""
    size = psf.shape[0]
    offsets = np.arange(size, dtype=np.float64) - size // 2
    outside = beam.exponents(offsets[:, None], offsets[None, :]) > 4 * math.log(2)
    return float(np.max(np.abs(psf), where=outside, initial=0.0))
