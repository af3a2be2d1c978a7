"""Visibilities added up: of the dumps of one solution interval, and of the calibrated intervals of a scan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines import catalogue
from pipelines.calibration import kernels
from pipelines.calibration.pairs import N_PARALLEL, Pairs
from pipelines.calibration.parallel import in_ranges
from pipelines.common.l0 import Dump, DumpPart

N_BLOCKS: Final = 16
"""Blocks of channels of averages over the band."""


def interval_bytes(pairs: Pairs, n_chans: int) -> int:
    """Memory of the arrays of an :class:`Interval`."""
    return catalogue.calibration_interval_bytes(
        n_chans, pairs.n_antennas, pairs.n_pairs * pairs.n_products
    )


class Interval:
    """Sums over time of visibilities and weights; the memory is used again and again.

    Parameters
    ----------
    pairs
        Of the array.
    n_chans
        Channels of the stream.
    """

    def __init__(self, pairs: Pairs, n_chans: int) -> None:
        shape = (pairs.n_products, n_chans, pairs.n_pairs)
        self.pairs = pairs
        self.n_chans = n_chans
        # Pages that no scan has needed are not there yet, and so cost nothing to clear.
        self._used = False
        self.sums: npt.NDArray[np.complex64] = np.zeros(shape, np.complex64)
        """(prod, chan, P) weights times visibilities."""
        self.weights: npt.NDArray[np.float32] = np.zeros(shape, np.float32)
        """(prod, chan, P)"""
        self.good: npt.NDArray[np.uint32] = np.zeros((n_chans, pairs.n_antennas), np.uint32)
        """(chan, ant) unflagged samples of the parallel hands of an antenna's pairs."""
        self.times: list[float] = []
        """Centres of the dumps, Unix s."""

    def clear(self) -> None:
        """Begin anew."""
        if self._used:
            for array in (self.sums, self.weights, self.good):
                array[...] = 0
        self._used = False
        self.times.clear()

    @property
    def time(self) -> float:
        """Mean of the dumps' centres, Unix s."""
        return sum(self.times) / len(self.times)

    def add(self, dump: Dump, time: float) -> None:
        """Add a received dump, without what is flagged, lost or not finite."""
        pairs = self.pairs
        self._used = True
        for part in dump.parts:
            first = part.channels.start

            def add(start: int, stop: int, part: DumpPart = part, first: int = first) -> None:
                """Add channels ``start`` to ``stop`` of a part, whose channel 0 is the band's ``first``."""
                rows, to = slice(start, stop), slice(first + start, first + stop)
                kernels.add_part(
                    part.vis[rows], part.flags[rows], part.weights[rows], part.weights_channel[rows],
                    pairs.products, pairs.ant1, pairs.ant2,
                    self.sums[:, to], self.weights[:, to], self.good[to],
                )  # fmt: skip

            in_ranges(len(part.channels), 1, add)
        self.times.append(time)

    def band_sums(
        self, gains: npt.NDArray[np.complex64]
    ) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.float64]]:
        """Return the sums and weights of blocks of channels, divided by gains, shape (pol, block, P).

        Parameters
        ----------
        gains
            (pol, chan, ant), 0 where there is none.
        """
        pairs = self.pairs
        edges = block_edges(self.n_chans)
        shape = (N_PARALLEL, len(edges) - 1, pairs.n_pairs)
        vis, weights = np.empty(shape, np.complex128), np.empty(shape)

        def average(start: int, stop: int) -> None:
            kernels.band_sums(
                self.sums, self.weights, gains, pairs.ant1, pairs.ant2, edges[start : stop + 1],
                vis[:, start:stop], weights[:, start:stop],
            )  # fmt: skip

        in_ranges(len(edges) - 1, 1, average)
        return vis, weights

    def fold(
        self,
        intervals: Iterable[Interval],
        gains: npt.NDArray[np.complex64],
        levels: Iterable[npt.NDArray[np.complex64]],
    ) -> None:
        """Add intervals, divided by gains (pol, chan, ant) times the level of each (pol, ant); 0 for none."""
        pairs = self.pairs
        self._used = True
        for interval, level in zip(intervals, levels, strict=True):

            def fold(
                start: int,
                stop: int,
                interval: Interval = interval,
                level: npt.NDArray[np.complex64] = level,
            ) -> None:
                """Add channels ``start`` to ``stop`` of an interval, whose level is (pol, ant)."""
                kernels.fold(
                    interval.sums, interval.weights, gains, level, pairs.ant1, pairs.ant2,
                    start, stop, self.sums, self.weights,
                )  # fmt: skip

            in_ranges(self.n_chans, 1, fold)
            self.good += interval.good


def block_edges(n_chans: int) -> npt.NDArray[np.int64]:
    """Return where the blocks of channels of averages begin and end."""
    return np.linspace(0, n_chans, min(N_BLOCKS, n_chans) + 1).astype(np.int64)
