"""The flagger of :mod:`pipelines.common.rfi` for many products at once.

What that module does to one spectrum after the other is done here to :data:`LANES` of them side by side: a step
is a loop over channels around a loop over lanes that the compiler turns into vector instructions. The running
median is exact (a sorted window per lane, of which each step replaces one value), the medians of the noise are
exact to a part in 2^15. Only spectra that have something above their threshold are looked at one by one.

Arrays of shape (C, LANES) or (LANES,) are float32; infinity stands for a sample that is not there.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import njit

from pipelines.common.rfi import MAD_TO_SIGMA, MIN_CHANNELS, sum_threshold
from pipelines.common.spead import FLAG_INGEST_RFI

LANES: Final = 32
_NONE: Final = np.float32(np.inf)
_LAST_BIT: Final = 8
"""Of a float32's 23 bits of mantissa, those below this one are not looked for in a median."""
_SURE: Final = 0.999
"""Part of the threshold above which a spectrum is looked at: rounding must not hide it."""


@njit(nogil=True, cache=True)
def _gather(vis: Any, flags: Any, first: int, size: int, x: Any) -> None:
    """Write the amplitudes of `size` products from `first` on to `x`."""
    for c in range(vis.shape[0]):
        for i in range(size):
            v = vis[c, first + i]
            amplitude = np.float32(math.sqrt(v.real * v.real + v.imag * v.imag))
            x[c, i] = amplitude if flags[c, first + i] == 0 else _NONE
        for i in range(size, x.shape[1]):
            x[c, i] = _NONE


@njit(nogil=True, cache=True)
def _replace(ordered: Any, old: Any, new: Any, out: Any) -> None:
    """Write sorted windows with one value replaced to `out`.

    Windows are of shape (width + 2, LANES), between infinities of either sign. When `old` is gone, `low` and
    `high` are values k - 1 and k; when `new` is in, value k is the middle one of these three.
    """
    for k in range(1, ordered.shape[0] - 1):
        below, here, above, to = ordered[k - 1], ordered[k], ordered[k + 1], out[k]
        for i in range(to.shape[0]):
            value = here[i]
            low = below[i] if below[i] < old[i] else value
            high = value if value < old[i] else above[i]
            middle = new[i] if new[i] > low else low
            to[i] = middle if middle < high else high


@njit(nogil=True, cache=True)
def _take_middle(ordered: Any, n: Any, out: Any) -> None:
    """Write the medians of windows with `n` values each to `out`."""
    for i in range(out.shape[0]):
        half = n[i] // 2
        if n[i] % 2 == 1:
            out[i] = ordered[half + 1, i]
        elif n[i] > 0:
            out[i] = np.float32(0.5) * (ordered[half, i] + ordered[half + 1, i])
        else:
            out[i] = _NONE


@njit(nogil=True, cache=True)
def running_medians(x: Any, half_width: int, background: Any) -> None:
    """Write the running medians of `x` to `background`; windows end at the edges."""
    n_chans, lanes = x.shape
    width = 2 * half_width + 1
    window = np.full((width + 2, lanes), _NONE, np.float32)
    window[0] = -_NONE
    other = window.copy()
    nothing = np.full(lanes, _NONE, np.float32)
    n = np.zeros(lanes, np.int32)
    for c in range(-half_width, n_chans):
        new = x[c + half_width] if c + half_width < n_chans else nothing
        old = x[c - half_width - 1] if c > half_width else nothing
        _replace(window, old, new, other)
        window, other = other, window
        full = 0
        for i in range(lanes):
            n[i] += np.int32(new[i] < _NONE) - np.int32(old[i] < _NONE)
            full += n[i] == width
        if c >= 0 and full == lanes:
            background[c] = window[half_width + 1]
        elif c >= 0:
            _take_middle(window, n, background[c])


