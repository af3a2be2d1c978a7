"""Weighted visibilities and the images that they make.

Between the spool of visibilities and CLEAN, which knows images only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipelines.imaging.errors import NoVisibilitiesError
from pipelines.imaging.geometry import SPEED_OF_LIGHT, ImageGrid
from pipelines.imaging.gridder import Gridder, ImageArray
from pipelines.imaging.visibilities import Block, VisibilitySpool
from pipelines.imaging.weighting import DensityGrid, Weighting, WeightScheme


@dataclass(frozen=True)
class WeightTotals:
    """What the weights add up to.

    Attributes
    ----------
    total : float
        Sum of the imaging weights.
    samples : int
        Samples with an imaging weight.
    unflagged : int
        Samples that are not flagged; those beyond the image's resolution count here only.
    channels : float64 (channels,)
        Sums over each channel, normalised to one in total: how the band is averaged.
    """

    total: float
    samples: int
    unflagged: int
    channels: npt.NDArray[np.float64]


def longest_baseline(spool: VisibilitySpool) -> float:
    """Longest baseline with a weight, in wavelengths, in the uv plane."""
    longest = 0.0
    for block in spool.blocks():
        highest = np.max(np.where(block.weights > 0, spool.frequencies, 0.0), axis=1, initial=0.0)
        lengths = np.hypot(block.uvw[:, 0], block.uvw[:, 1]) * highest
        longest = max(longest, float(lengths.max(initial=0.0)))
    return longest / SPEED_OF_LIGHT


def weigh(spool: VisibilitySpool, grid: ImageGrid, scheme: WeightScheme) -> WeightTotals:
    """Fill in the imaging weights.

    Raises
    ------
    NoVisibilitiesError
        No visibility is within the resolution of the image.
    """
    density = DensityGrid(grid)
    if scheme.kind is not Weighting.NATURAL:
        for block in spool.blocks():
            density.add(block.uvw, spool.frequencies, block.weights)
    channels = np.zeros(spool.shape[2])
    samples = unflagged = 0
    for block in spool.blocks():
        weights = density.apply(scheme, block.uvw, spool.frequencies, block.weights)
        block.imaging_weights[:] = weights
        channels += weights.sum(axis=0, dtype=np.float64)
        samples += int(np.count_nonzero(weights))
        unflagged += int(np.count_nonzero(block.weights))
    total = float(channels.sum())
    if total <= 0:
        raise NoVisibilitiesError(
            "no visibility is within the image's resolution; choose a smaller --pixel"
        )
    return WeightTotals(total, samples, unflagged, channels / total)


@dataclass(frozen=True)
class Measurement:
    """Weighted visibilities and the image that they make.

    Attributes
    ----------
    spool : VisibilitySpool
        Visibilities with imaging weights.
    gridder : Gridder
        From visibilities to images.
    totals : WeightTotals
        Of the imaging weights.
    """

    spool: VisibilitySpool
    gridder: Gridder
    totals: WeightTotals

    def dirty_image(self) -> ImageArray:
        """The dirty image, Jy/beam."""
        return self._image(self.gridder, lambda block: block.vis)

    def point_spread_function(self, size: int) -> ImageArray:
        """Response to a source of 1 Jy at the phase centre.

        Parameters
        ----------
        size : int
            Pixels along a side. CLEAN wants twice the image's, so that every offset between two of
            its pixels is there; to fit a beam, less is enough.
        """
        gridder = replace(self.gridder, grid=ImageGrid(size, self.gridder.grid.pixel))
        return self._image(gridder, lambda block: np.ones_like(block.vis))

    def residual_of(self, model: ImageArray) -> ImageArray:
        """Image of what the model (Jy per pixel) does not explain: one major cycle."""

        def residual(block: Block) -> npt.NDArray[np.complex64]:
            predicted = self.gridder.to_visibilities(
                block.uvw,
                self.spool.frequencies,
                model,
                (block.imaging_weights > 0).view(np.uint8),
            )
            return np.subtract(block.vis, predicted, out=predicted)

        return self._image(self.gridder, residual)

    def _image(
        self, gridder: Gridder, values: Callable[[Block], npt.NDArray[np.complex64]]
    ) -> ImageArray:
        image = np.zeros((gridder.grid.size, gridder.grid.size), np.float32)
        for block in self.spool.blocks():
            image += gridder.to_image(
                block.uvw, self.spool.frequencies, values(block), block.imaging_weights
            )
        image /= np.float32(self.totals.total)
        return image
