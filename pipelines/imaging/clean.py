"""CLEAN: major cycles around Clark's minor cycle.

Three stages, the first two as in Offringa and Smirnov 2017 (MNRAS 471, 301, section 3). First components are
taken anywhere, but only positive ones (except beside those that there are already), down to seven times the
noise: with few antennas the sidelobes are so high that anything less would clean them. What has been found so
becomes a mask, one beam around each component; within it both signs are cleaned, deeper. If the user has said
how deep the image shall be cleaned, a third stage does that everywhere.

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

from pipelines.imaging.arrays import Image, Mask
from pipelines.imaging.beam import Beam
from pipelines.imaging.errors import SettingsError
from pipelines.imaging.limits import MinorLimits, Places

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
DEPTH = 0.03
"""How deep one goes between two major cycles, of the peak: what far sidelobes of other places differ by."""

MARGIN = 0.9
"""Minor cycles go this much below the noise's level: the last few per cent would take several."""

NOISE_PIXELS = 500
"""Pixels along a side from which the noise is taken, at least: their median errs by 0.3 %."""

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
    sigmas : float
        Depth within the mask, in units of the noise.
    """

    iterations: int = 20_000
    threshold: float | None = None
    gain: float = 0.1
    major_cycles: int = 40
    sigmas: float = FINAL_SIGMAS

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.major_cycles < 1:
            raise SettingsError("the number of iterations must not be negative")
        if self.threshold is not None and not (
            math.isfinite(self.threshold) and self.threshold > 0
        ):
            raise SettingsError(f"threshold {self.threshold:g} Jy/beam: must be positive")
        if not 0.5 <= self.sigmas <= MASK_SIGMAS:
            raise SettingsError(
                f"depth {self.sigmas:g} sigma: must be between 0.5 and {MASK_SIGMAS:g}"
            )
        if not 0 < self.gain < 1:
            raise SettingsError(f"loop gain {self.gain:g}: must be between 0 and 1")


@dataclass(frozen=True)
class CleanResult:
    """What CLEAN leaves.

    Attributes
    ----------
    model : float32 (terms, size, size)
        Components, Jy per pixel.
    residual : float32 (terms, size, size)
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
    """Noise of an image that has sources in it, from the median of absolute deviations.

    Of a large image, every second or third … pixel along both axes does.
    """
    step = max(min(image.shape) // NOISE_PIXELS, 1)
    image = image[::step, ::step]
    middle = np.median(image)
    return MAD_TO_SIGMA * float(np.median(np.abs(image - middle)))


class _Stage(enum.Enum):
    """What is cleaned at present."""

    SEARCH = "positive peaks, and both signs beside components"
    DEEPEN = "within the mask"
    FINISH = "everywhere, as deep as the user says"


@dataclass
class _State:
    """Where CLEAN is; the best model is kept, since a cycle can make it worse."""

    model: Image
    residual: Image
    beam: Beam
    stage: _Stage = _Stage.SEARCH
    iterations: int = 0
    cycles: int = 0
    stalled: int = 0
    best: tuple[float, Image, Image] = field(init=False)
    mask: Mask = field(init=False)

    def __post_init__(self) -> None:
        self.enter(_Stage.SEARCH)

    def enter(self, stage: _Stage) -> None:
        """Begin a stage with the model that there is."""
        self.stage, self.stalled = stage, 0
        self.best = (math.inf, self.model.copy(), self.residual)
        self.mask = component_mask(self.model[0], self.beam)

    @property
    def places(self) -> Places:
        """Where the present stage may put components."""
        if self.stage is _Stage.SEARCH:
            return Places(None, component_mask(self.model[0], self.beam))
        return Places(self.mask if self.stage is _Stage.DEEPEN else None, True)

    def peak(self) -> float:
        """Brightest pixel of those that the present stage may clean."""
        return max(float(self.places.brightness(self.residual[0]).max()), 0.0)

    def judge(self, peak: float) -> None:
        """Remember the model if it is the best of its stage, else count."""
        if peak < IMPROVEMENT * self.best[0]:
            self.stalled = 0
        else:
            self.stalled += 1
        if peak < self.best[0]:
            self.best = (peak, self.model.copy(), self.residual)

    def go_on(self, reason: StopReason, settings: CleanSettings) -> bool:
        """Enter the stage after the present one, if there is one to come after what ended this."""
        stage = _next_stage(self.stage, reason, settings)
        _, model, residual = self.best
        if stage is None or not model.any():
            return False
        self.model, self.residual = model, residual
        self.enter(stage)
        return True


def _next_stage(stage: _Stage, reason: StopReason, settings: CleanSettings) -> _Stage | None:
    if reason in ENDS_OF_STAGE and stage is _Stage.SEARCH:
        return _Stage.DEEPEN
    ended = reason in ENDS_OF_STAGE or reason is StopReason.THRESHOLD
    if ended and settings.threshold is not None and stage is not _Stage.FINISH:
        return _Stage.FINISH
    return None


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
    dirty : float32 (terms, size, size)
        Dirty images, Jy/beam.
    psf : float32 (pairs, 2 size, 2 size)
        Point spread functions, the first one with peak 1.
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
    state = _State(np.zeros_like(dirty), dirty, beam)
    first_peak = state.peak()
    fraction = min(max(CYCLE_FACTOR * sidelobe, MIN_CYCLE_FRACTION), MAX_CYCLE_FRACTION)
    while True:
        peak, noise = state.peak(), robust_rms(state.residual[0])
        state.judge(peak)
        floor = _floor(state, noise, settings)
        reason = _reason_to_stop(state, peak, floor, settings)
        if reason is not None:
            if state.go_on(reason, settings):
                continue
            _, model, residual = state.best
            return CleanResult(model, residual, state.iterations, state.cycles, reason)
        _go_deeper(state, psf, fraction, max(MARGIN * floor, DEPTH * peak), settings)
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


def _go_deeper(
    state: _State, psf: Image, fraction: float, stop: float, settings: CleanSettings
) -> None:
    """Minor cycles down to `stop`, or until there are too many components to follow without a major one.

    Between two of them, what has been found is taken away from the whole residual with the point spread
    function, which is right but for the w term.
    """
    # Compiled: a dirty image need not wait until numba is loaded.
    from pipelines.imaging.minor_cycle import minor_cycle, subtract

    residual = state.residual.copy()
    while state.iterations < settings.iterations:
        places = state.places
        peak = float(places.brightness(residual[0]).max())
        left = settings.iterations - state.iterations
        limits = MinorLimits(settings.gain, max(stop, fraction * peak), left)
        found = np.zeros_like(state.model)
        done = minor_cycle(residual, psf, found, places, limits)
        state.iterations += done
        state.model += found
        if not done or limits.stop <= stop or not subtract(residual, psf, found):
            return


def _floor(state: _State, noise: float, settings: CleanSettings) -> float:
    """Brightness below which the present stage does not clean."""
    threshold = settings.threshold or 0.0
    if state.stage is _Stage.FINISH:
        return threshold
    sigmas = MASK_SIGMAS if state.stage is _Stage.SEARCH else settings.sigmas
    return max(sigmas * noise, threshold)


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
    # A margin as wide as the disc, so that no component needs a case of its own.
    mask = np.zeros([n + 2 * radius for n in model.shape], np.bool_)
    for row, column in np.argwhere(model):
        mask[row : row + disc.shape[0], column : column + disc.shape[1]] |= disc
    return np.ascontiguousarray(mask[radius:-radius, radius:-radius])
