"""Finding sources: peaks of the restored image that stand out of the noise around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.imaging.arrays import Image
from pipelines.imaging.beam import Beam
from pipelines.imaging.clean import robust_rms
from pipelines.imaging.spectrum import PowerLaws

if TYPE_CHECKING:
    from astropy.wcs import WCS

DETECTION_SIGMAS = 5.0
MAX_SOURCES = 10_000
LOCAL_BEAMS = 5
"""Half width of the box around a peak in which the noise there is measured, in beams."""

MAX_INDEX_ERROR = 1.0
"""A spectral index that is known less well says nothing."""

FIDELITY = 0.005
"""Within as many beams of a source nothing below this fraction of it counts: components on a grid make a
source between the pixels with ripples of some tenths of a per cent about it."""


@dataclass(frozen=True)
class Source:
    """One peak.

    Attributes
    ----------
    ra, dec : float
        Degrees, ICRS.
    row, column : float
        Place in the image, in pixels from 0, to a fraction of a pixel.
    flux : float
        Peak of the fitted paraboloid, Jy/beam: the flux density of a point source, apparent (not corrected for
        the primary beam), as the weighted mean over the band.
    noise : float
        Robust rms around it, Jy/beam.
    snr : float
        ``flux / noise``.
    spectral_index, spectral_index_error : float, optional
        Apparent index α of ``S ∝ ν^α`` and its standard error from the noise; None where spectra were not
        fitted or the source is too faint for it.
    """

    ra: float
    dec: float
    row: float
    column: float
    flux: float
    noise: float
    snr: float
    spectral_index: float | None = None
    spectral_index_error: float | None = None

    def document(self) -> dict[str, float | None]:
        """As it goes into ``sources.json``."""
        return {k: None if v is None else round(v, 7) for k, v in asdict(self).items()}


def find_sources(image: Image, residual: Image, beam: Beam, wcs: WCS) -> tuple[Source, ...]:
    """Find all peaks above five times the noise, brightest first.

    The noise is the greater one of the whole residual's and that of the residual around the peak: what
    is left of a bright source's sidelobes is no source. Nor are ripples of half a per cent beside it.

    Parameters
    ----------
    image : float32 (size, size)
        Restored image, Jy/beam.
    residual : float32 (size, size)
        Residual image, Jy/beam.
    beam : Beam
        Restoring beam; nothing nearer than half of it is resolved.
    wcs : WCS
        World coordinates of the image.
    """
    noise = robust_rms(residual)
    if noise <= 0 or not math.isfinite(noise):
        # A residual without any noise: every pixel that holds flux would be a source.
        noise = max(float(np.finfo(np.float32).eps * np.abs(image).max()), 1e-30)
    peaks = _peaks(image, DETECTION_SIGMAS * noise, beam)
    found: list[Source] = []
    for row, column in peaks:
        if _is_ripple(float(image[row, column]), row, column, found, beam):
            continue
        local = max(noise, robust_rms(_around(residual, row, column, beam)))
        if image[row, column] >= DETECTION_SIGMAS * local:
            found.append(_measure(image, row, column, local, wcs))
    return tuple(found)


def with_indices(
    sources: Sequence[Source], images: Image, residuals: Image, laws: PowerLaws
) -> tuple[Source, ...]:
    """Sources with their spectral indices, from the images of the first two spectral terms.

    Around a point source all terms have the beam's shape: the ratio at the nearest pixel is that at the peak.

    Parameters
    ----------
    images, residuals : float32 (terms, size, size)
        Restored and residual images, Jy/beam.
    laws : PowerLaws
        What the ratio of the terms means.
    """
    noise = [robust_rms(residual) for residual in residuals[:2]]
    return tuple(_with_index(source, images, noise, laws) for source in sources)


def _with_index(source: Source, images: Image, noise: Sequence[float], laws: PowerLaws) -> Source:
    size = images.shape[1]
    row, column = (min(max(round(x), 0), size - 1) for x in (source.row, source.column))
    mean = float(images[0, row, column])
    ratio = float(images[1, row, column]) / mean
    index = float(laws.index(ratio))
    local = noise[1] * max(source.noise / noise[0], 1.0) if noise[0] > 0 else noise[1]
    error = laws.slope(index) * math.hypot(local, ratio * source.noise) / mean
    if not (math.isfinite(index) and error <= MAX_INDEX_ERROR):
        return source
    return replace(source, spectral_index=index, spectral_index_error=error)


def _peaks(image: Image, threshold: float, beam: Beam) -> list[tuple[int, int]]:
    """Pixels that nothing within half a beam outshines, brightest first."""
    from scipy import ndimage

    reach = max(math.ceil(beam.major / 2), 1)
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    near = beam.exponents(offsets[:, None], offsets[None, :]) <= math.log(2)
    near |= np.maximum(np.abs(offsets[:, None]), np.abs(offsets[None, :])) <= 1
    highest = ndimage.maximum_filter(image, footprint=near, mode="constant", cval=-np.inf)
    rows, columns = np.nonzero((image >= highest) & (image > threshold))
    order = np.argsort(image[rows, columns])[::-1][:MAX_SOURCES]
    return [(int(rows[i]), int(columns[i])) for i in order]


def _is_ripple(flux: float, row: int, column: int, brighter: Sequence[Source], beam: Beam) -> bool:
    """Whether a peak is too faint to be told from what a brighter one does to its surroundings."""
    reach = LOCAL_BEAMS * beam.major
    return any(
        flux < FIDELITY * other.flux and math.hypot(row - other.row, column - other.column) < reach
        for other in brighter
    )


def _around(residual: Image, row: int, column: int, beam: Beam) -> Image:
    reach = math.ceil(LOCAL_BEAMS * beam.major)
    return residual[
        max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1
    ]


def _measure(image: Image, row: int, column: int, noise: float, wcs: WCS) -> Source:
    # At the border, the pixels about the next one inside hold the peak as well.
    last = image.shape[0] - 2
    row, column = min(max(row, 1), last), min(max(column, 1), last)
    values = image[row - 1 : row + 2, column - 1 : column + 2].astype(np.float64)
    row_offset, column_offset, flux = peak_of(values)
    exact_row, exact_column = row + row_offset, column + column_offset
    ra, dec = wcs.all_pix2world(exact_column, exact_row, 0)
    return Source(
        float(ra), float(dec), exact_row, exact_column, flux, noise, flux / noise if noise else 0.0
    )


def peak_of(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Offset (rows, columns) and height of the peak of 3 × 3 pixels.

    A paraboloid through the logarithms, which is exact for a Gaussian; through the values themselves where
    one is not positive. The peak is kept within half a pixel of the nine.
    """
    positive = bool(np.all(values > 0))
    heights = np.log(values) if positive else values
    y, x = (grid.ravel() for grid in np.mgrid[-1.0:2.0, -1.0:2.0])
    design = np.stack([np.ones(9), x, y, x * x, x * y, y * y], axis=1)
    c = np.linalg.lstsq(design, heights.ravel(), rcond=None)[0]
    determinant = 4 * c[3] * c[5] - c[4] ** 2
    if c[3] >= 0 or c[5] >= 0 or determinant <= 0:
        return 0.0, 0.0, float(values[1, 1])
    column = float(np.clip((c[4] * c[2] - 2 * c[5] * c[1]) / determinant, -1.5, 1.5))
    row = float(np.clip((c[4] * c[1] - 2 * c[3] * c[2]) / determinant, -1.5, 1.5))
    top = float(np.dot(c, [1.0, column, row, column * column, column * row, row * row]))
    return row, column, math.exp(top) if positive else top
