"""The one door to the w-gridder (ducc0): visibilities to image and back.

ducc0 is under the GPL and therefore an optional extra (``imaging``); no other module imports it, and what
this one offers can be had from another gridder.

Accuracy and precision: Arras et al. 2021 (A&A 646, A58).

Conventions. With ``V = ∫ I/n exp(+2πi(ul + vm + w(n-1)))`` (docs/reference/streams.md) a point source of flux S
has ``V = S exp(…)``: images are in flux per beam or component, not divided by n. ducc0's own sign is
``exp(-2πi(ux + vy - w(n-1)))``, so both axes are flipped to get there; our first axis is m and our second
runs against l, so v is handed over first and flipped, and u second as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from pipelines.imaging.arrays import Image
from pipelines.imaging.errors import MissingExtraError
from pipelines.imaging.geometry import ImageGrid

EPSILON = 2e-4
"""Default accuracy. What images are off by is less: 3e-5 of the peak (`benchmarks.imaging`)."""

MIN_EPSILON = 1.1e-5
"""ducc0 takes no less than 1e-5 in single precision."""


@dataclass(frozen=True)
class Gridder:
    """Transforms between the visibilities of one array and one image.

    Attributes
    ----------
    grid : ImageGrid
        The image.
    threads : int
        Threads that the gridder may use.
    epsilon : float
        Accuracy, relative.
    wide_field : bool
        Whether the w term is taken into account. Without it the work is a quarter.
    """

    grid: ImageGrid
    threads: int = 1
    epsilon: float = EPSILON
    wide_field: bool = True

    def to_image(
        self,
        uvw: npt.NDArray[np.float64],
        frequencies: npt.NDArray[np.float64],
        vis: npt.NDArray[np.complex64],
        weights: npt.NDArray[np.float32] | None = None,
    ) -> Image:
        """Sum of weighted visibilities over the image, not normalised.

        Parameters
        ----------
        uvw : float64 (rows, 3)
            Baselines in metres, in the project's convention.
        frequencies : float64 (channels,)
            Hz.
        vis : complex64 (rows, channels)
            Visibilities.
        weights : float32 (rows, channels), optional
            Zero leaves a sample out. Without them, the visibilities are weighted already.

        Returns
        -------
        float32 (size, size)
            ``Re Σ w V exp(-2πi(ul + vm + w(n-1)))`` in FITS order.
        """
        image: Image = ducc_wgridder().vis2dirty(
            uvw=_swapped(uvw),
            freq=frequencies,
            vis=vis,
            wgt=weights,
            npix_x=self.grid.size,
            npix_y=self.grid.size,
            double_precision_accumulation=False,
            **self._common(),
        )
        return image

    def to_visibilities(
        self,
        uvw: npt.NDArray[np.float64],
        frequencies: npt.NDArray[np.float64],
        image: Image,
    ) -> npt.NDArray[np.complex64]:
        """Visibilities that a model image (Jy per pixel) would give."""
        vis: npt.NDArray[np.complex64] = ducc_wgridder().dirty2vis(
            uvw=_swapped(uvw),
            freq=frequencies,
            dirty=image,
            **self._common(),
        )
        return vis

    def _common(self) -> dict[str, object]:
        return {
            "pixsize_x": self.grid.pixel,
            "pixsize_y": self.grid.pixel,
            "epsilon": max(self.epsilon, MIN_EPSILON),
            "do_wgridding": self.wide_field,
            "nthreads": self.threads,
            "flip_u": True,
            "flip_v": False,
            "divide_by_n": False,
        }


def ducc_wgridder() -> ModuleType:
    """Load ducc0's gridder, or say how to get it.

    Raises
    ------
    MissingExtraError
        ducc0 is not installed.
    """
    try:
        from ducc0 import wgridder
    except ImportError as error:
        raise MissingExtraError(
            "imaging needs ducc0 (GPL), which is an optional extra: install the extra 'imaging'"
        ) from error
    module: ModuleType = wgridder
    return module


def _swapped(uvw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(u, v, w) rows to (v, u, w): ducc0's first image axis is our rows."""
    return np.ascontiguousarray(uvw[:, [1, 0, 2]])
