"""Radio-frequency interference: emitters on the ground that come and go.

An emitter is a source of a narrow band whose wave reaches each antenna with a delay that has nothing to do
with the sky: it does not stand still in the fringes, and baselines see it at full strength. It is partly
polarised. Everything follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

WIDTHS: Final = (0.2e6, 5e6)
"""Range of the emitters' bandwidths, Hz, drawn evenly in the logarithm."""
STRENGTHS: Final = (5.0, 2000.0)
"""Range of their flux densities, Jy, drawn evenly in the logarithm."""
MAX_DELAY: Final = 2e-6
"""Delays between antennas are within ± this, s: 600 m of path."""
MAX_EMITTERS: Final = 1000
_STREAM: Final = 0xBAD


@dataclass(frozen=True)
class RfiModel:
    """Emitters; arrays of shape (n_emitters,)."""

    low: NDArray[np.float64]
    """Lower edge of the band, Hz."""
    high: NDArray[np.float64]
    strength: NDArray[np.float64]
    """Jy, in I."""
    polarised: NDArray[np.float64]
    """Q / I, from -1 to 1."""
    duty: NDArray[np.float64]
    """Part of all dumps in which the emitter is on."""
    seed: int

    @classmethod
    def random(cls, n_emitters: int, band: tuple[float, float], seed: int) -> Self:
        """Draw emitters in a band, Hz."""
        rng = np.random.default_rng([seed, _STREAM])
        width = _log_uniform(rng, WIDTHS, n_emitters)
        low = rng.uniform(*band, n_emitters)
        return cls(
            low=low,
            high=low + width,
            strength=_log_uniform(rng, STRENGTHS, n_emitters),
            polarised=rng.uniform(-1, 1, n_emitters),
            duty=rng.uniform(0.05, 1, n_emitters),
            seed=seed,
        )

    def on(self, dump: int) -> NDArray[np.bool_]:
        """Which emitters are on in a dump, shape (n_emitters,)."""
        rng = np.random.default_rng([self.seed, _STREAM, dump])
        return np.asarray(rng.random(len(self.duty)) < self.duty)

    def delays(self, dump: int, n_ants: int) -> NDArray[np.float64]:
        """Delays of the emitters that are on, s, shape (n_on, n_ants)."""
        rng = np.random.default_rng([self.seed, _STREAM, dump, 1])
        drawn = rng.uniform(-MAX_DELAY, MAX_DELAY, (len(self.duty), n_ants))
        return np.asarray(drawn[self.on(dump)])

    def flux(self, freqs: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Flux densities in hh, hv, vh, vv, Jy, shape (n_emitters, n_chans, 4)."""
        inside = (freqs >= self.low[:, np.newaxis]) & (freqs < self.high[:, np.newaxis])
        strength = np.where(inside, self.strength[:, np.newaxis], 0)
        polarised = self.polarised[:, np.newaxis]
        flux = np.zeros((*inside.shape, 4), np.complex128)
        flux[..., 0] = strength * (1 + polarised)
        flux[..., 3] = strength * (1 - polarised)
        return flux


def _log_uniform(
    rng: np.random.Generator, bounds: tuple[float, float], n: int
) -> NDArray[np.float64]:
    low, high = np.log(bounds)
    return np.asarray(np.exp(rng.uniform(low, high, n)))
