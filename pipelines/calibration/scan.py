"""The visibilities of one scan of a calibrator, as the solvers take them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.common.baselines import POLARISATIONS, BlsOrdering, antenna_names, split_input
from pipelines.common.errors import StreamError
from pipelines.common.l0 import Dump

BYTES_PER_SAMPLE: Final = 12
"""complex64 visibility and float32 weight."""


@dataclass(frozen=True, slots=True)
class ParallelHands:
    """Where the parallel-hand cross-correlations of an array are on the baseline axis."""

    antennas: tuple[str, ...]
    """In order of their names, as katdal lists them."""
    ant1: npt.NDArray[np.int64]
    """(P,) first antenna of each pair."""
    ant2: npt.NDArray[np.int64]
    products: npt.NDArray[np.int64]
    """(pol, P) index on the baseline axis for h and v, -1 where there is none."""

    @classmethod
    def of(cls, ordering: BlsOrdering) -> ParallelHands:
        """Find them in an ordering.

        Raises
        ------
        StreamError
            There is no cross-correlation of like polarisations.
        """
        antennas = tuple(sorted(antenna_names(ordering)))
        position = {name: i for i, name in enumerate(antennas)}
        found: dict[tuple[int, int], list[int]] = {}
        for index, (label1, label2) in enumerate(ordering):
            (name1, pol1), (name2, pol2) = split_input(label1), split_input(label2)
            if pol1 == pol2 and name1 != name2:
                pair = found.setdefault((position[name1], position[name2]), [-1, -1])
                pair[POLARISATIONS.index(pol1)] = index
        if not found:
            raise StreamError("bls_ordering has no cross-correlations to calibrate with")
        pairs = np.array(list(found), np.int64)
        products = np.array(list(found.values()), np.int64).T
        return cls(antennas, pairs[:, 0].copy(), pairs[:, 1].copy(), products)

    @property
    def n_pairs(self) -> int:
        """P, pairs of different antennas."""
        return len(self.ant1)


def dump_bytes(n_chans: int, n_antennas: int) -> int:
    """Memory of one dump in a scan's buffer: both parallel hands of all pairs of antennas."""
    return n_chans * n_antennas * (n_antennas - 1) * BYTES_PER_SAMPLE


@dataclass(frozen=True, slots=True)
class ScanDump:
    """What is kept of one dump."""

    time: float
    """Centre, Unix s."""
    vis: npt.NDArray[np.complex64]
    """(pol, chan, P), 0 where the weight is 0."""
    weights: npt.NDArray[np.float32]
    """(pol, chan, P), 0 for what is flagged, lost or not finite."""


def keep(dump: Dump, time: float, hands: ParallelHands, n_chans: int) -> ScanDump:
    """Copy what calibration needs out of a received dump."""
    shape = (len(POLARISATIONS), n_chans, hands.n_pairs)
    vis, weights = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    for part in dump.parts:
        rows = slice(part.channels.start, part.channels.stop)
        for pol, index in enumerate(hands.products):
            part_vis = part.vis[:, index]
            part_weights = part.weights[:, index] * part.weights_channel[:, np.newaxis]
            good = (part.flags[:, index] == 0) & (index >= 0)
            with np.errstate(invalid="ignore", over="ignore"):
                good &= np.isfinite(part_weights) & (part_weights > 0)
                good &= np.isfinite(np.abs(part_vis))
            vis[pol, rows] = np.where(good, part_vis, 0)
            weights[pol, rows] = np.where(good, part_weights, 0)
    return ScanDump(time, vis, weights)


@dataclass(frozen=True, slots=True)
class Scan:
    """A calibrator's visibilities divided by its model."""

    times: npt.NDArray[np.float64]
    """(T,) centres of the dumps, Unix s."""
    vis: npt.NDArray[np.complex64]
    """(pol, T, chan, P)"""
    weights: npt.NDArray[np.float32]
    """(pol, T, chan, P), inverse variances up to a factor."""
    hands: ParallelHands
    freqs: npt.NDArray[np.float64]
    """(chan,) Hz"""

    @classmethod
    def of(
        cls,
        dumps: deque[ScanDump],
        hands: ParallelHands,
        freqs: npt.NDArray[np.float64],
        flux: npt.NDArray[np.float64],
    ) -> Scan:
        """Put dumps together and divide by the flux density of the model, Jy, shape (chan,).

        `dumps` is emptied on the way, so that nothing is in memory twice.
        """
        scale = flux[:, np.newaxis].astype(np.float32)
        times = np.array([dump.time for dump in dumps])
        pols, *rest = dumps[0].vis.shape
        vis = np.empty((pols, len(dumps), *rest), np.complex64)
        weights = np.empty(vis.shape, np.float32)
        for index in range(len(times)):
            dump = dumps.popleft()
            np.divide(dump.vis, scale, out=vis[:, index])
            np.multiply(dump.weights, scale**2, out=weights[:, index])
        return cls(times, vis, weights, hands, freqs)

    @property
    def n_antennas(self) -> int:
        """Antennas of the array, dead ones included."""
        return len(self.hands.antennas)

    def corrected(self, gains: npt.NDArray[np.complexfloating[Any, Any]]) -> Scan:
        """Divide by gains that broadcast to (pol, T, chan, antenna); what has no gain gets no weight."""
        pairs = gains[..., self.hands.ant1] * gains[..., self.hands.ant2].conj()
        good = np.isfinite(pairs) & (pairs != 0)
        pairs = np.where(good, pairs, 1).astype(np.complex64)
        power = (pairs.real**2 + pairs.imag**2) * good
        return Scan(self.times, self.vis / pairs, self.weights * power, self.hands, self.freqs)


def average(
    vis: npt.NDArray[np.complexfloating[Any, Any]],
    weights: npt.NDArray[np.floating[Any]],
    axis: int | tuple[int, ...],
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.float64]]:
    """Return the weighted mean over `axis` and its weights; 0 where there is no weight."""
    total = weights.sum(axis=axis, dtype=np.float64)
    mean = (vis * weights).sum(axis=axis, dtype=np.complex128)
    return np.divide(mean, total, out=np.zeros_like(mean), where=total > 0), total
