"""Gains that a calibration has something to do with: amplitudes, phases, delays, slow drifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

AMPLITUDE_SPREAD: Final = 0.1
"""Standard deviation of the amplitudes about 1; they are kept within three of it."""

DELAY_SPREAD: Final = 5e-9
"""Standard deviation of the antennas' delays, s."""

DRIFT_PHASE: Final = 0.2
"""Greatest amplitude of an input's phase drift, rad."""

DRIFT_PERIOD: Final = (1200.0, 3600.0)
"""Range of the periods of the drifts, s."""


@dataclass(frozen=True)
class GainModel:
    """Gains of all inputs as a function of time and frequency.

    The gain of input ``i`` of antenna ``a`` is ``A_i exp(i(φ_i + d_i sin(2πt/T_i + ψ_i) + 2πντ_a))``, and that
    of v inputs has a factor ``exp(i(φ_× + 2πντ_×))`` besides. A delay τ has phases that grow with frequency, as
    katdal's K corrections (``exp(-2πiKν)``) expect.
    """

    amplitude: NDArray[np.float64]
    """Shape (n_ants, 2), as all others but `delay`."""
    phase: NDArray[np.float64]
    drift: NDArray[np.float64]
    period: NDArray[np.float64]
    drift_start: NDArray[np.float64]
    delay: NDArray[np.float64]
    """Seconds, shape (n_ants,)."""
    cross_delay: float = 0.0
    """Of all v inputs against all h inputs, s."""
    cross_phase: float = 0.0
    """The same at frequency 0, rad."""

    @classmethod
    def unity(cls, n_ants: int) -> Self:
        """Gains that are all 1."""
        zero, one = np.zeros((n_ants, 2)), np.ones((n_ants, 2))
        return cls(one, zero, zero, one, zero, np.zeros(n_ants))

    @classmethod
    def random(cls, n_ants: int, seed: int) -> Self:
        """Gains that follow from a seed."""
        rng = np.random.default_rng([seed, 0x6A1])
        shape = (n_ants, 2)
        spread = np.clip(rng.standard_normal(shape), -3, 3)
        return cls(
            amplitude=1 + AMPLITUDE_SPREAD * spread,
            phase=rng.uniform(-np.pi, np.pi, shape),
            drift=rng.uniform(0, DRIFT_PHASE, shape),
            period=rng.uniform(*DRIFT_PERIOD, shape),
            drift_start=rng.uniform(-np.pi, np.pi, shape),
            delay=DELAY_SPREAD * rng.standard_normal(n_ants),
        )

    def at(self, time: float, freqs: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Gains at a time.

        Parameters
        ----------
        time
            Seconds since the start of the simulation.
        freqs
            Sky frequencies, Hz, shape (n_chans,).

        Returns
        -------
        array, shape (n_ants, 2, n_chans)
        """
        swing = np.sin(2 * np.pi * time / self.period + self.drift_start)
        inputs = self.amplitude * np.exp(1j * (self.phase + self.drift * swing))
        delays = np.exp(2j * np.pi * self.delay[:, np.newaxis] * freqs)
        gains: NDArray[np.complex128] = inputs[:, :, np.newaxis] * delays[:, np.newaxis, :]
        gains[:, 1] *= np.exp(1j * (self.cross_phase + 2 * np.pi * self.cross_delay * freqs))
        return gains
