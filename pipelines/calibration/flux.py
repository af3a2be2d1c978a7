"""The flux density of calibrators without a model, from the gains of those that have one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.calibration.solutions import Solutions


@dataclass(slots=True)
class FluxScale:
    """Powers of gains by calibrator.

    A gain that was solved with 1 Jy assumed is too large by the root of the true flux density in Jy: the
    ratio of its square to that of calibrators with a model is that flux density (as AIPS GETJY and CASA
    fluxscale have it).
    """

    _sums: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(2, pol, ant) sums of squares of gains, and how many; of all that have a model under the empty name."""

    def add(self, name: str, solutions: Solutions, *, known: bool) -> None:
        """Take note of a scan's gains."""
        for gains in solutions.gains:
            power = np.abs(gains) ** 2
            good = np.isfinite(power)
            both = np.stack([np.where(good, power, 0), good])
            key = "" if known else name
            self._sums[key] = self._sums.get(key, np.zeros(both.shape)) + both

    def measured(self) -> dict[str, float]:
        """Return the flux densities, Jy, of those without a model; nothing where no calibrator has one."""
        reference = self._sums.get("")
        if reference is None:
            return {}
        ratios = {name: _ratio(sums, reference) for name, sums in self._sums.items() if name}
        return {name: ratio for name, ratio in ratios.items() if ratio > 0}


def _ratio(sums: npt.NDArray[np.float64], reference: npt.NDArray[Any]) -> float:
    """Return the median over inputs of the ratio of mean powers; 0 if none has both."""
    both = (sums[1] > 0) & (reference[1] > 0) & (reference[0] > 0)
    if not both.any():
        return 0.0
    means, references = (s[0][both] / s[1][both] for s in (sums, reference))
    return float(np.median(means / references))
