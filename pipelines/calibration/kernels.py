"""Passes over the visibilities of a scan: adding dumps, averaging over the band, adding up intervals.

All take a range of channels, so that several threads share a pass, and arrays whose last axis is that of
pairs of antennas. Products are in the order of :data:`~pipelines.calibration.pairs.PRODUCTS`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

_FAST: Final = {"reassoc", "contract", "arcp", "nsz"}


@njit(cache=True, nogil=True)
def add_part(
    vis: Any,
    flags: Any,
    weights: Any,
    weights_channel: Any,
    products: Any,
    ant1: Any,
    ant2: Any,
    sums: Any,
    totals: Any,
    good: Any,
) -> None:
    """Add part of a dump: weighted visibilities, weights, and how many samples of parallel hands are good.

    Parameters
    ----------
    vis, flags, weights, weights_channel
        (chan, bls), and (chan,), as received.
    products
        (prod, P) index on the axis of baselines, -1 where there is none.
    ant1, ant2
        (P,)
    sums, totals
        (prod, chan, P), of the same channels.
    good
        (chan, ant)
    """
    n_pairs = len(ant1)
    zero = np.float32(0)
    for c in range(vis.shape[0]):
        scale = weights_channel[c]
        if not (scale > zero and scale < np.inf):
            continue
        for q in range(products.shape[0]):
            for p in range(n_pairs):
                b = products[q, p]
                if b < 0 or flags[c, b] != 0 or weights[c, b] == 0:
                    continue
                weight = scale * np.float32(weights[c, b])
                re, im = vis[c, b].real * weight, vis[c, b].imag * weight
                # False for what is not a number, too.
                if not (abs(re) < np.inf and abs(im) < np.inf and weight < np.inf):
                    continue
                sums[q, c, p] += complex(re, im)
                totals[q, c, p] += weight
                if q < 2:
                    good[c, ant1[p]] += 1
                    good[c, ant2[p]] += 1


@njit(cache=True, nogil=True, fastmath=_FAST)
def band_sums(
    sums: Any, totals: Any, gains: Any, ant1: Any, ant2: Any, edges: Any, vis: Any, weights: Any
) -> None:
    """Average the parallel hands, divided by gains, over blocks of channels, as sums.

    Parameters
    ----------
    sums, totals
        (prod, chan, P)
    gains
        (pol, chan, ant), 0 where there is none.
    edges
        (block + 1,) channels at which blocks begin and end.
    vis, weights
        (pol, block, P) complex128 and float64, written.
    """
    n_pairs = len(ant1)
    for pol in range(2):
        for block in range(len(edges) - 1):
            out, out_weights = vis[pol, block], weights[pol, block]
            out[:] = 0.0
            out_weights[:] = 0.0
            for c in range(edges[block], edges[block + 1]):
                g, row, row_totals = gains[pol, c], sums[pol, c], totals[pol, c]
                for p in range(n_pairs):
                    pair = g[ant1[p]] * np.conj(g[ant2[p]])
                    out[p] += np.conj(pair) * row[p]
                    out_weights[p] += (pair.real**2 + pair.imag**2) * row_totals[p]


@njit(cache=True, nogil=True, fastmath=_FAST)
def fold(
    sums: Any,
    totals: Any,
    gains: Any,
    level: Any,
    ant1: Any,
    ant2: Any,
    start: int,
    stop: int,
    out: Any,
    out_totals: Any,
) -> None:
    """Add an interval, divided by its gains, to the sums of the scan, for a range of channels.

    Parameters
    ----------
    sums, totals
        (prod, chan, P)
    gains
        (pol, chan, ant), 0 where there is none.
    level
        (pol, ant) gain of the interval, 0 where there is none.
    out, out_totals
        (prod, chan, P), added to.
    """
    n_pairs, n_antennas = len(ant1), level.shape[1]
    g = np.empty((2, n_antennas), np.complex64)
    for c in range(start, stop):
        for pol in range(2):
            for ant in range(n_antennas):
                g[pol, ant] = gains[pol, c, ant] * level[pol, ant]
        for q in range(sums.shape[0]):
            first = g[0] if q == 0 or q == 2 else g[1]
            second = g[0] if q == 0 or q == 3 else g[1]
            row, row_totals = sums[q, c], totals[q, c]
            to, to_totals = out[q, c], out_totals[q, c]
            for p in range(n_pairs):
                pair = first[ant1[p]] * np.conj(second[ant2[p]])
                to[p] += np.conj(pair) * row[p]
                to_totals[p] += (pair.real * pair.real + pair.imag * pair.imag) * row_totals[p]