@njit(nogil=True, cache=True)
def medians(values: Any, out: Any, n: Any) -> None:
    """Write the median of each lane's values, none of them negative, to `out`, and how many there are to `n`.

    Floats that are not negative have the order of their bits as whole numbers: the median is found bit by bit.
    """
    bits = values.view(np.int32)
    lanes = values.shape[1]
    found, candidate = np.zeros(lanes, np.int32), np.empty(lanes, np.int32)
    below = np.empty(lanes, np.int32)
    _count_below(bits, np.full(lanes, _NONE, np.float32).view(np.int32), n)
    for bit in range(30, _LAST_BIT - 1, -1):
        for i in range(lanes):
            candidate[i] = found[i] | np.int32(1 << bit)
        _count_below(bits, candidate, below)
        for i in range(lanes):
            found[i] = candidate[i] if below[i] <= (n[i] - 1) // 2 else found[i]
    upper = _next(bits, found, n)
    for i in range(lanes):
        even = n[i] % 2 == 0 and n[i] > 0
        candidate[i] = upper[i] if even else found[i]
    low, high = found.view(np.float32), candidate.view(np.float32)
    for i in range(lanes):
        out[i] = np.float32(0.5) * (low[i] + high[i])


@njit(nogil=True, cache=True)
def _next(bits: Any, found: Any, n: Any) -> Any:
    """Return the upper of the two values in the middle; `found` is the lower one."""
    lanes = found.shape[0]
    upper, last = np.full(lanes, _NONE, np.float32).view(np.int32), np.empty(lanes, np.int32)
    count = np.zeros(lanes, np.int32)
    for i in range(lanes):
        last[i] = found[i] | np.int32((1 << _LAST_BIT) - 1)
    for c in range(bits.shape[0]):
        row = bits[c]
        for i in range(lanes):
            above = row[i] > last[i]
            count[i] += np.int32(not above)
            upper[i] = row[i] if above and row[i] < upper[i] else upper[i]
    for i in range(lanes):
        if count[i] > (n[i] - 1) // 2 + 1:
            upper[i] = found[i]
    return upper


@njit(nogil=True, cache=True)
def _count_below(bits: Any, limit: Any, count: Any) -> None:
    count[:] = 0
    for c in range(bits.shape[0]):
        row = bits[c]
        for i in range(count.shape[0]):
            count[i] += np.int32(row[i] < limit[i])


@njit(nogil=True, cache=True)
def _deviations(x: Any, background: Any, out: Any) -> None:
    """Write the size of the deviation from the background to `out`."""
    for c in range(x.shape[0]):
        sample, level, to = x[c], background[c], out[c]
        for i in range(x.shape[1]):
            to[i] = abs(sample[i] - level[i]) if sample[i] < _NONE else _NONE


@njit(nogil=True, cache=True)
def _differences(x: Any, out: Any) -> None:
    """Write the size of second differences to `out`, shape (C - 2, LANES)."""
    for c in range(out.shape[0]):
        left, here, right, to = x[c], x[c + 1], x[c + 2], out[c]
        for i in range(x.shape[1]):
            difference = abs(np.float32(2) * here[i] - left[i] - right[i])
            to[i] = difference if difference < _NONE else _NONE  # infinities among each other: NaN


@njit(nogil=True, cache=True)
def _variations(background: Any, half_width: int, out: Any) -> None:
    """Write the range of the background within the window around each channel to `out`; see `rfi`."""
    n_chans, lanes = background.shape
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    for c in range(n_chans):
        first = min(max(0, c - half_width), n_chans - 2 * half_width - 1)
        low[:] = _NONE
        high[:] = -_NONE
        for k in range(first, first + 2 * half_width + 1):
            row = background[k]
            for i in range(lanes):
                value = row[i]
                low[i] = value if value < low[i] else low[i]
                high[i] = value if value > high[i] and value < _NONE else high[i]
        weight = np.float32(1 if half_width <= c < n_chans - half_width else 2)
        to = out[c]
        for i in range(lanes):
            to[i] = weight * (high[i] - low[i]) if high[i] >= low[i] else np.float32(0)


