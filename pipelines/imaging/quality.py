"""What an image is worth, in figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from pipelines.imaging.arrays import Image
from pipelines.imaging.beam import Beam
from pipelines.imaging.clean import CleanResult, robust_rms
from pipelines.imaging.geometry import ARCSEC, ImageGrid
from pipelines.imaging.sources import Source


@dataclass(frozen=True)
class Quality:
    """The quality report, ``quality.json``.

    Attributes
    ----------
    target, capture_block_id : str
        What was observed.
    rms : float
        Robust rms of the residual image, Jy/beam.
    peak : float
        Brightest pixel of the image, Jy/beam.
    residual_peak : float
        Largest absolute value of the residual image, Jy/beam.
    dynamic_range : float
        `peak` over the largest absolute residual.
    signal_to_noise : float
        `peak` over `rms`.
    beam_major, beam_minor : float
        Full widths at half maximum of the restoring beam, arcsec.
    beam_angle : float
        Its position angle, degrees from north through east.
    psf_sidelobe : float
        Highest sidelobe of the point spread function.
    size : int
        Pixels along a side.
    pixel : float
        Side of a pixel, arcsec.
    frequency : float
        Mean over the band with the imaging weights, Hz.
    n_vis : int
        Stokes I samples in the image.
    flagged_fraction : float
        Share of the target's samples that are flagged or without weight, in at least one hand.
    clean_iterations, clean_components, major_cycles : int
        CLEAN's steps, the pixels that hold components, and the major cycles.
    clean_flux : float
        Sum of the components, Jy.
    clean_stop : str
        Why CLEAN ended.
    sources : int
        Sources found.
    cpu_seconds : float
        CPU time of the whole program.
    """

    FIGURES: ClassVar[Mapping[str, str]] = {
        "rms": "Jy/beam",
        "peak": "Jy/beam",
        "residual_peak": "Jy/beam",
        "dynamic_range": "",
        "signal_to_noise": "",
        "flagged_fraction": "",
        "clean_flux": "Jy",
        "sources": "",
        "cpu_seconds": "s",
    }
    """What is told to the data queue, with its units."""

    target: str
    capture_block_id: str
    rms: float
    peak: float
    residual_peak: float
    dynamic_range: float
    signal_to_noise: float
    beam_major: float
    beam_minor: float
    beam_angle: float
    psf_sidelobe: float
    size: int
    pixel: float
    frequency: float
    n_vis: int
    flagged_fraction: float
    clean_iterations: int
    clean_components: int
    clean_flux: float
    major_cycles: int
    clean_stop: str
    sources: int
    cpu_seconds: float

    def document(self) -> dict[str, object]:
        """As JSON; what is not a number (a ratio over nothing) is null."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def assess(
    *,
    target: str,
    capture_block_id: str,
    image: Image,
    result: CleanResult,
    beam: Beam,
    sidelobe: float,
    grid: ImageGrid,
    frequency: float,
    n_vis: int,
    flagged_fraction: float,
    sources: Sequence[Source],
    cpu_seconds: float,
) -> Quality:
    """Take the figures from the images."""
    residual = result.residual[0]
    rms, peak = robust_rms(residual), float(image.max())
    residual_peak = float(np.abs(residual).max())
    return Quality(
        target=target,
        capture_block_id=capture_block_id,
        rms=rms,
        peak=peak,
        residual_peak=residual_peak,
        dynamic_range=peak / residual_peak if residual_peak else math.inf,
        signal_to_noise=peak / rms if rms else math.inf,
        beam_major=beam.major * grid.pixel / ARCSEC,
        beam_minor=beam.minor * grid.pixel / ARCSEC,
        beam_angle=math.degrees(beam.angle),
        psf_sidelobe=sidelobe,
        size=grid.size,
        pixel=grid.pixel / ARCSEC,
        frequency=frequency,
        n_vis=n_vis,
        flagged_fraction=flagged_fraction,
        clean_iterations=result.iterations,
        clean_components=int(np.count_nonzero(result.model.any(axis=0))),
        clean_flux=float(result.model[0].sum(dtype=np.float64)),
        major_cycles=result.major_cycles,
        clean_stop=result.reason.value,
        sources=len(sources),
        cpu_seconds=cpu_seconds,
    )
