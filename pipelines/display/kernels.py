"""Compiled: an L0 dump summed into the few hundred bins of frequency that a screen can show.

Every sample of a dump is read once. The sums of one sender's channels touch no other's, so parts of a dump
could be summed in any order.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from pipelines.catalogue import DISPLAY_BINS

Complexes = npt.NDArray[np.complex64]
Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

MAX_BINS: Final = DISPLAY_BINS
"""Bins of frequency: more than a panel of the page has pixels for."""


def bin_of_channel(n_chans: int, max_bins: int = MAX_BINS) -> Ints:
    """Return the bin of each channel, shape (n_chans,): at most `max_bins`, of nearly equal width."""
    n_bins = min(n_chans, max_bins)
    return np.arange(n_chans, dtype=np.int64) * n_bins // n_chans


@njit(cache=True, nogil=True)
def add_part(
    vis: Complexes,
    flags: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.uint8],
    bins: Ints,
    total: Complexes,
    good: Counts,
    flagged: Counts,
) -> None:
    """Add one part of a dump to the sums of its bins.

    Parameters
    ----------
    vis, flags, weights
        Of the part, shape (chan, bls).
    bins
        Bin of each channel of the part, shape (chan,).
    total
        Sums of the visibilities that have weight, shape (bin, bls).
    good
        Their number, shape (bin, bls).
    flagged
        Samples with any flag, shape (bin, bls).
    """
    n_bls = vis.shape[1]
    for channel in range(vis.shape[0]):
        b = bins[channel]
        for i in range(n_bls):
            if weights[channel, i]:
                total[b, i] += vis[channel, i]
                good[b, i] += 1
            if flags[channel, i]:
                flagged[b, i] += 1


@njit(cache=True, nogil=True)
def finish(total: Complexes, good: Counts, band: Complexes) -> None:
    """Turn sums into means, NaN where nothing was good, and give the mean over the band of each product.

    Parameters
    ----------
    total
        Sums, and means afterwards, shape (bin, bls).
    good
        Number of samples in each, shape (bin, bls).
    band
        Filled with the means over all good samples, shape (bls,).
    """
    n_bins, n_bls = total.shape
    count = np.zeros(n_bls, np.int64)
    band[:] = 0
    for b in range(n_bins):
        for i in range(n_bls):
            if good[b, i]:
                band[i] += total[b, i]
                count[i] += good[b, i]
                total[b, i] /= good[b, i]
            else:
                total[b, i] = np.nan
    for i in range(n_bls):
        band[i] = band[i] / count[i] if count[i] else np.nan
