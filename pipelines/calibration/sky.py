"""What a calibrator sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import katpoint
import numpy as np
import numpy.typing as npt

DEFAULT_FLUX: Final = 1.0
"""Jy, of a calibrator without a flux model."""


@dataclass(frozen=True, slots=True)
class Sky:
    """What the calibrator sends to feeds that are aligned with the sky, at each channel."""

    parallel: npt.NDArray[np.float64]
    """(pol, chan) I + Q and I - Q, Jy, all positive."""
    cross: npt.NDArray[np.complex128]
    """(chan,) U + iV, Jy."""
    known: bool = True
    """False: there is no model, and 1 Jy is assumed."""

    @classmethod
    def of(cls, description: str, freqs: npt.NDArray[np.float64]) -> Self:
        """Read katpoint's flux model of a target at frequencies, Hz.

        One that does not cover them all, or is not positive everywhere, is none.
        """
        target = katpoint.Target(description)
        stokes = np.asarray(target.flux_density_stokes(freqs / 1e6), np.float64)
        if stokes.shape == (len(freqs), 4) and np.isfinite(stokes).all():
            i, q, u, v = stokes.T
            parallel = np.stack([i + q, i - q])
            if (parallel > 0).all():
                return cls(parallel, u + 1j * v)
        return cls.assumed(freqs)

    @classmethod
    def assumed(cls, freqs: npt.NDArray[np.float64], flux: float = DEFAULT_FLUX) -> Self:
        """Return an unpolarised source of a flux density, Jy, that nobody knows."""
        return cls(np.full((2, len(freqs)), flux), np.zeros(len(freqs), np.complex128), known=False)
