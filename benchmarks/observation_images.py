"""wsclean's image of an observation, beside the sky that was simulated and our own image of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.imaging.beam import Beam
from pipelines.imaging.clean import robust_rms
from pipelines.imaging.compare import compare
from pipelines.imaging.sources import find_sources

NITER: Final = 2000
MGAIN: Final = 0.8


@dataclass(frozen=True)
class Row:
    """A source of the simulated sky, as wsclean's image has it."""

    name: str
    expected: float
    """Jy."""
    found: float | None
    ratio: float | None
    offset: float | None
    """Pixels."""


@dataclass(frozen=True)
class ForeignImage:
    """What wsclean made."""

    version: str
    picture: Path
    rms: float
    """Robust, of the residual, Jy/beam."""
    sources: tuple[Row, ...]


def image_with_wsclean(
    measurement_set: Path, ours: Path, sky: Sequence[str], output: Path
) -> ForeignImage:
    """Image a MeasurementSet with pixels like those of our own image of the same data.

    Parameters
    ----------
    ours
        FITS file that gives size and scale.
    sky
        katpoint descriptions of the sources.
    """
    wsclean = shutil.which("wsclean")
    if wsclean is None:
        raise SystemExit("wsclean is not installed: sudo apt-get install wsclean")
    header = fits.getheader(ours)
    size, scale = header["NAXIS1"], 3600 * abs(header["CDELT1"])
    command = [wsclean, "-use-wgridder", "-size", str(size), str(size), "-scale", f"{scale}asec"]
    command += ["-pol", "i", "-weight", "briggs", "0", "-niter", str(NITER), "-mgain", str(MGAIN)]
    command += ["-auto-threshold", "3", "-j", "1", "-no-update-model-required", "-name", "wsclean"]
    done = subprocess.run(
        [*command, str(measurement_set.resolve())],
        cwd=output,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (output / "logs" / "wsclean.log").write_text(done.stdout)
    image, residual = (_plane(output / f"wsclean-{kind}.fits") for kind in ("image", "residual"))
    header = fits.getheader(output / "wsclean-image.fits")
    header.remove("DATE-OBS")  # astropy would remark that MJD-OBS is not there
    wcs = WCS(header).celestial
    beam = Beam(
        header["BMAJ"] / abs(header["CDELT1"]),
        header["BMIN"] / abs(header["CDELT1"]),
        np.radians(header["BPA"]),
    )
    matches = compare(
        find_sources(image, residual, beam, wcs), sky, wcs, np.array([header["CRVAL3"]])
    )
    rms = robust_rms(residual)
    picture = output / "wsclean.png"
    _draw(picture, image, rms, wcs)
    version = next(line for line in done.stdout.splitlines() if line.startswith("WSClean version"))
    rows = tuple(
        Row(m.name, m.expected, None if m.source is None else m.source.flux, m.ratio, m.offset)
        for m in matches
        if m.name is not None and m.expected is not None
    )
    return ForeignImage(version, picture, rms, rows)


def _plane(path: Path) -> NDArray[np.float32]:
    with fits.open(path) as hdus:
        return np.ascontiguousarray(hdus[0].data[0, 0], np.float32)


def _draw(path: Path, image: NDArray[np.float32], rms: float, wcs: Any) -> None:
    """Draw an image with its coordinates into a PNG file."""
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(8, 7), dpi=100)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(projection=wcs)
        norm = AsinhNorm(4 * rms, vmin=-5 * rms, vmax=float(image.max()))
        shown = axes.imshow(image, origin="lower", cmap="inferno", norm=norm)
        axes.set_xlabel("right ascension")
        axes.set_ylabel("declination")
        axes.set_title("wsclean's image of the converted data set")
        figure.colorbar(shown, label="Jy/beam")
        figure.savefig(path)
