"""Size, pixels and world coordinates of an image.

Images are arrays ``[row, column]`` in FITS order: rows grow to the north (m), columns to the west, that is,
against right ascension (l). The phase centre is the pixel ``[size // 2, size // 2]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.imaging.errors import SettingsError

if TYPE_CHECKING:
    from astropy.wcs import WCS

SPEED_OF_LIGHT = 299_792_458.0
"""Metres per second."""

ARCSEC = math.pi / (180 * 3600)
"""One arc second in radians."""

PIXELS_PER_BEAM = 5.0
"""Sampling that is aimed at; the beam is about one over the longest baseline in wavelengths."""

MIN_PIXELS_PER_BEAM = 3.0
"""Sampling that is accepted before the field is made smaller than the primary beam."""

MIN_SIZE = 64
MAX_DEFAULT_SIZE = 2048
MAX_SIZE = 16384
MAX_FIELD = 0.7
"""Direction cosines (40 degrees): the point spread function is twice as wide, and ends at the horizon."""

# FWHM of the power beam of a dish with the usual taper, in units of wavelength / diameter. MeerKAT's
# measured 1.1 degrees at 1284 MHz with 13.5 m give 1.12 (Mauch et al. 2020, ApJ 888, 61, section 3).
BEAM_FACTOR = 1.12
FIELD_IN_BEAMS = 1.2

Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ImageGrid:
    """A square image.

    Attributes
    ----------
    size : int
        Pixels along each side, even.
    pixel : float
        Side of a pixel, in radians (direction cosines).
    """

    size: int
    pixel: float

    def __post_init__(self) -> None:
        if self.size % 2 or not MIN_SIZE <= self.size <= 2 * MAX_SIZE:
            raise SettingsError(
                f"image size {self.size}: must be even and between {MIN_SIZE} and {MAX_SIZE}"
            )
        if not (math.isfinite(self.pixel) and self.pixel > 0):
            raise SettingsError(f"pixel size {self.pixel / ARCSEC:g} arcsec: must be positive")
        if self.field > 2 * MAX_FIELD:
            raise SettingsError(
                f"{self.size} pixels of {self.pixel / ARCSEC:.4g} arcsec are a field of"
                f" {math.degrees(self.field):.3g} degrees: at most {math.degrees(MAX_FIELD):.0f};"
                " choose a smaller --size or --pixel"
            )

    @property
    def centre(self) -> int:
        """Row and column of the phase centre."""
        return self.size // 2

    @property
    def field(self) -> float:
        """Side of the field in radians (direction cosines)."""
        return self.size * self.pixel

    def to_pixels(self, l: Pixels, m: Pixels) -> tuple[Pixels, Pixels]:  # noqa: E741 - the field's name
        """Row and column (fractional) of direction cosines."""
        return self.centre + m / self.pixel, self.centre - l / self.pixel


def good_size(minimum: int) -> int:
    """Smallest even number with no prime factor above 5 that is not below `minimum`.

    >>> good_size(1430)
    1440
    """
    size = max(minimum + minimum % 2, 2)
    while _largest_factor_free(size) != 1:
        size += 2
    return size


def _largest_factor_free(number: int) -> int:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number


def primary_beam(diameter: float, frequency: float) -> float:
    """Full width at half maximum of a dish's power beam, in radians."""
    return BEAM_FACTOR * SPEED_OF_LIGHT / frequency / diameter


def choose_grid(
    longest: float,
    beam: float,
    *,
    size: int | None = None,
    pixel: float | None = None,
) -> ImageGrid:
    """Choose what the user did not.

    The aim is `PIXELS_PER_BEAM` pixels over the synthesised beam in a field somewhat larger than the primary
    beam. Where that takes more than `MAX_DEFAULT_SIZE` pixels, they are made coarser, and only below
    `MIN_PIXELS_PER_BEAM` the field is cut.

    Parameters
    ----------
    longest : float
        Longest baseline, in wavelengths.
    beam : float
        Primary beam, radians.
    size : int, optional
        Pixels along a side, if the user said.
    pixel : float, optional
        Side of a pixel in radians, if the user said.

    Raises
    ------
    SettingsError
        No image can be made with these.
    """
    if not (math.isfinite(longest) and longest > 0):
        raise SettingsError("all baselines have length zero; there is nothing to image")
    field = min(FIELD_IN_BEAMS * beam, MAX_FIELD)
    if pixel is None:
        pixel = _choose_pixel(longest, field, size)
    if size is None:
        size = _choose_size(pixel, field)
    if size > MAX_SIZE:
        raise SettingsError(f"image size {size}: at most {MAX_SIZE}")
    grid = ImageGrid(size, pixel)
    if grid.field > MAX_FIELD * (1 + 1e-9):
        raise SettingsError(
            f"a field of {math.degrees(grid.field):.3g} degrees: at most"
            f" {math.degrees(MAX_FIELD):.0f}; choose a smaller --size or --pixel"
        )
    return grid


def _choose_pixel(longest: float, field: float, size: int | None) -> float:
    fine, coarse = 1 / (PIXELS_PER_BEAM * longest), 1 / (MIN_PIXELS_PER_BEAM * longest)
    if size is None:
        return min(max(fine, field / MAX_DEFAULT_SIZE), coarse, MAX_FIELD / MIN_SIZE)
    return min(fine, MAX_FIELD / max(size, 1))


def _choose_size(pixel: float, field: float) -> int:
    if not (math.isfinite(pixel) and pixel > 0):
        raise SettingsError(f"pixel size {pixel / ARCSEC:g} arcsec: must be positive")
    # 1e-9: a field of exactly MAX_DEFAULT_SIZE pixels must not become one more by rounding.
    wanted = math.ceil(min(field / pixel - 1e-9, MAX_DEFAULT_SIZE))
    widest = 2 * math.floor(min(MAX_FIELD / pixel, MAX_DEFAULT_SIZE) / 2 + 1e-9)
    return min(good_size(max(wanted, MIN_SIZE)), widest)


def celestial_wcs(grid: ImageGrid, ra: float, dec: float) -> WCS:
    """Two-dimensional world coordinates, orthographic projection (SIN), ICRS.

    Parameters
    ----------
    grid : ImageGrid
        The image.
    ra, dec : float
        Phase centre, in radians.
    """
    from astropy.wcs import WCS  # takes a while to load, and not every image is looked at

    step = math.degrees(grid.pixel)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [math.degrees(ra) % 360.0, math.degrees(dec)]
    wcs.wcs.crpix = [grid.centre + 1, grid.centre + 1]  # FITS counts from one
    wcs.wcs.cdelt = [-step, step]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def direction_cosines(
    ra: Pixels | float, dec: Pixels | float, ra0: float, dec0: float
) -> tuple[Pixels, Pixels, Pixels]:
    """Direction cosines of places on the sky about a phase centre.

    Thompson, Moran and Swenson, *Interferometry and Synthesis in Radio Astronomy*, 3rd ed., equation 3.1 ff.;
    all angles in radians. Places behind the phase centre's hemisphere have n < 0.

    Returns
    -------
    l, m, n : array
        Towards east, north and the phase centre.
    """
    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    delta = ra - ra0
    east = np.cos(dec) * np.sin(delta)
    north = np.sin(dec) * math.cos(dec0) - np.cos(dec) * math.sin(dec0) * np.cos(delta)
    front = np.sin(dec) * math.sin(dec0) + np.cos(dec) * math.cos(dec0) * np.cos(delta)
    return east, north, front
