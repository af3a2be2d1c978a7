"""FITS images as other programs of the field expect them.

Four axes (right ascension, declination, frequency, Stokes), brightness in Jy/beam, the beam in degrees; FITS
standard 4.0 and the AIPS convention for ``BMAJ``, ``BMIN``, ``BPA``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from astropy.io import fits

from pipelines.imaging.arrays import Image
from pipelines.imaging.beam import Beam
from pipelines.imaging.files import replacing
from pipelines.imaging.geometry import ImageGrid

MJD_OF_UNIX_EPOCH = 40587.0
LIBRARIES = ("katdal", "ducc0", "numpy", "astropy")


@dataclass(frozen=True)
class ImageFacts:
    """What a FITS header says.

    Attributes
    ----------
    grid : ImageGrid
        Geometry.
    ra, dec : float
        Phase centre, ICRS, radians.
    beam : Beam
        Restoring beam.
    frequency, bandwidth : float
        Mean frequency and width of the band, Hz.
    target, telescope, capture_block : str
        What was observed, by what, and when it was asked for.
    start, end : float
        Unix seconds at which the first dump begins and the last ends.
    history : sequence of str
        How the image was made.
    """

    grid: ImageGrid
    ra: float
    dec: float
    beam: Beam
    frequency: float
    bandwidth: float
    target: str
    telescope: str
    capture_block: str
    start: float
    end: float
    history: Sequence[str]


def image_header(facts: ImageFacts) -> fits.Header:
    """Make the header of an image."""
    header = fits.Header()
    header["WCSAXES"] = 4
    pixel, centre = math.degrees(facts.grid.pixel), facts.grid.centre + 1.0
    header.update(_axis(1, "RA---SIN", math.degrees(facts.ra) % 360, -pixel, "deg", centre))
    header.update(_axis(2, "DEC--SIN", math.degrees(facts.dec), pixel, "deg", centre))
    header["RADESYS"] = "ICRS"
    header.update(_axis(3, "FREQ", facts.frequency, facts.bandwidth, "Hz"))
    header.update(_axis(4, "STOKES", 1.0, 1.0, ""))
    header["SPECSYS"] = "TOPOCENT"
    header["BUNIT"] = "Jy/beam"
    header["BTYPE"] = "Intensity"
    header["BMAJ"] = (facts.beam.major * pixel, "[deg] beam, full width at half maximum")
    header["BMIN"] = (facts.beam.minor * pixel, "[deg]")
    header["BPA"] = (math.degrees(facts.beam.angle), "[deg] from north through east")
    header["OBJECT"] = printable(facts.target)
    if facts.telescope:
        header["TELESCOP"] = printable(facts.telescope)
    header["CBID"] = (printable(facts.capture_block), "capture block")
    header["DATE-OBS"] = (iso(facts.start), "UTC, start")
    header["DATE-END"] = (iso(facts.end), "UTC, end")
    header["MJD-OBS"] = facts.start / 86400 + MJD_OF_UNIX_EPOCH
    header["MJD-END"] = facts.end / 86400 + MJD_OF_UNIX_EPOCH
    header["DATE"] = (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"), "UTC, file written")
    header["ORIGIN"] = "pipelines.imaging"
    for line in (*facts.history, *library_versions()):
        header.add_history(printable(line))
    return header


def index_header(facts: ImageFacts) -> fits.Header:
    """Make the header of a map of spectral indices."""
    header = image_header(facts)
    header["BUNIT"], header["BTYPE"] = "", "SPIX"
    return header


def _axis(
    number: int, kind: str, value: float, step: float, unit: str, place: float = 1.0
) -> fits.Header:
    header = fits.Header()
    header[f"CTYPE{number}"] = kind
    header[f"CRPIX{number}"] = place
    header[f"CRVAL{number}"] = value
    header[f"CDELT{number}"] = step
    header[f"CUNIT{number}"] = unit
    return header


def library_versions() -> list[str]:
    """Versions of what the image depends on."""
    return [f"{name} {version(name)}" for name in LIBRARIES]


def printable(text: str) -> str:
    """Text as FITS can hold it: printable ASCII, 68 characters."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:68]


def iso(seconds: float) -> str:
    """Unix time as FITS writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def write_fits(path: Path, image: Image, header: fits.Header) -> None:
    """Write one image, in single precision."""
    hdu = fits.PrimaryHDU(np.asarray(image, np.float32)[None, None], header)
    with replacing(path) as temporary:
        hdu.writeto(temporary, overwrite=True)
