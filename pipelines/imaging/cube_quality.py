"""What a cube is worth, in figures; the cube is gone through a plane at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipelines.imaging.arrays import Image
from pipelines.imaging.cube import CubeReader
from pipelines.imaging.geometry import ARCSEC


@dataclass(frozen=True)
class CubeQuality:
    """The quality report of a cube, ``quality.json``. Its table CHANNELS has the figures of each channel.

    Attributes
    ----------
    target, capture_block_id : str
        What was observed.
    channels, channels_without_data : int
        All channels, and those that are flagged altogether.
    first_frequency, last_frequency : float
        Hz.
    size : int
        Pixels along a side.
    pixel : float
        Side of a pixel, arcsec.
    rms_median, rms_worst : float
        Robust rms of the residuals of the channels, Jy/beam.
    beam_major_smallest, beam_major_largest : float
        Full widths of the channels' restoring beams, arcsec.
    peak : float
        Brightest pixel of all channels, Jy/beam.
    peak_row, peak_column, peak_channel : int
        Where it is.
    residual_peak : float
        Largest absolute residual of all channels, Jy/beam.
    dynamic_range : float
        `peak` over `residual_peak`.
    signal_to_noise : float
        `peak` over the noise of its channel.
    clean_iterations, major_cycles : int
        CLEAN's steps in all channels.
    n_vis : int
        Stokes I samples in all channels.
    cpu_seconds : float
        CPU time of the process that made this report.
    """

    FIGURES: ClassVar[Mapping[str, str]] = {
        "channels": "",
        "channels_without_data": "",
        "rms_median": "Jy/beam",
        "rms_worst": "Jy/beam",
        "peak": "Jy/beam",
        "residual_peak": "Jy/beam",
        "dynamic_range": "",
        "signal_to_noise": "",
        "cpu_seconds": "s",
    }
    """What is told to the data queue, with its units."""

    target: str
    capture_block_id: str
    channels: int
    channels_without_data: int
    first_frequency: float
    last_frequency: float
    size: int
    pixel: float
    rms_median: float
    rms_worst: float
    beam_major_smallest: float
    beam_major_largest: float
    peak: float
    peak_row: int
    peak_column: int
    peak_channel: int
    residual_peak: float
    dynamic_range: float
    signal_to_noise: float
    clean_iterations: int
    major_cycles: int
    n_vis: int
    cpu_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.channels} channels ({self.channels_without_data} without data), peak"
            f" {self.peak:.4g} Jy/beam in channel {self.peak_channel}, noise {self.rms_median:.3g}"
        )

    def document(self) -> dict[str, object]:
        """As JSON; what is not a number is null."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class PeakMap:
    """The brightest value along each line of sight.

    Attributes
    ----------
    values : float32 (size, size)
        Jy/beam; not a number where no channel has data.
    row, column, index : int
        Place of the brightest of all, and the plane that it is in.
    """

    values: Image
    row: int
    column: int
    index: int


def peak_map(cube: CubeReader) -> PeakMap:
    """Look for the brightest value along each line of sight."""
    brightest = np.full((cube.size, cube.size), np.nan, np.float32)
    best, place = -math.inf, (0, 0, 0)
    for index, channel in enumerate(cube.channels):
        if channel.beam is None:
            continue
        plane = cube.plane(index)
        brightest = np.fmax(brightest, plane)
        if channel.peak > best:
            row, column = np.unravel_index(int(plane.argmax()), plane.shape)
            best, place = channel.peak, (int(row), int(column), index)
    return PeakMap(brightest, *place)


def spectrum_at(cube: CubeReader, peak: PeakMap) -> npt.NDArray[np.float64]:
    """Brightness of every channel at the place of the peak, float64 (channels,), Jy/beam."""
    values = [cube.plane(i)[peak.row, peak.column] for i in range(cube.n_channels)]
    return np.array(values, np.float64)


def assess_cube(cube: CubeReader, peak: PeakMap, cpu_seconds: float) -> CubeQuality:
    """Take the figures from the cube's tables."""
    used = [channel for channel in cube.channels if channel.beam is not None]
    nan = math.nan
    at_peak = cube.channels[peak.index]
    rms = np.array([channel.rms for channel in used] or [nan])
    beams = np.array([c.beam.major for c in used if c.beam is not None] or [nan])
    residual = max((channel.residual_peak for channel in used), default=nan)
    frequencies = [channel.frequency for channel in cube.channels]
    scale = cube.pixel / ARCSEC
    return CubeQuality(
        target=str(cube.header.get("OBJECT", "")),
        capture_block_id=str(cube.header.get("CBID", "")),
        channels=cube.n_channels,
        channels_without_data=cube.n_channels - len(used),
        first_frequency=frequencies[0],
        last_frequency=frequencies[-1],
        size=cube.size,
        pixel=scale,
        rms_median=float(np.median(rms)),
        rms_worst=float(rms.max()),
        beam_major_smallest=float(beams.min()) * scale,
        beam_major_largest=float(beams.max()) * scale,
        peak=at_peak.peak,
        peak_row=peak.row,
        peak_column=peak.column,
        peak_channel=at_peak.channel,
        residual_peak=residual,
        dynamic_range=at_peak.peak / residual if residual else nan,
        signal_to_noise=at_peak.peak / at_peak.rms if at_peak.rms else nan,
        clean_iterations=sum(channel.iterations for channel in used),
        major_cycles=sum(channel.major_cycles for channel in used),
        n_vis=sum(channel.samples for channel in used),
        cpu_seconds=cpu_seconds,
    )
