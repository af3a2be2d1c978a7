"""Compiled loops over the samples of a dump. Arrays in, arrays out; none of them holds the GIL.

Each function works on a range of channels, so that threads can share a dump. Shapes: `C` input channels of this
ingest, `B` products, `C'` output channels.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from pipelines.common.spead import FLAG_DATA_LOST, FLAG_SATURATED, MAX_COUNT, MISSING

_MISSING_REAL: Final = MISSING[0]
_MISSING_IMAG: Final = MISSING[1]


@njit(nogil=True, cache=True)
def _flag_of(real: Any, imag: Any) -> int:
    """Flag of a sample as it came: its counts are the marker of missing data, clipped, or good (0)."""
    if real == _MISSING_REAL and imag == _MISSING_IMAG:
        return FLAG_DATA_LOST
    if min(real, imag) <= -MAX_COUNT or max(real, imag) >= MAX_COUNT:
        return FLAG_SATURATED
    return 0


@njit(nogil=True, cache=True)
def unpack(
    counts: Any,
    present: Any,
    order: Any,
    scale: float,
    start: int,
    stop: int,
    vis: Any,
    flags: Any,
) -> tuple[int, int]:
    """Scale counts to visibilities and mark what is missing or clipped.

    Parameters
    ----------
    counts
        int32 (C, B, 2): real and imaginary counts; rubbish where the heap is not present.
    present
        uint8 (n_heaps,): which heaps came; each has ``C / n_heaps`` channels.
    order
        int64 (B,): the input product that each output product is taken from.
    scale
        Jy per count.
    start, stop
        Range of channels to work on.
    vis, flags
        complex64 and uint8 (C, B), written: 0 and ``FLAG_DATA_LOST`` where there is no data, ``FLAG_SATURATED``
        where a count was clipped.

    Returns
    -------
    tuple
        Numbers of samples lost and of samples clipped.
    """
    n_chans, n_bls = vis.shape
    per_heap = n_chans // present.shape[0]
    factor = np.float32(scale)
    lost = saturated = 0
    for c in range(start, stop):
        if present[c // per_heap] == 0:
            vis[c] = 0
            flags[c] = FLAG_DATA_LOST
            lost += n_bls
            continue
        for b in range(n_bls):
            real = counts[c, order[b], 0]
            imag = counts[c, order[b], 1]
            flag = _flag_of(real, imag)
            flags[c, b] = flag
            lost += flag == FLAG_DATA_LOST
            saturated += flag == FLAG_SATURATED
            if flag == FLAG_DATA_LOST:
                vis[c, b] = 0
            else:
                vis[c, b] = np.complex64(
                    complex(np.float32(real) * factor, np.float32(imag) * factor)
                )
    return lost, saturated


@njit(nogil=True, cache=True)
def accumulate(
    vis: Any,
    flags: Any,
    reject: int,
    factor: int,
    start: int,
    stop: int,
    total: Any,
    count: Any,
    seen: Any,
) -> None:
    """Add a dump to sums over time and over groups of channels.

    Parameters
    ----------
    vis, flags
        complex64 and uint8 (C, B).
    reject
        Bits of the flags that keep a sample out of the sum.
    factor
        Channels per output channel.
    start, stop
        Range of output channels to work on.
    total, count, seen
        complex64, uint32, uint8 (C', B), added to: sum and number of good samples, and all flags met.
    """
    n_bls = vis.shape[1]
    for out in range(start, stop):
        for c in range(out * factor, (out + 1) * factor):
            for b in range(n_bls):
                flag = flags[c, b]
                seen[out, b] |= flag
                if flag & reject == 0:
                    total[out, b] += vis[c, b]
                    count[out, b] += np.uint32(1)


@njit(nogil=True, cache=True)
def conclude(
    total: Any,
    count: Any,
    seen: Any,
    reject: int,
    start: int,
    stop: int,
    vis: Any,
    flags: Any,
) -> int:
    """Turn sums into averages and flags, and clear them.

    A sample with good input carries the flags of what was averaged into it; one without carries all flags that
    kept its input out, ``FLAG_DATA_LOST`` if nothing came at all.

    Parameters
    ----------
    total, count, seen
        As left by :func:`accumulate`; `total` and `seen` are zero afterwards.
    reject
        As given to :func:`accumulate`.
    start, stop
        Range of output channels to work on.
    vis, flags
        complex64 and uint8 (C', B), written.

    Returns
    -------
    int
        Number of output samples that are flagged.
    """
    flagged = 0
    for out in range(start, stop):
        for b in range(vis.shape[1]):
            good = count[out, b]
            if good > 0:
                vis[out, b] = total[out, b] / np.float32(good)
                flags[out, b] = seen[out, b] & ~reject
            else:
                vis[out, b] = 0
                flags[out, b] = seen[out, b] if seen[out, b] != 0 else FLAG_DATA_LOST
            if flags[out, b] != 0:
                flagged += 1
            total[out, b] = 0
            seen[out, b] = 0
    return flagged
