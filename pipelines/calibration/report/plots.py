"""The plots of a report, as PNG files in memory. Drawn with objects of their own, so any thread may."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from pipelines.calibration.report.record import BlockRecord
from pipelines.common.baselines import POLARISATIONS

WIDTH, ROW, DPI = 11.0, 2.6, 90
MAX_NAMES: Final = 24
"""Antennas that have their names on an axis."""
MHZ: Final = 1e6
ONE: Final = "#1f77b4"


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture and what it shows."""

    title: str
    caption: str
    png: bytes


def plots(record: BlockRecord) -> Iterator[Plot]:
    """Draw what there is of a block."""
    if record.delays:
        yield _delays(record)
    if record.bandpass is not None:
        yield _bandpass(record, record.bandpass)
    if record.gains:
        yield _gains(record)
    if record.polarisation.leakage is not None:
        yield _leakage(record, record.polarisation.leakage)
    if record.polarisation.phase is not None:
        yield _cross_phase(record, record.polarisation.phase)
    if record.snr:
        yield _quality(record)
    if record.flagged is not None:
        yield _flags(record, record.flagged)


def _figure(rows: int, columns: int, **options: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, ROW * rows + 0.3), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _png(figure: Figure) -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _colours() -> Colormap:
    return colormaps["turbo"]


def _of_antennas(record: BlockRecord, figure: Figure, axes: Any) -> None:
    """Draw the scale of colours that tells the antennas' lines apart."""
    n = len(record.antennas)
    scale = ScalarMappable(Normalize(-0.5, n - 0.5), _colours().resampled(n))
    bar = figure.colorbar(scale, ax=axes, fraction=0.03, pad=0.01)
    ticks = _ticks(n)
    bar.set_ticks(list(ticks), labels=[record.antennas[i] for i in ticks])
    bar.ax.tick_params(labelsize=7)


