"""Faults on demand: which heaps are lost, doubled, cut short, out of order or late.

The fate of a heap follows from the seed, its dump and its substream, so a run can be repeated exactly.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from pipelines.correlator.errors import ModelError


class Fate(enum.Enum):
    """What happens to a heap."""

    SENT = "sent"
    DROPPED = "dropped"
    DUPLICATED = "duplicated"
    """Sent twice under the same heap count, as a network does that doubles packets."""
    TRUNCATED = "truncated"
    """Only some of its first packets are sent."""
    REORDERED = "reordered"
    """Sent after all others of its dump."""
    LATE = "late"
    """Sent with the next dump."""


@dataclass(frozen=True)
class FaultPlan:
    """Fractions of all heaps, from 0 to 1, together at most 1."""

    drop: float = 0.0
    duplicate: float = 0.0
    truncate: float = 0.0
    seed: int = 0
    reorder: float = 0.0
    late: float = 0.0

    def __post_init__(self) -> None:
        fractions = tuple(fraction for fraction, _ in self._fractions)
        if not all(math.isfinite(f) and 0 <= f <= 1 for f in fractions) or sum(fractions) > 1:
            raise ModelError(
                f"fractions of faults {fractions}: expected 0 to 1, together at most 1"
            )

    @property
    def _fractions(self) -> tuple[tuple[float, Fate], ...]:
        return (
            (self.drop, Fate.DROPPED),
            (self.duplicate, Fate.DUPLICATED),
            (self.truncate, Fate.TRUNCATED),
            (self.reorder, Fate.REORDERED),
            (self.late, Fate.LATE),
        )

    def fate(self, dump: int, substream: int) -> Fate:
        """What happens to one heap."""
        if not any(fraction for fraction, _ in self._fractions):
            return Fate.SENT
        draw = np.random.default_rng([self.seed, 0xFA7E, dump, substream]).random()
        for fraction, fate in self._fractions:
            if draw < fraction:
                return fate
            draw -= fraction
        return Fate.SENT
