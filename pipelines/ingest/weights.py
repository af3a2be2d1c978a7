"""Weights of L0: inverse variances, from the autocorrelations.

A visibility of inputs ``a`` and ``b`` that is the mean of ``n`` samples has the variance ``P_a P_b / (n B t)``
(radiometer equation: ``P`` the powers of the inputs, ``B t`` bandwidth × time of a sample; Thompson, Moran &
Swenson 2017, section 6.2), and the weight ``n B t / (P_a P_b)``. When visibilities are divided by gains, and
their weights multiplied by the gains' squares, weights are what the receivers' noise makes them, however
unequal the gains are. katdal does the same where it finds ``need_weights_power_scale``, from L0's averages;
here samples with interference count, which averages leave out: they are noise as well.

L0 has bytes for weights and one scale for a channel: a weight is kept to half a 255th of the greatest there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numba import njit

from pipelines.common.baselines import BlsOrdering, auto_products
from pipelines.common.spead import FLAG_DATA_LOST
from pipelines.common.stream_info import CorrelatorStream

MAX_WEIGHT = 255


@dataclass(frozen=True, slots=True)
class Weighting:
    """Where the powers of the inputs are found, and what a sample is worth."""

    autos: npt.NDArray[np.int64]
    """Products of inputs with themselves, shape (n_powers,)."""
    inputs: npt.NDArray[np.int64]
    """Positions of each product's two inputs in `autos`, shape (n_bls, 2); -1: there is no such product."""
    information: float
    """Bandwidth × time of an input sample."""

    @classmethod
    def of(cls, ordering: BlsOrdering, stream: CorrelatorStream) -> Self:
        """Return the weighting of products of `stream` in the given order."""
        products = auto_products(ordering)
        autos = np.unique(products[products >= 0])
        inputs = np.where(products >= 0, np.searchsorted(autos, products), -1)
        return cls(autos, inputs, stream.channel_width * stream.int_time)

    @classmethod
    def equal(cls, n_bls: int) -> Self:
        """Return the weighting that has nothing but the number of samples to go by."""
        return cls(np.zeros(0, np.int64), np.full((n_bls, 2), -1), 1.0)


@njit(nogil=True, cache=True)
def add_powers(
    vis: Any, flags: Any, autos: Any, factor: int, start: int, stop: int, total: Any, count: Any
) -> None:
    """Add the powers of the inputs in one dump to sums, interference and clipped samples included.

    Parameters
    ----------
    vis, flags
        complex64 and uint8 (C, B).
    autos
        See :class:`Weighting`.
    factor
        Channels per output channel.
    start, stop
        Range of output channels to work on.
    total, count
        float32 and uint32 (C', n_powers), added to.
    """
    for out in range(start, stop):
        for c in range(out * factor, (out + 1) * factor):
            for i in range(autos.shape[0]):
                if flags[c, autos[i]] & FLAG_DATA_LOST == 0:
                    total[out, i] += vis[c, autos[i]].real
                    count[out, i] += np.uint32(1)


def mean_powers(
    total: npt.NDArray[np.float32], count: npt.NDArray[np.uint32]
) -> npt.NDArray[np.float32]:
    """Return powers, with a substitute where no sample came.

    The substitute is the mean of the channel's other inputs; in a channel without any, that of the other
    channels; and 1 where there is no power at all, as in recordings without autocorrelations.

    Returns
    -------
    array
        float32, shape (C', n_powers + 1): the last column is the substitute.
    """
    seen = count > 0
    powers = np.where(seen, total / np.maximum(count, 1), 0)
    n_seen = seen.sum(axis=1)
    channel = powers.sum(axis=1) / np.maximum(n_seen, 1)
    usual = channel[n_seen > 0].mean() if n_seen.any() else 1.0
    substitute = np.where(n_seen > 0, channel, usual)[:, np.newaxis]
    return np.hstack([np.where(seen, powers, substitute), substitute]).astype(np.float32)


@njit(nogil=True, cache=True)
def weigh(
    count: Any,
    powers: Any,
    inputs: Any,
    information: float,
    start: int,
    stop: int,
    weights: Any,
    weights_channel: Any,
) -> None:
    """Write weights, and clear the numbers of samples.

    No weight is less than a 255th of its channel's greatest, but 0 where an input is dead, without any power.

    Parameters
    ----------
    count
        uint32 (C', B): good samples in each average; zero afterwards.
    powers
        float32 (C', n_powers + 1), as :func:`mean_powers` returns them.
    inputs, information
        See :class:`Weighting`.
    start, stop
        Range of output channels to work on.
    weights, weights_channel
        uint8 (C', B) and float32 (C',), written.
    """
    n_bls = inputs.shape[0]
    exact = np.empty(n_bls, np.float64)
    for out in range(start, stop):
        greatest = 0.0
        for b in range(n_bls):
            power = np.float64(powers[out, inputs[b, 0]]) * powers[out, inputs[b, 1]]
            exact[b] = count[out, b] * information / power if power > 0 else 0.0
            greatest = max(greatest, exact[b])
            count[out, b] = 0
        unit = greatest / MAX_WEIGHT if greatest > 0 else 1.0
        weights_channel[out] = unit
        for b in range(n_bls):
            weights[out, b] = max(1, round(exact[b] / unit)) if exact[b] > 0 else 0
