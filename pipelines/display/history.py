"""What the display remembers: the last dumps, in memory that is allotted once.

Of every product there is the newest spectrum and the mean over the band of each dump; of every input (its
product with itself) there are the spectra of all remembered dumps, which make a waterfall. The spectra over
time of other products are remembered from the moment that somebody watches them, for a bounded number of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines import catalogue
from pipelines.common.baselines import BlsOrdering, input_labels
from pipelines.common.l0 import DumpPart
from pipelines.display.kernels import MAX_BINS, add_part, bin_of_channel, finish

DEFAULT_DEPTH: Final = catalogue.DISPLAY_DEPTH
"""Dumps that are remembered."""
MAX_WATCHED: Final = catalogue.DISPLAY_WATCHED
"""Products whose spectra over time are remembered beside those of the inputs."""


@dataclass(frozen=True, slots=True)
class Axes:
    """What the arrays of a history count."""

    ordering: BlsOrdering
    freqs: npt.NDArray[np.float64]
    """Hz, of the channels, shape (n_chans,)."""
    max_bins: int = MAX_BINS

    @property
    def bins(self) -> npt.NDArray[np.int64]:
        """Bin of each channel, shape (n_chans,)."""
        return bin_of_channel(len(self.freqs), self.max_bins)

    @property
    def bin_freqs(self) -> npt.NDArray[np.float64]:
        """Mean frequency of each bin, Hz, shape (n_bins,)."""
        bins = self.bins
        return np.asarray(np.bincount(bins, self.freqs) / np.bincount(bins), dtype=np.float64)

    @property
    def inputs(self) -> tuple[tuple[str, int], ...]:
        """Inputs whose power is in the stream, with the product that it is."""
        products = {a: i for i, (a, b) in enumerate(self.ordering) if a == b}
        return tuple((x, products[x]) for x in input_labels(self.ordering) if x in products)


class History:
    """The last dumps of one stream. Not safe for use by two threads at once.

    Parameters
    ----------
    axes
        Products and frequencies.
    depth
        Dumps to remember.
    """

    def __init__(self, axes: Axes, depth: int = DEFAULT_DEPTH) -> None:
        self.axes = axes
        self.depth = depth
        self._bins = axes.bins
        self.bin_freqs = axes.bin_freqs
        self.n_bins, self.n_bls = len(self.bin_freqs), len(axes.ordering)
        self._channels = np.bincount(self._bins)
        self._autos = np.array([product for _, product in axes.inputs], np.int64)
        self._good = np.zeros((self.n_bins, self.n_bls), np.int32)
        self._flagged = np.zeros_like(self._good)
        self.spectrum = np.full((self.n_bins, self.n_bls), np.nan, np.complex64)
        """Of the newest dump, Jy of the model before gains; NaN where nothing was good."""
        self.times = np.full(depth, np.nan)
        """Unix time of each remembered dump's centre, s; dump `n` since the start is at ``n % depth``."""
        self.band = np.full((depth, self.n_bls), np.nan, np.complex64)
        """Means over the band."""
        self.occupancy = np.zeros((depth, self.n_bins), np.float32)
        """Part of all products' samples that is flagged or did not come."""
        self.flagged = np.ones(self.n_bls, np.float32)
        """The same of each product, in the newest dump."""
        self._inputs = np.full((depth, len(self._autos), self.n_bins), np.nan, np.float32)
        self._watched: OrderedDict[int, npt.NDArray[np.float32]] = OrderedDict()
        self.dumps = 0
        """Dumps taken since the program began."""
        self.start = 0
        """The first of them that belongs to the newest capture block."""

    def clear(self) -> None:
        """Forget the dumps, not what is watched: another capture block begins."""
        self.start = self.dumps
        self.times[:] = np.nan
        self.band[:] = np.nan
        self.spectrum[:] = np.nan
        self.occupancy[:] = 0
        self.flagged[:] = 1
        for rows in (self._inputs, *self._watched.values()):
            rows[:] = np.nan

    def take(self, time: float, parts: Sequence[DumpPart]) -> None:
        """Remember a dump; parts that did not come count as flagged. Blocks: for a worker thread."""
        self.spectrum[:] = 0
        self._good[:] = 0
        self._flagged[:] = 0
        seen = np.zeros(self.n_bins, np.int64)
        for part in parts:
            bins = self._bins[part.channels.start : part.channels.stop]
            add_part(
                part.vis, part.flags, part.weights, bins, self.spectrum, self._good, self._flagged
            )
            seen += np.bincount(bins, minlength=self.n_bins)
        row = self.dumps % self.depth
        missing = self._channels - seen
        finish(self.spectrum, self._good, self.band[row])
        per_product = self._flagged.sum(axis=0) + missing.sum()
        per_bin = self._flagged.sum(axis=1) + missing * self.n_bls
        self.flagged[:] = per_product / self._channels.sum()
        self.occupancy[row] = per_bin / (self._channels * self.n_bls)
        self.times[row] = time
        self._inputs[row] = self.spectrum[:, self._autos].real.T
        for product, rows in self._watched.items():
            rows[row] = np.abs(self.spectrum[:, product])
        self.dumps += 1

    def rows(self, since: int = 0) -> npt.NDArray[np.int64]:
        """Positions of the remembered dumps from the `since`-th on, in order of time."""
        first = max(since, self.dumps - self.depth, self.start)
        return np.arange(first, self.dumps) % self.depth

    def powers(self) -> npt.NDArray[np.float32]:
        """Mean power of each input in the newest dump, shape (n_inputs,); NaN where nothing came."""
        if self.dumps == self.start:
            return np.full(len(self._autos), np.nan, np.float32)
        newest = self.band[(self.dumps - 1) % self.depth]
        return np.asarray(newest[self._autos].real, np.float32)

    def waterfall(self, product: int) -> npt.NDArray[np.float32]:
        """Amplitudes of a product over time, shape (depth, n_bins), in the order of the rings.

        An input's product with itself has all that is remembered; any other is watched from now on, and the one
        that nobody has asked for the longest is given up where there are too many.
        """
        position = np.flatnonzero(self._autos == product)
        if len(position):
            return np.asarray(self._inputs[:, position[0]])
        if product not in self._watched:
            while len(self._watched) >= MAX_WATCHED:
                self._watched.popitem(last=False)
            rows = np.full((self.depth, self.n_bins), np.nan, np.float32)
            if self.dumps:
                rows[(self.dumps - 1) % self.depth] = np.abs(self.spectrum[:, product])
            self._watched[product] = rows
        self._watched.move_to_end(product)
        return self._watched[product]
