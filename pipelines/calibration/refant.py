"""Choosing the reference antenna."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.calibration.delay import BaselinePeaks
from pipelines.calibration.interval import Interval
from pipelines.calibration.stefcal import MIN_ANTENNAS


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference antenna, and why it is it."""

    antenna: int
    why: str


def choose_refant(
    intervals: Sequence[Interval], peaks: Sequence[BaselinePeaks], preferred: Sequence[str] = ()
) -> Reference | None:
    """Return the first of the preferred antennas that has data, or the one with the most and strongest.

    Strength is the peak of a baseline's delay spectrum over its noise: independent of phases and delays. How
    much data an antenna has multiplies it. None if too few antennas have any data for a solution.
    """
    pairs = intervals[0].pairs
    score = np.zeros(pairs.n_antennas)
    for peak in peaks:
        strength = np.sqrt(np.minimum(peak.strength, 1e6))
        for ant in (pairs.ant1, pairs.ant2):
            np.add.at(score, ant, strength)
    good = sum(interval.good.sum(axis=0, dtype=np.int64) for interval in intervals)
    alive = np.asarray(good) > 0
    if alive.sum() < MIN_ANTENNAS:
        return None
    for name in preferred:
        if name in pairs.antennas and alive[pairs.antennas.index(name)]:
            return Reference(pairs.antennas.index(name), "preferred, and it has data")
    best = int((score * good).argmax())
    share = (score * good)[best] / np.median((score * good)[alive])
    others = f"{share:.2f} times the median antenna's" if np.isfinite(share) else "the only one"
    why = f"most and strongest data: {others}"
    return Reference(best, why if not preferred else f"no preferred antenna has data; {why}")
