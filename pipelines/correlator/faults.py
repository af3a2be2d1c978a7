"""Faults on demand: which heaps are lost, doubled or cut short.

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


@dataclass(frozen=True)
class FaultPlan:
    """Fractions of all heaps, from 0 to 1, together at most 1."""

    drop: float = 0.0
    duplicate: float = 0.0
    truncate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        fractions = (self.drop, self.duplicate, self.truncate)
        if not all(math.isfinite(f) and 0 <= f <= 1 for f in fractions) or sum(fractions) > 1:
            raise ModelError(
                f"fractions of faults {fractions}: expected 0 to 1, together at most 1"
            )

    def fate(self, dump: int, substream: int) -> Fate:
        """What happens to one heap."""
        if not (self.drop or self.duplicate or self.truncate):
            return Fate.SENT
        draw = np.random.default_rng([self.seed, 0xFA7E, dump, substream]).random()
        for fraction, fate in (
            (self.drop, Fate.DROPPED),
            (self.duplicate, Fate.DUPLICATED),
            (self.truncate, Fate.TRUNCATED),
        ):
            if draw < fraction:
                return fate
            draw -= fraction
        return Fate.SENT
