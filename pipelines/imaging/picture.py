"""The picture for people: the image with coordinates, beam, scale and the sources that were found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from astropy.utils import iers
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from matplotlib.ticker import FuncFormatter

from pipelines.imaging.arrays import Image
from pipelines.imaging.files import replacing
from pipelines.imaging.fits import ImageFacts, iso
from pipelines.imaging.geometry import ARCSEC, celestial_wcs
from pipelines.imaging.quality import Quality
from pipelines.imaging.sources import Source

WIDTH, HEIGHT, DPI = 10.0, 9.0, 100
MAX_LABELS = 25
INK, PAPER, ACCENT = "#e8e6e3", "#12141a", "#6fd3ff"
STYLE: dict[Any, Any] = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 11,
}


def write_picture(
    path: Path, image: Image, facts: ImageFacts, quality: Quality, sources: Sequence[Source]
) -> None:
    """Draw the image into a PNG file of 1000 × 900 pixels."""
    # A cluster's nodes need not reach the outside; what astropy brings is enough for coordinates.
    iers.conf.auto_download = False
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=PAPER)
        FigureCanvasAgg(figure)
        _draw(figure, image, facts, quality, sources)
        with replacing(path) as temporary:
            figure.savefig(temporary, facecolor=PAPER)


def _draw(
    figure: Figure,
    image: Image,
    facts: ImageFacts,
    quality: Quality,
    sources: Sequence[Source],
) -> None:
    axes = WCSAxes(
        figure, [0.135, 0.085, 0.71, 0.789], wcs=celestial_wcs(facts.grid, facts.ra, facts.dec)
    )
    figure.add_axes(axes)
    scale, unit = (1.0, "Jy") if quality.peak >= 1 else (1e3, "mJy")
    noise = max(quality.rms, quality.peak * 1e-6, 1e-30) * scale
    shown = axes.imshow(
        image * scale,
        origin="lower",
        cmap="inferno",
        # Linear near the noise, logarithmic above: faint and bright in one picture.
        norm=AsinhNorm(4 * noise, vmin=-5 * noise, vmax=max(quality.peak * scale, 10 * noise)),
        interpolation="nearest",
    )
    dress_axes(axes)
    _mark_sources(axes, facts, sources)
    _draw_beam(axes, facts)
    _draw_scale(figure, shown, noise, quality.peak * scale, f"{unit}/beam")
    _write_title(figure, facts, quality)


def dress_axes(axes: WCSAxes) -> None:
    """Give a map its coordinates."""
    axes.set_facecolor("black")
    axes.coords[0].set_axislabel("Right ascension (ICRS)", minpad=0.8)
    axes.coords[1].set_axislabel("Declination (ICRS)", minpad=0.4)
    for coordinate in axes.coords:
        coordinate.set_ticks(number=6)
        coordinate.set_ticklabel(exclude_overlapping=True)
    axes.coords.grid(color=INK, alpha=0.12, linewidth=0.7)


def _mark_sources(axes: WCSAxes, facts: ImageFacts, sources: Sequence[Source]) -> None:
    size = facts.grid.size
    radius = max(1.6 * facts.beam.major, 0.012 * size)
    for number, source in enumerate(sources[:MAX_LABELS], 1):
        place = (source.column, source.row)
        axes.add_patch(Circle(place, radius, fill=False, edgecolor=ACCENT, linewidth=1.1))
        left = source.column > 0.8 * size
        axes.annotate(
            f"{number}  {brightness(source.flux)}",
            place,
            xytext=(source.column + (-1.5 if left else 1.5) * radius, source.row),
            ha="right" if left else "left",
            va="center",
            color=ACCENT,
            fontsize=9.5,
            annotation_clip=True,
        )


def brightness(flux: float) -> str:
    """Flux density with three digits and the unit that suits it.

    >>> brightness(0.0123456)
    '12.3 mJy'
    """
    # A little below one: 0.9996 has three digits as 1.00, and would be 1e+03 in the smaller unit.
    for limit, factor, unit in ((0.9995, 1.0, "Jy"), (0.9995e-3, 1e3, "mJy")):
        if abs(flux) >= limit:
            return f"{flux * factor:.3g} {unit}"
    return f"{flux * 1e6:.3g} µJy"


def _draw_beam(axes: WCSAxes, facts: ImageFacts) -> None:
    """In the corner: the beam, in a frame that is never smaller than can be seen."""
    size, beam = facts.grid.size, facts.beam
    frame = max(1.8 * beam.major, 0.05 * size)
    corner = 0.02 * size
    axes.add_patch(
        mpl.patches.Rectangle(
            (corner, corner),
            frame,
            frame,
            facecolor=PAPER,
            edgecolor=INK,
            linewidth=0.8,
            alpha=0.85,
        )
    )
    axes.add_patch(
        Ellipse(
            (corner + frame / 2, corner + frame / 2),
            beam.minor,
            beam.major,
            # Counter-clockwise on paper from north is towards east: east is left.
            angle=math.degrees(beam.angle),
            facecolor=INK,
            edgecolor="none",
        )
    )


def _draw_scale(
    figure: Figure, shown: ScalarMappable, noise: float, peak: float, unit: str
) -> None:
    bar_axes = figure.add_axes((0.865, 0.085, 0.022, 0.789))
    bar = figure.colorbar(shown, cax=bar_axes, ticks=scale_ticks(noise, peak))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    bar.ax.minorticks_off()
    bar.set_label(unit)
    bar.outline.set_edgecolor(INK)


def scale_ticks(noise: float, peak: float) -> list[float]:
    """Zero and the numbers 1, 2, 5 × 10^n (1 × 10^n if those are many) between the noise and the peak."""
    low, high = 5 * noise, max(peak, 10 * noise)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 5 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [0.0, *(tick for tick in ticks if low <= tick <= high)]


def _write_title(figure: Figure, facts: ImageFacts, quality: Quality) -> None:
    # The name of a target is no formula, whatever dollar signs it has.
    title = {"fontsize": 19, "fontweight": "bold", "va": "center", "parse_math": False}
    figure.text(0.135, 0.945, facts.target[:40], title)
    figure.text(0.135, 0.907, _facts_line(facts, quality), fontsize=9.5, va="center", alpha=0.8)
    block = f"capture block {facts.capture_block}" if facts.capture_block else ""
    figure.text(0.97, 0.951, block, fontsize=11, va="center", ha="right")
    begin = iso(facts.start)[:19].replace("T", " ")
    figure.text(0.97, 0.928, f"{begin} UTC", fontsize=9.5, va="center", ha="right", alpha=0.8)


def _facts_line(facts: ImageFacts, quality: Quality) -> str:
    pixel = facts.grid.pixel / ARCSEC
    return "   ·   ".join(
        [
            (f"{facts.telescope[:20]}, " if facts.telescope else "")
            + f"{facts.frequency / 1e6:.0f} MHz ± {facts.bandwidth / 2e6:.0f}",
            f"beam {facts.beam.major * pixel:.3g}″ × {facts.beam.minor * pixel:.3g}″",
            f"noise {brightness(quality.rms)}/beam",
            f"peak/noise {quality.signal_to_noise:,.0f}",
            f"{quality.sources} source{'' if quality.sources == 1 else 's'}",
        ]
    )
