"""Weighted visibilities and the images that they make.

Between the spool of visibilities and CLEAN, which knows images only. All images have a leading axis of spectral
terms (see `spectrum`); with one term it is the ordinary image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipelines.imaging.arrays import Image
from pipelines.imaging.errors import NoVisibilitiesError
from pipelines.imaging.geometry import SPEED_OF_LIGHT, ImageGrid
from pipelines.imaging.gridder import Gridder
from pipelines.imaging.nodes import Nodes, Tracks
from pipelines.imaging.spectrum import Basis, make_basis
from pipelines.imaging.visibilities import BLOCK_SAMPLES, Visibilities
from pipelines.imaging.weighting import Weighting, WeightScheme

NODE_TOLERANCE = 0.5
"""Error of interpolation in time, of the gridder's accuracy."""


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


def longest_baseline(spool: Visibilities) -> float:
    """Longest baseline with a weight, in wavelengths, in the uv plane."""
    longest = 0.0
    for block in spool.blocks():
        used = block.weights[:, ::-1] > 0
        highest = spool.frequencies[-1 - used.argmax(axis=1)] * used.any(axis=1)
        lengths = np.hypot(block.uvw[:, 0], block.uvw[:, 1]) * highest
        longest = max(longest, float(lengths.max(initial=0.0)))
    return longest / SPEED_OF_LIGHT


def weigh(spool: Visibilities, grid: ImageGrid, scheme: WeightScheme) -> WeightTotals:
    """Fill in the imaging weights.

    Raises
    ------
    NoVisibilitiesError
        No visibility is within the resolution of the image.
    """
    if scheme.kind is Weighting.NATURAL and _all_resolved(spool, grid):
        spool.imaging_weights = spool.weights
        return _totals(spool)
    # Compiled: an image with natural weights need not wait until numba is loaded.
    from pipelines.imaging.density import DensityGrid

    density = DensityGrid(grid)
    if scheme.kind is not Weighting.NATURAL:
        for block in spool.blocks():
            density.add(block.uvw, spool.frequencies, block.weights)
    for block in spool.blocks():
        block.imaging_weights[:] = density.apply(
            scheme, block.uvw, spool.frequencies, block.weights
        )
    return _totals(spool)


def _all_resolved(spool: Visibilities, grid: ImageGrid) -> bool:
    """Whether every sample is well within the uv plane of the image, flagged or not."""
    scale = grid.pixel * float(np.max(spool.frequencies)) / SPEED_OF_LIGHT
    return float(np.abs(spool.uvw[..., :2]).max()) * scale < 0.499


def _totals(spool: Visibilities) -> WeightTotals:
    channels = np.zeros(spool.shape[2])
    samples = unflagged = 0
    natural = spool.imaging_weights is spool.weights
    for block in spool.blocks():
        channels += block.imaging_weights.sum(axis=0, dtype=np.float64)
        counted = int(np.count_nonzero(block.imaging_weights))
        samples += counted
        unflagged += counted if natural else int(np.count_nonzero(block.weights))
    total = float(channels.sum())
    if total <= 0:
        raise NoVisibilitiesError(
            "no visibility is within the image's resolution; choose a smaller --pixel"
        )
    return WeightTotals(total, samples, unflagged, channels / total)


def tracks_of(spool: Visibilities, epsilon: float) -> Tracks:
    """Nodes of the baselines' tracks, for images of all channels together of an accuracy."""
    tolerance = NODE_TOLERANCE * epsilon
    return Tracks(spool.uvw, spool.times, spool.frequencies, tolerance, BLOCK_SAMPLES)


