"""The components of CLEAN as a file: what an image explains, for those who want to take it away or predict it.

A FITS binary table, a component a row: its place, and the coefficients of its flux density as a polynomial in
``ν/ν0 - 1``. The header has the reference frequency ν0 and the grid on which the components stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from pipelines.imaging.arrays import Image
from pipelines.imaging.errors import ImagingError
from pipelines.imaging.files import replacing
from pipelines.imaging.fits import ImageFacts, printable
from pipelines.imaging.geometry import ImageGrid
from pipelines.imaging.spectrum import Basis

EXTENSION = "COMPONENTS"
MAX_TERMS = 16


@dataclass(frozen=True)
class Components:
    """Point sources on a grid.

    Attributes
    ----------
    rows, columns : int64 (components,)
        Pixels.
    flux : float64 (components, powers)
        Coefficients of the flux density in powers of ``ν / reference - 1``, Jy.
    reference : float
        Hz.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    flux: npt.NDArray[np.float64]
    reference: float

    def image(self, grid: ImageGrid, frequency: float) -> Image:
        """Model image at a frequency, float32 (size, size), Jy per pixel."""
        image = np.zeros((grid.size, grid.size), np.float32)
        powers = (frequency / self.reference - 1) ** np.arange(self.flux.shape[1])
        image[self.rows, self.columns] = self.flux @ powers
        return image


def components_of(model: Image, basis: Basis) -> Components:
    """Components of a model, float32 (terms, size, size), Jy per pixel."""
    rows, columns = np.nonzero(model.any(axis=0))
    flux = model[:, rows, columns].T.astype(np.float64) @ basis.polynomials()
    return Components(rows, columns, flux, basis.reference)


def write_components(path: Path, components: Components, facts: ImageFacts) -> None:
    """Write a table of components."""
    columns = [
        fits.Column("ROW", "J", array=components.rows),
        fits.Column("COLUMN", "J", array=components.columns),
        fits.Column("FLUX", f"{components.flux.shape[1]}D", unit="Jy", array=components.flux),
    ]
    table = fits.BinTableHDU.from_columns(columns, name=EXTENSION)
    header = table.header
    header["REFFREQ"] = (components.reference, "[Hz] FLUX is a polynomial in f/REFFREQ - 1")
    header["NTERMS"] = components.flux.shape[1]
    header["SIZE"] = (facts.grid.size, "pixels along a side; rows to the north")
    header["PIXEL"] = (facts.grid.pixel, "[rad] side of a pixel; columns to the west")
    header["RA"], header["DEC"] = (facts.ra, "[rad] ICRS, centre"), (facts.dec, "[rad]")
    header["OBJECT"] = printable(facts.target)
    with replacing(path) as temporary:
        table.writeto(temporary, overwrite=True)


def read_components(path: Path) -> tuple[Components, ImageGrid, tuple[float, float]]:
    """Read a table of components, its grid, and the phase centre (radians, ICRS).

    Raises
    ------
    ImagingError
        There is no such table, or it makes no sense.
    """
    try:
        with fits.open(path) as hdus:
            table, header = hdus[EXTENSION].data, hdus[EXTENSION].header
            grid = ImageGrid(int(header["SIZE"]), float(header["PIXEL"]))
            flux = np.asarray(table["FLUX"], np.float64).reshape(len(table), int(header["NTERMS"]))
            found = Components(
                np.asarray(table["ROW"], np.int64),
                np.asarray(table["COLUMN"], np.int64),
                flux,
                float(header["REFFREQ"]),
            )
            centre = (float(header["RA"]), float(header["DEC"]))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ImagingError(f"cannot read components {path}: {error}") from error
    places = np.concatenate([found.rows, found.columns, [0]])
    if places.min() < 0 or places.max() >= grid.size or not np.all(np.isfinite(flux)):
        raise ImagingError(f"components {path} are not on their grid, or have no flux")
    if not found.reference > 0 or flux.shape[1] > MAX_TERMS:
        raise ImagingError(f"components {path} have no spectra that can be used")
    return found, grid, centre
