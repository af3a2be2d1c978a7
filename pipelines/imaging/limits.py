"""What a minor cycle may do, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.imaging.arrays import Image, Mask


@dataclass(frozen=True)
class MinorLimits:
    """When a minor cycle ends, and how it steps.

    Attributes
    ----------
    gain : float
        Fraction of the peak that one component takes.
    stop : float
        Brightness at which it ends, Jy/beam.
    iterations : int
        Components at most.
    """

    gain: float
    stop: float
    iterations: int


@dataclass(frozen=True)
class Places:
    """Where components may be.

    Attributes
    ----------
    allowed : bool (size, size), optional
        Pixels; everywhere, if not given.
    negative : bool or bool (size, size)
        Where negative peaks are components, too.
    """

    allowed: Mask | None = None
    negative: Mask | bool = False

    def brightness(self, residual: Image) -> Image:
        """How much every pixel, float32 (size, size), asks to be cleaned; below 0 where it may not."""
        size = np.where(self.negative, np.abs(residual), residual)
        return size if self.allowed is None else np.where(self.allowed, size, np.float32(-1))