class Measurement:
    """Weighted visibilities and the images that they make.

    Parameters
    ----------
    spool : Visibilities
        Visibilities with imaging weights.
    gridder : Gridder
        From visibilities to images.
    totals : WeightTotals
        Of the imaging weights.
    terms : int
        Spectral terms at most.
    tracks : Tracks, optional
        Nodes of the baselines' tracks, if they have been made already.
    """

    def __init__(
        self,
        spool: Visibilities,
        gridder: Gridder,
        totals: WeightTotals,
        terms: int = 1,
        tracks: Tracks | None = None,
    ) -> None:
        self.spool, self.gridder, self.totals = spool, gridder, totals
        self.basis: Basis = make_basis(spool.frequencies, totals.channels, terms)
        self._tracks = tracks or tracks_of(spool, gridder.epsilon)
        self._dirty: Image | None = None

    @property
    def compression(self) -> float:
        """Samples per node."""
        n_baselines, n_dumps, _ = self.spool.shape
        nodes = sum(len(part.uvw) for part in self._tracks.nodes(self.gridder.grid))
        return n_baselines * n_dumps / nodes

    def dirty_image(self) -> Image:
        """Dirty images of all terms, float32 (terms, size, size), Jy/beam; made once."""
        if self._dirty is None:
            self._dirty = self._images(self.gridder, list(self.basis.values))
        return self._dirty

    def point_spread_function(self, size: int) -> Image:
        """Responses to a source of 1 Jy at the phase centre, of pairs of terms.

        Parameters
        ----------
        size : int
            Pixels along a side. CLEAN wants twice the image's, so that every offset between two of
            its pixels is there; to fit a beam, less is enough.

        Returns
        -------
        float32 (pairs, size, size)
            Of terms (0, 0), (0, 1), …, (1, 1), …: what term s sees of a component of term t.
        """
        values, terms = self.basis.values, self.basis.terms
        spectra = [values[s] * values[t] for s in range(terms) for t in range(s, terms)]
        grid = ImageGrid(size, self.gridder.grid.pixel)
        return self._images(replace(self.gridder, grid=grid), spectra, of_visibilities=False)

    def _images(
        self,
        gridder: Gridder,
        spectra: list[npt.NDArray[np.float64]],
        *,
        of_visibilities: bool = True,
    ) -> Image:
        """Images of visibilities (or of ones) times each spectrum."""
        spool, size = self.spool, gridder.grid.size
        images = np.zeros((len(spectra), size, size), np.float32)
        for nodes in self._tracks.nodes(gridder.grid):
            vis = nodes.gather(spool.vis if of_visibilities else None, spool.imaging_weights)
            self._add(images, gridder, nodes, vis, spectra)
        images /= np.float32(self.totals.total)
        return images

    def _add(
        self,
        images: Image,
        gridder: Gridder,
        nodes: Nodes,
        vis: npt.NDArray[np.complex64],
        spectra: list[npt.NDArray[np.float64]],
    ) -> None:
        for image, spectrum in zip(images, spectra, strict=True):
            flat = bool(np.all(spectrum == 1))
            values = vis if flat else vis * spectrum.astype(np.float32)
            image += gridder.to_image(nodes.uvw, self.spool.frequencies, values)

    def residual_of(self, model: Image) -> Image:
        """Images of what a model does not explain: one major cycle.

        What the visibilities themselves make is known, so it is the image of the *model's* visibilities that
        is made and taken away.

        Parameters
        ----------
        model : float32 (terms, size, size)
            Jy per pixel.
        """
        explained = np.zeros_like(model)
        spectra = list(self.basis.values)
        for nodes in self._tracks.nodes(self.gridder.grid):
            vis = self._predicted(nodes, model)
            vis = nodes.weigh(vis, self.spool.imaging_weights)
            self._add(explained, self.gridder, nodes, vis, spectra)
        explained /= np.float32(self.totals.total)
        return np.subtract(self.dirty_image(), explained, out=explained)

    def _predicted(self, nodes: Nodes, model: Image) -> npt.NDArray[np.complex64]:
        """Visibilities of a model at the nodes."""
        frequencies = self.spool.frequencies
        vis = self.gridder.to_visibilities(nodes.uvw, frequencies, model[0])
        for image, spectrum in zip(model[1:], self.basis.values[1:], strict=True):
            if image.any():
                term = self.gridder.to_visibilities(nodes.uvw, frequencies, image)
                term *= spectrum.astype(np.float32)
                vis += term
        return vis
