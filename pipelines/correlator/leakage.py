"""Leakage between the two polarisations of a feed: the D terms of the measurement equation.

The field ``e = (h, v)`` on an antenna becomes ``D e`` before any gain, with ``D = [[1, d_h], [d_v, 1]]``:
``d_h`` is what the h input takes of v, ``d_v`` what the v input takes of h. The visibilities of a pair are
then ``G_A D_A C (G_B D_B)^H`` (Sault, Hamaker & Bregman 1996, A&AS 117, 149).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

SLOPE: Final = 0.3
"""Change of a D term from the middle of the band to its edge, relative to the spread of the D terms."""


@dataclass(frozen=True)
class LeakageModel:
    """D terms of all inputs as a function of frequency: constant in time, and linear across the band."""

    middle: NDArray[np.complex128]
    """In the middle of the band, shape (n_ants, 2): d_h and d_v."""
    slope: NDArray[np.complex128]
    """Change from the middle to the upper edge, same shape."""

    @classmethod
    def random(cls, n_ants: int, spread: float, seed: int) -> Self:
        """D terms that follow from a seed: complex normal numbers of root mean square `spread`."""
        rng = np.random.default_rng([seed, 0xD7E])
        parts = rng.standard_normal((2, n_ants, 2, 2)) * spread / 2**0.5
        middle, slope = parts[..., 0] + 1j * parts[..., 1]
        return cls(middle, SLOPE * slope)

    def at(self, n_chans: int) -> NDArray[np.complex128]:
        """D terms of the channels of the band, shape (n_ants, 2, n_chans)."""
        offsets = (np.arange(n_chans) - n_chans // 2) / (n_chans / 2)
        terms: NDArray[np.complex128] = (
            self.middle[..., np.newaxis] + self.slope[..., np.newaxis] * offsets
        )
        return terms
