"""CLEAN: major cycles around Clark's minor cycle.

Two stages, as in Offringa and Smirnov 2017 (MNRAS 471, 301, section 3). First components are taken anywhere,
positive peaks only, down to seven times the noise: with few antennas the sidelobes are so high that
anything less would clean them. What has been found so becomes a mask, one beam around each component;
within it both signs are cleaned, deeper.

No minor cycle goes below the highest sidelobe of the brightest source that is left (the *cycle threshold* of
CASA's tclean): what is fainter may be a sidelobe. The noise is estimated anew in every major cycle from the
median of absolute deviations, so it falls as the sidelobes go.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipelines.imaging.beam import Beam
from pipelines.imaging.errors import SettingsError
from pipelines.imaging.minor_cycle import Image, Mask, MinorLimits, minor_cycle

logger = logging.getLogger(__name__)

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

MASK_SIGMAS = 7.0
"""Lower, and peaks of the noise and of leftover sidelobes become components that stay (up to six false sources
in a field of five, against two); the sidelobes of what is fainter drown in the noise anyway."""

FINAL_SIGMAS = 2.0
CYCLE_FACTOR = 1.2
MIN_CYCLE_FRACTION = 0.1
MAX_CYCLE_FRACTION = 0.8
MARGIN = 0.9
"""Minor cycles go this much below the noise's level: the last few per cent would take several."""

STALLED_CYCLES = 3
IMPROVEMENT = 0.98
"""A cycle that leaves more than this of the best peak so far has not helped."""


class StopReason(enum.Enum):
    """Why CLEAN ended."""

    NOISE = "residual is noise"
    THRESHOLD = "threshold reached"
    ITERATIONS = "iteration limit reached"
    MAJOR_CYCLES = "major cycle limit reached"
    STALLED = "no further improvement"
    NOT_ASKED = "no iterations asked for"


ENDS_OF_STAGE = (StopReason.NOISE, StopReason.STALLED)
"""After these, what has been found is worth a closer look."""


@dataclass(frozen=True)
class CleanSettings:
    """What the user may say.

    Attributes
    ----------
    iterations : int
        Components at most; 0 makes a dirty image.
    threshold : float, optional
        Jy/beam below which nothing is cleaned. Without it, the noise decides.
    gain : float
        Loop gain of the minor cycle.
    major_cycles : int
        Major cycles at most.
    """

    iterations: int = 20_000
    threshold: float | None = None
    gain: float = 0.1
    major_cycles: int = 40

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.major_cycles < 1:
            raise SettingsError("the number of iterations must not be negative")
        if self.threshold is not None and not (
            math.isfinite(self.threshold) and self.threshold > 0
        ):
            raise SettingsError(f"threshold {self.threshold:g} Jy/beam: must be positive")
        if not 0 < self.gain < 1:
            raise SettingsError(f"loop gain {self.gain:g}: must be between 0 and 1")


@dataclass(frozen=True)
class CleanResult:
    """What CLEAN leaves.

    Attributes
    ----------
    model : float32 (size, size)
        Components, Jy per pixel.
    residual : float32 (size, size)
        Jy/beam; of exactly this model, through the visibilities.
    iterations, major_cycles : int
        Work done.
    reason : StopReason
        Why it ended.
    """

    model: Image
    residual: Image
    iterations: int
    major_cycles: int
    reason: StopReason


def robust_rms(image: npt.NDArray[np.float32]) -> float:
    """Noise of an image that has sources in it, from the median of absolute deviations."""
    middle = np.median(image)
    return MAD_TO_SIGMA * float(np.median(np.abs(image - middle)))


@dataclass
class _State:
    """Where CLEAN is; the best model is kept, since a cycle can make it worse."""

    model: Image
    residual: Image
    mask: Mask | None = None
    iterations: int = 0
    cycles: int = 0
    best: tuple[float, Image, Image] = field(init=False)
    stalled: int = 0

    def __post_init__(self) -> None:
        self.best = (math.inf, self.model.copy(), self.residual)

    def peak(self) -> float:
        """Brightest pixel of those that the present stage may clean."""
        if self.mask is None:
            return float(self.residual.max())
        return float(np.max(np.abs(self.residual), where=self.mask, initial=0.0))

    def judge(self, peak: float) -> None:
        """Remember the model if it is the best of its stage, else count."""
        if peak < IMPROVEMENT * self.best[0]:
            self.stalled = 0
        else:
            self.stalled += 1
        if peak < self.best[0]:
            self.best = (peak, self.model.copy(), self.residual)

    def enter_mask(self, beam: Beam) -> None:
        """Begin the second stage from the best model."""
        _, self.model, self.residual = self.best
        self.mask = component_mask(self.model, beam)
        self.stalled = 0
        self.best = (math.inf, self.model.copy(), self.residual)


