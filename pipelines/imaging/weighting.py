"""Imaging weights: natural, uniform and Briggs' compromise.

Briggs 1995 (PhD thesis, New Mexico Tech), section 3: with the natural weights ``w_i`` and their sums ``W_k``
over cells of the uv plane, the weight is ``w_i / W_k`` (uniform) or ``w_i / (1 + f² W_k)`` with
``f² = (5 · 10^-R)² · Σ w_i / Σ W_k²`` (robust R). `density` computes them.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from pipelines.imaging.errors import SettingsError

MAX_ROBUST = 5.0
"""Beyond this Briggs' weights do not differ from natural or uniform ones."""


class Weighting(enum.Enum):
    """How much a visibility counts."""

    NATURAL = "natural"
    """By its noise only: the best sensitivity."""
    UNIFORM = "uniform"
    """Each cell of the uv plane the same: the sharpest beam."""
    BRIGGS = "briggs"
    """Between the two, by the parameter robust from -2 (uniform) to 2 (natural)."""


@dataclass(frozen=True)
class WeightScheme:
    """A kind of weighting and its parameter."""

    kind: Weighting = Weighting.BRIGGS
    robust: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.robust) and abs(self.robust) <= MAX_ROBUST):
            raise SettingsError(f"robust {self.robust:g}: must be within ±{MAX_ROBUST:g}")

    def __str__(self) -> str:
        if self.kind is Weighting.BRIGGS:
            return f"briggs {self.robust:g}"
        return str(self.kind.value)
