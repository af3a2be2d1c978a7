"""What calibration solves for, and what comes of it, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Delays = npt.NDArray[np.float64]
ComplexGains = npt.NDArray[np.complex64]
Quality = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Products:
    """Which products a scan is solved for."""

    delay: bool = False
    bandpass: bool = False
    gain: bool = False
    polarisation: bool = False
    """Leakage of an unpolarised calibrator, or the phase between the polarisations of a polarised one."""


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels that delays and gains are solved from; the bandpass is solved for all."""

    delay: slice = field(default_factory=lambda: slice(None))
    gain: slice = field(default_factory=lambda: slice(None))


@dataclass(frozen=True, slots=True)
class Applied:
    """The delays and bandpass that are in force; None where none has been solved yet."""

    delays: Delays | None = None
    """(pol, ant), s"""
    bandpass: ComplexGains | None = None
    """(chan, pol, ant)"""
    leakage: ComplexGains | None = None
    """(block, pol, ant)"""


@dataclass(frozen=True, slots=True)
class Polarisation:
    """What the cross hands of a scan gave; None where it is not of that kind."""

    leakage: ComplexGains | None = None
    """(block, pol, ant): what of v is in h, and of h in v; 0 for the reference antenna's h."""
    leakage_snr: Quality | None = None
    """(pol, ant) one over the standard error of a leakage, the median over the blocks."""
    delay: float | None = None
    """s, of h behind v at the reference antenna."""
    phase: ComplexGains | None = None
    """(chan,) phase of h over that of v that is left after the delay, amplitude 1; NaN where there is none."""
    snr: float | None = None
    """Of the cross hands, averaged over the band, with that delay and phase corrected."""


@dataclass(frozen=True, slots=True)
class Solutions:
    """What a scan gave. NaN where an input has no solution."""

    refant: int
    n_antennas: int
    start: float
    """Unix time from which delays and bandpass hold: the scan's first dump."""
    delays: Delays | None
    bandpass: ComplexGains | None
    gain_times: tuple[float, ...]
    """Unix times of the gains."""
    gains: tuple[ComplexGains, ...]
    """(pol, ant) each."""
    phase_rms: float
    """Radians, weighted, of the calibrated visibilities averaged over the band; NaN if there are none."""
    delay_snr: Quality | None = None
    """(pol, ant) of the phases over the band that delays were measured from."""
    bandpass_snr: Quality | None = None
    """(pol, ant) of a channel, the median of all."""
    gain_snr: tuple[Quality, ...] = ()
    """(pol, ant) each."""
    polarisation: Polarisation = field(default_factory=Polarisation)
    flagged: npt.NDArray[np.float32] | None = None
    """(chan, ant) part of the samples of parallel hands that was flagged or lost."""

    @property
    def empty(self) -> bool:
        """Whether nothing at all could be solved."""
        arrays = (
            self.delays,
            self.bandpass,
            self.polarisation.leakage,
            self.polarisation.phase,
            *self.gains,
        )
        return not any(a is not None and np.isfinite(a).any() for a in arrays)