def clean(
    dirty: Image,
    psf: Image,
    beam: Beam,
    sidelobe: float,
    residual_of: Callable[[Image], Image],
    settings: CleanSettings,
    progress: Callable[[float], None] = lambda fraction: None,
) -> CleanResult:
    """Deconvolve.

    Parameters
    ----------
    dirty : float32 (size, size)
        Dirty image, Jy/beam.
    psf : float32 (2 size, 2 size)
        Point spread function with peak 1.
    beam : Beam
        What fits its main lobe.
    sidelobe : float
        Its highest sidelobe.
    residual_of : callable
        Major cycle: residual image (Jy/beam) of a model (Jy per pixel), through the visibilities.
    settings : CleanSettings
        Limits.
    progress : callable
        Told the fraction done, as far as one can know.
    """
    state = _State(np.zeros_like(dirty), dirty)
    first_peak = state.peak()
    fraction = min(max(CYCLE_FACTOR * sidelobe, MIN_CYCLE_FRACTION), MAX_CYCLE_FRACTION)
    while True:
        peak, noise = state.peak(), robust_rms(state.residual)
        state.judge(peak)
        floor = _floor(state, noise, settings)
        reason = _reason_to_stop(state, peak, floor, settings)
        if reason in ENDS_OF_STAGE and state.mask is None and state.best[1].any():
            state.enter_mask(beam)
            continue
        if reason is not None:
            _, model, residual = state.best
            return CleanResult(model, residual, state.iterations, state.cycles, reason)
        limits = MinorLimits(
            settings.gain,
            max(MARGIN * floor, settings.threshold or 0.0, fraction * peak),
            settings.iterations - state.iterations,
            negative=state.mask is not None,
        )
        state.iterations += minor_cycle(state.residual, psf, state.model, state.mask, limits)
        state.residual = residual_of(state.model)
        state.cycles += 1
        progress(_fraction_done(first_peak, peak, noise))
        logger.info(
            "major cycle %d: %d components, peak %.4g -> %.4g Jy/beam, noise %.3g",
            state.cycles,
            state.iterations,
            peak,
            state.peak(),
            noise,
        )


def _floor(state: _State, noise: float, settings: CleanSettings) -> float:
    """Brightness below which the present stage does not clean."""
    sigmas = MASK_SIGMAS if state.mask is None else FINAL_SIGMAS
    return max(sigmas * noise, settings.threshold or 0.0)


def _reason_to_stop(
    state: _State, peak: float, floor: float, settings: CleanSettings
) -> StopReason | None:
    if settings.iterations == 0:
        return StopReason.NOT_ASKED
    if peak <= floor:
        reached = settings.threshold is not None and floor == settings.threshold
        return StopReason.THRESHOLD if reached else StopReason.NOISE
    if state.iterations >= settings.iterations:
        return StopReason.ITERATIONS
    if state.cycles >= settings.major_cycles:
        return StopReason.MAJOR_CYCLES
    if state.stalled >= STALLED_CYCLES:
        return StopReason.STALLED
    return None


def _fraction_done(first_peak: float, peak: float, noise: float) -> float:
    """Progress from the first peak to the noise, on a logarithmic scale."""
    if noise <= 0 or peak <= noise or first_peak <= noise:
        return 1.0
    return 1.0 - math.log(peak / noise) / math.log(max(first_peak / noise, peak / noise * 1.0001))


def component_mask(model: Image, beam: Beam) -> Mask:
    """Pixels within half a beam's major axis (at least one pixel) of a component."""
    radius = max(math.ceil(beam.major / 2), 1)
    offsets = np.arange(-radius, radius + 1)
    disc = offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2
    mask: Mask = ndimage.binary_dilation(model != 0, structure=disc)
    return mask