@njit(nogil=True, cache=True)
def _count_above(x: Any, background: Any, variation: Any, limit: Any, count: Any) -> None:
    """Write how many samples of each lane exceed the variation by more than a limit to `count`."""
    count[:] = 0
    for c in range(x.shape[0]):
        sample, level, range_ = x[c], background[c], variation[c]
        for i in range(count.shape[0]):
            excess = sample[i] - level[i] - range_[i]
            count[i] += np.int32(excess > limit[i] and sample[i] < _NONE)


@njit(nogil=True, cache=True)
def _thresholds(x: Any, background: Any, n_sigma: float, floor: float, work: Any, out: Any) -> None:
    """Write the threshold of a single sample to `out`; infinite where too few channels can be judged."""
    lanes = x.shape[1]
    deviation, difference = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    n_good, n_differences = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    _deviations(x, background, work)
    medians(work, deviation, n_good)
    _differences(x, work[:-2])
    medians(work[:-2], difference, n_differences)
    for i in range(lanes):
        sigma = max(floor, MAD_TO_SIGMA * deviation[i])
        if n_differences[i] > 0:
            # The difference of white noise has variance 4 + 1 + 1.
            sigma = max(sigma, MAD_TO_SIGMA / 6**0.5 * difference[i])
        out[i] = n_sigma * sigma if n_good[i] >= MIN_CHANNELS else _NONE


@njit(nogil=True, cache=True)
def _flag_lanes(
    x: Any,
    background: Any,
    variation: Any,
    threshold: Any,
    falloff: float,
    doublings: int,
    flags: Any,
    first: int,
) -> int:
    """Flag the products from `first` on that have something above a threshold; return how many samples."""
    n_chans, lanes = x.shape
    # No mean of neighbours exceeds a threshold unless one of them does.
    least = np.float32(_SURE / falloff**doublings)
    count = np.empty(lanes, np.int32)
    _count_above(x, background, variation, least * threshold, count)
    excess, hit = np.empty(n_chans, np.float32), np.empty(n_chans, np.bool_)
    flagged = 0
    for i in range(lanes):
        if count[i] == 0:
            continue
        for c in range(n_chans):
            good = x[c, i] < _NONE
            excess[c] = x[c, i] - background[c, i] - variation[c, i] if good else np.nan
        hit[:] = False
        sum_threshold(excess, threshold[i], falloff, doublings, hit)
        for c in range(n_chans):
            if hit[c]:
                flags[c, first + i] |= FLAG_INGEST_RFI
                flagged += 1
    return flagged


@njit(nogil=True, cache=True)
def flag_products(
    vis: Any,
    flags: Any,
    start: int,
    stop: int,
    half_width: int,
    n_sigma: float,
    falloff: float,
    doublings: int,
    floor: float,
) -> int:
    """Set ``FLAG_INGEST_RFI`` in the flags of samples with interference.

    Parameters
    ----------
    vis, flags
        complex64 and uint8 (C, B); samples that already have a flag are no evidence and get none.
    start, stop
        Range of products to work on.
    half_width, n_sigma, falloff, doublings
        See :class:`~pipelines.common.rfi.FlaggerSettings`.
    floor
        The noise is never taken to be less than this (Jy): counts are whole numbers, and the median
        deviation of a spectrum that is mostly one number is 0.

    Returns
    -------
    int
        Number of samples flagged.
    """
    n_chans = vis.shape[0]
    if n_chans < max(MIN_CHANNELS, 2 * half_width + 1):
        return 0
    shape = (
        n_chans,
        LANES,
    )  # each on its own: parts of one array would not be known to be contiguous
    x, background = np.empty(shape, np.float32), np.empty(shape, np.float32)
    work, threshold = np.empty(shape, np.float32), np.empty(LANES, np.float32)
    flagged = 0
    for first in range(start, stop, LANES):
        _gather(vis, flags, first, min(LANES, stop - first), x)
        running_medians(x, half_width, background)
        _thresholds(x, background, n_sigma, floor, work, threshold)
        _variations(background, half_width, work)
        flagged += _flag_lanes(x, background, work, threshold, falloff, doublings, flags, first)
    return flagged
