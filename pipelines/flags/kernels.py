"""Compiled: interference in a window of dumps, product by product.

Ingest looks at one dump at a time. What is too weak to be seen in one stands out in the mean over a window (the
method along frequency is that of :mod:`pipelines.common.rfi`), and what is too broad to be told from the
background along frequency stands out along time, in means over parts of the band. Where there is a bandpass,
amplitudes are divided by it first: what is fainter than the structure of a spectrum cannot be told from it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from pipelines.common.rfi import MIN_CHANNELS, difference_noise, flag_spectrum
from pipelines.common.spead import FLAG_CAL_RFI

SUBBAND: Final = 32
"""Channels of the parts of the band that are looked at along time."""
MIN_DUMPS: Final = 4
"""Dumps that a window needs to be looked at along time."""
MIN_EXCESS: Final = 0.05
"""A part of the band is flagged only where it exceeds the usual by this part of it: tracking errors and
weather change amplitudes by a few per cent, too."""
_MAD_TO_SIGMA: Final = 1.4826


@njit(nogil=True, cache=True)
def add_amplitudes(vis: Any, flags: Any, weights: Any, out: Any) -> None:
    """Write the amplitudes of one part of a dump, NaN for samples that are flagged or have no weight.

    Parameters
    ----------
    vis, flags, weights
        complex64, uint8, uint8 (chan, bls).
    out
        float32 (chan, bls).
    """
    for c in range(vis.shape[0]):
        for i in range(vis.shape[1]):
            good = flags[c, i] == 0 and weights[c, i] != 0
            out[c, i] = abs(vis[c, i]) if good else np.nan


@njit(nogil=True, cache=True)
def divide_bandpass(amplitudes: Any, bandpass: Any, pairs: Any) -> None:
    """Divide the amplitudes of products by those of their inputs' bandpasses.

    Parameters
    ----------
    amplitudes
        float32 (T, C, B), changed.
    bandpass
        float32 (C, inputs).
    pairs
        int64 (B, 2): inputs of each product.
    """
    n_dumps, n_chans, n_bls = amplitudes.shape
    for c in range(n_chans):
        for b in range(n_bls):
            level = bandpass[c, pairs[b, 0]] * bandpass[c, pairs[b, 1]]
            for t in range(n_dumps):
                amplitudes[t, c, b] /= level


@njit(nogil=True, cache=True)
def _mean_over_time(series: Any, mean: Any) -> None:
    n_dumps, n_chans = series.shape
    for c in range(n_chans):
        total = 0.0
        n = 0
        for t in range(n_dumps):
            if not np.isnan(series[t, c]):
                total += series[t, c]
                n += 1
        mean[c] = total / n if n else np.nan


@njit(nogil=True, cache=True)
def _flag_along_time(series: Any, hit: Any, n_sigma: float, found: Any) -> None:
    """Set `found` (T, C) in parts of the band and dumps that exceed what is usual there."""
    n_dumps, n_chans = series.shape
    level = np.empty(n_dumps)
    for first in range(0, n_chans, SUBBAND):
        last = min(first + SUBBAND, n_chans)
        least = n_chans
        for t in range(n_dumps):
            total = 0.0
            n = 0
            for c in range(first, last):
                if not hit[c] and not np.isnan(series[t, c]):
                    total += series[t, c]
                    n += 1
            level[t] = total / n if n else np.nan
            if n:
                least = min(least, n)
        good = level[~np.isnan(level)]
        if good.shape[0] < MIN_DUMPS:
            continue
        usual = np.median(good)
        spread = _MAD_TO_SIGMA * np.median(np.abs(good - usual))
        noise = difference_noise(series[0, first:last]) / np.sqrt(least)
        limit = max(n_sigma * max(spread, noise), MIN_EXCESS * usual)
        for t in range(n_dumps):
            if level[t] - usual > limit:
                found[t, first:last] = True


@njit(nogil=True, cache=True)
def flag_window(
    amplitudes: Any, flags: Any, half_width: int, n_sigma: float, falloff: float, doublings: int
) -> int:
    """Set ``FLAG_CAL_RFI`` where a window has interference; return the number of samples.

    Parameters
    ----------
    amplitudes
        float32 (T, C, B), NaN for samples that are no evidence; they get no flag either.
    flags
        uint8 (T, C, B), changed.
    half_width, n_sigma, falloff, doublings
        See :class:`pipelines.common.rfi.FlaggerSettings`.
    """
    n_dumps, n_chans, n_bls = amplitudes.shape
    if n_chans < max(MIN_CHANNELS, 2 * half_width + 1):
        return 0
    series = np.empty((n_dumps, n_chans), np.float32)
    mean = np.empty(n_chans, np.float32)
    hit = np.empty(n_chans, np.bool_)
    found = np.empty((n_dumps, n_chans), np.bool_)
    count = 0
    for b in range(n_bls):
        series[:] = amplitudes[:, :, b]
        found[:] = False
        _mean_over_time(series, mean)
        flag_spectrum(mean, half_width, n_sigma, falloff, doublings, 0.0, hit)
        for c in range(n_chans):
            if hit[c]:
                found[:, c] = True
        if n_dumps >= MIN_DUMPS:
            _flag_along_time(series, hit, n_sigma, found)
        for t in range(n_dumps):
            for c in range(n_chans):
                if found[t, c] and not np.isnan(series[t, c]):
                    flags[t, c, b] |= FLAG_CAL_RFI
                    count += 1
    return count
