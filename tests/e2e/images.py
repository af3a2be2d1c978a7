"""Looking at images without the programs that made them: astropy and numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS


@dataclass(frozen=True)
class Picture:
    """A FITS image: one plane, with its coordinates."""

    header: fits.Header
    data: npt.NDArray[np.float64]
    """Jy/beam, (rows, columns)."""
    wcs: WCS

    @classmethod
    def open(cls, path: Path) -> Picture:
        """Read an image, whatever degenerate axes it has."""
        with fits.open(path) as hdus:
            header, data = hdus[0].header, hdus[0].data
        return cls(header, np.asarray(np.squeeze(data), np.float64), WCS(header).celestial)

    @property
    def beam_pixels(self) -> float:
        """Area of the restoring beam in pixels."""
        pixel = abs(self.header["CDELT1"] * self.header["CDELT2"])
        return float(np.pi / (4 * np.log(2)) * self.header["BMAJ"] * self.header["BMIN"] / pixel)

    def place(self, where: SkyCoord) -> tuple[float, float]:
        """Column and row of a direction, from 0."""
        column, row = self.wcs.world_to_pixel(where)
        return float(column), float(row)

    def noise(self) -> float:
        """Standard deviation of the pixels, by their median deviation, Jy/beam."""
        return float(1.4826 * np.median(np.abs(self.data - np.median(self.data))))

    def box(self, column: float, row: float, reach: int) -> npt.NDArray[np.float64]:
        """Pixels about a place."""
        x, y = round(column), round(row)
        return self.data[y - reach : y + reach + 1, x - reach : x + reach + 1]

    def peak_near(self, column: float, row: float, reach: int = 4) -> tuple[float, float, float]:
        """Column, row and height of the highest point about a place, between the pixels too.

        Parabolas through the logarithms of three pixels along each axis: exact for an upright Gaussian.
        """
        box = self.box(column, row, reach)
        dy, dx = np.unravel_index(np.argmax(box), box.shape)
        x, y = round(column) - reach + int(dx), round(row) - reach + int(dy)
        height = float(np.log(self.data[y, x]))
        found = [float(x), float(y)]
        for axis, (before, after) in enumerate(
            ((self.data[y, x - 1], self.data[y, x + 1]), (self.data[y - 1, x], self.data[y + 1, x]))
        ):
            low, middle, high = np.log(before), np.log(self.data[y, x]), np.log(after)
            offset = (low - high) / (2 * (low - 2 * middle + high))
            found[axis] += float(offset)
            height -= float(0.25 * (low - high) * offset)
        return found[0], found[1], float(np.exp(height))
