"""The picture of a cube: the brightest value along each line of sight, and the spectrum at the peak."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from astropy.utils import iers
from astropy.visualization.wcsaxes import WCSAxes
from astropy.wcs import WCS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from pipelines.imaging.cube import CubeReader
from pipelines.imaging.cube_quality import CubeQuality, PeakMap
from pipelines.imaging.files import replacing
from pipelines.imaging.picture import ACCENT, INK, PAPER, STYLE, brightness, dress_axes

WIDTH, HEIGHT, DPI = 14.0, 6.6, 100


def write_cube_picture(
    path: Path,
    cube: CubeReader,
    peak: PeakMap,
    spectrum: npt.NDArray[np.float64],
    quality: CubeQuality,
) -> None:
    """Draw the picture into a PNG file of 1400 × 660 pixels.

    Parameters
    ----------
    path : Path
        The file.
    cube : CubeReader
        The cube.
    peak : PeakMap
        Brightest value along each line of sight.
    spectrum : float64 (channels,)
        Brightness at the peak, Jy/beam; not a number where there is none.
    quality : CubeQuality
        Its figures.
    """
    # A cluster's nodes need not reach the outside; what astropy brings is enough for coordinates.
    iers.conf.auto_download = False
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=PAPER)
        FigureCanvasAgg(figure)
        _draw_map(figure, cube, peak, quality)
        _draw_spectrum(figure, cube, spectrum)
        _write_title(figure, cube, quality)
        with replacing(path) as temporary:
            figure.savefig(temporary, facecolor=PAPER)


def _draw_map(figure: Figure, cube: CubeReader, peak: PeakMap, quality: CubeQuality) -> None:
    wcs = WCS(cube.header).celestial
    axes = WCSAxes(figure, [0.075, 0.09, 0.36, 0.765], wcs=wcs)
    figure.add_axes(axes)
    noise = quality.rms_median if math.isfinite(quality.rms_median) else 0.0
    top = quality.peak if math.isfinite(quality.peak) else 0.0
    noise = max(noise, abs(top) * 1e-6, 1e-30)
    axes.imshow(
        peak.values,
        origin="lower",
        cmap="inferno",
        norm=AsinhNorm(4 * noise, vmin=-noise, vmax=max(top, 10 * noise)),
        interpolation="nearest",
    )
    dress_axes(axes)
    radius = 0.02 * cube.size
    place = (peak.column, peak.row)
    axes.add_patch(Circle(place, radius, fill=False, edgecolor=ACCENT, linewidth=1.3))


def _draw_spectrum(figure: Figure, cube: CubeReader, spectrum: npt.NDArray[np.float64]) -> None:
    axes = figure.add_axes((0.535, 0.09, 0.435, 0.765))
    axes.set_facecolor("black")
    frequencies = np.array([channel.frequency for channel in cube.channels]) / 1e6
    noise = np.array([channel.rms for channel in cube.channels])
    largest = float(np.nanmax(np.abs(spectrum), initial=0.0))
    scale, unit = (1.0, "Jy") if largest >= 1 else (1e3, "mJy")
    axes.fill_between(
        frequencies, -3 * scale * noise, 3 * scale * noise, step="mid", color=INK, alpha=0.2, lw=0
    )
    axes.step(frequencies, scale * spectrum, where="mid", color=ACCENT, linewidth=1.4)
    axes.axhline(0, color=INK, linewidth=0.6, alpha=0.6)
    axes.set_xlabel("Frequency (MHz)")
    axes.set_ylabel(f"Brightness at the peak ({unit}/beam)")
    axes.ticklabel_format(useOffset=False)
    axes.grid(color=INK, alpha=0.12, linewidth=0.7)
    axes.text(0.02, 0.97, "grey: ±3 noise", transform=axes.transAxes, va="top", alpha=0.7)


def _write_title(figure: Figure, cube: CubeReader, quality: CubeQuality) -> None:
    # The name of a target is no formula, whatever dollar signs it has.
    title = {"fontsize": 19, "fontweight": "bold", "va": "center", "parse_math": False}
    figure.text(0.075, 0.945, quality.target[:40], title)
    width = abs(float(cube.header["CDELT3"])) / 1e3
    facts = [
        f"{quality.channels} channels of {width:.4g} kHz",
        f"beam {quality.beam_major_smallest:.3g}–{quality.beam_major_largest:.3g}″",
        f"noise {brightness(quality.rms_median)}/beam",
        f"peak {brightness(quality.peak)}/beam in channel {quality.peak_channel}",
    ]
    if quality.channels_without_data:
        facts.append(f"{quality.channels_without_data} channels without data")
    figure.text(0.075, 0.9, "   ·   ".join(facts), fontsize=9.5, va="center", alpha=0.8)
    block = f"capture block {quality.capture_block_id}" if quality.capture_block_id else ""
    figure.text(0.97, 0.945, block, fontsize=11, va="center", ha="right")