def _ticks(n: int) -> range:
    return range(0, n, -(-n // MAX_NAMES))


def _lines(axes: Any, x: Any, values: npt.NDArray[Any], style: str) -> None:
    """Draw (point, ant), each antenna in its colour."""
    colours = _colours().resampled(values.shape[1])
    for ant in range(values.shape[1]):
        axes.plot(x, values[:, ant], style, color=colours(ant), linewidth=0.8, markersize=2.5)
    axes.grid(alpha=0.3)


def _antenna_axis(record: BlockRecord, axes: Any) -> None:
    ticks = _ticks(len(record.antennas))
    axes.set_xticks(list(ticks), [record.antennas[i] for i in ticks], rotation=90, fontsize=7)
    axes.grid(alpha=0.3)


def _amplitudes_and_phases(
    record: BlockRecord, x: Any, values: npt.NDArray[Any], style: str
) -> Any:
    """Draw (point, pol, ant): amplitudes above, phases below, h left and v right."""
    figure, axes = _figure(2, 2, sharex=True, sharey="row")
    for pol, name in enumerate(POLARISATIONS):
        _lines(axes[0, pol], x, np.abs(values[:, pol]), style)
        _lines(axes[1, pol], x, np.degrees(np.angle(values[:, pol])), style)
        axes[0, pol].set_title(name)
    axes[0, 0].set_ylabel("amplitude")
    axes[1, 0].set_ylabel("phase [deg]")
    _of_antennas(record, figure, axes)
    return figure, axes


def _delays(record: BlockRecord) -> Plot:
    figure, axes = _figure(1, 2, sharey=True)
    for pol, name in enumerate(POLARISATIONS):
        for age, (_, delays) in enumerate(reversed(record.delays)):
            axes[0, pol].plot(delays[pol] * 1e9, ".", color=ONE, alpha=max(0.15, 1 - 0.2 * age))
        axes[0, pol].set_title(name)
        _antenna_axis(record, axes[0, pol])
    axes[0, 0].set_ylabel("delay [ns]")
    what = f"Of {len(record.delays)} scans, the newest darkest; relative to {record.refant}."
    return Plot("Delays (K)", what, _png(figure))


def _bandpass(record: BlockRecord, bandpass: npt.NDArray[np.complex64]) -> Plot:
    figure, axes = _amplitudes_and_phases(record, record.drawn / MHZ, bandpass, "-")
    for pol in range(len(POLARISATIONS)):
        axes[1, pol].set_xlabel("frequency [MHz]")
    return Plot("Bandpass (B)", "The newest; gaps are channels without a solution.", _png(figure))


def _gains(record: BlockRecord) -> Plot:
    minutes = (np.array(record.gain_times) - record.gain_times[0]) / 60
    figure, axes = _amplitudes_and_phases(record, minutes, np.stack(record.gains), ".")
    start = datetime.fromtimestamp(record.gain_times[0], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    for pol in range(len(POLARISATIONS)):
        axes[1, pol].set_xlabel(f"minutes since {start}")
    return Plot("Gains (G)", f"Against time, {len(record.gains)} of each input.", _png(figure))


def _leakage(record: BlockRecord, leakage: npt.NDArray[np.complex64]) -> Plot:
    figure, axes = _figure(1, 2, sharey=True)
    freqs = record.freqs[:: -(-len(record.freqs) // len(leakage))] / MHZ
    for pol, name in enumerate(POLARISATIONS):
        _lines(axes[0, pol], freqs, 100 * np.abs(leakage[:, pol]), "-")
        axes[0, pol].set_title(f"into {name}")
        axes[0, pol].set_xlabel("frequency [MHz]")
    axes[0, 0].set_ylabel("leakage [%]")
    _of_antennas(record, figure, axes)
    return Plot("Leakage (D)", f"That into h of {record.refant} is called 0.", _png(figure))


def _cross_phase(record: BlockRecord, phase: npt.NDArray[np.complex64]) -> Plot:
    figure, axes = _figure(1, 1)
    axes[0, 0].plot(record.freqs / MHZ, np.degrees(np.angle(phase)), ".", markersize=2, color=ONE)
    axes[0, 0].set_xlabel("frequency [MHz]")
    axes[0, 0].set_ylabel("phase of h - v [deg]")
    axes[0, 0].grid(alpha=0.3)
    delay = 0.0 if record.polarisation.delay is None else record.polarisation.delay * 1e9
    what = f"What is left after a cross-hand delay of {delay:.3f} ns."
    return Plot("Phase between polarisations (KCROSS, BCROSS_SKY)", what, _png(figure))


def _quality(record: BlockRecord) -> Plot:
    figure, axes = _figure(1, 2, sharey=True)
    for pol, name in enumerate(POLARISATIONS):
        for product, snr in sorted(record.snr.items()):
            shown = np.where(snr[pol] > 0, np.minimum(snr[pol], 1e6), np.nan)
            axes[0, pol].plot(shown, ".", label=product)
        axes[0, pol].set_yscale("log")
        axes[0, pol].set_title(name)
        _antenna_axis(record, axes[0, pol])
    axes[0, 0].set_ylabel("signal to noise")
    axes[0, 1].legend(fontsize=8)
    what = (
        "Of the newest scan: gains and bandpass over their standard errors (medians over time and "
        "channels), delays by the phases that they were measured from. No point: no solution."
    )
    return Plot("Quality", what, _png(figure))


def _flags(record: BlockRecord, flagged: npt.NDArray[np.float64]) -> Plot:
    figure, axes = _figure(1, 1)
    freqs, n = record.drawn / MHZ, len(record.antennas)
    shown = axes[0, 0].imshow(
        100 * flagged.T,
        aspect="auto",
        interpolation="nearest",
        vmin=0,
        vmax=100,
        extent=(float(freqs[0]), float(freqs[-1]), n - 0.5, -0.5),
    )
    axes[0, 0].set_xlabel("frequency [MHz]")
    axes[0, 0].set_yticks(list(_ticks(n)), [record.antennas[i] for i in _ticks(n)], fontsize=7)
    figure.colorbar(shown, ax=axes, pad=0.01, label="flagged or lost [%]")
    mean = float(100 * flagged.mean())
    return Plot("Flags", f"Of the calibrators' scans: {mean:.1f} % in the mean.", _png(figure))
