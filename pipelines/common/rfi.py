"""Find narrow-band interference in the spectra of one dump.

The method, per product: amplitudes; their background by a running median along frequency; the noise as
1.4826 × the median absolute deviation from it, or of second differences if that is more (on a slope a median
follows the noise itself; differences as in Stoehr et al. 2008, ASP Conf. 394, 505); SumThreshold over the
deviations (Offringa et al. 2010, MNRAS 405, 155: sums of 1, 2, 4, … neighbours against a threshold per sample
that falls with their number, samples already flagged leave the sums). A median background with SumThreshold is
what the ingest of MeerKAT runs, too. The threshold is 7 sigma for one sample, divided by 1.2 for each doubling:
amplitudes of pure noise are Rayleigh distributed, with a longer tail than a Gaussian.

One thing is added. Several sources together beat along frequency, and a running median cuts the tops off the
beats: where the signal is far above the noise, that is far above any multiple of the noise. So a deviation only
counts by what it exceeds the variation of the background within the same window: what is fainter than the
structure of the sky around it cannot be told from it. In noise that costs about half a sigma.

The rate of false flags is below 1e-6 per sample in noise, and about 1e-4 at worst in crowded fields up to 1000
times the noise, for 64 channels or more (`docs/ingest.md` has what is found, beside AOFlagger); with fewer than
:data:`MIN_CHANNELS` the noise cannot be told, and nothing is flagged. Interference wider than half of the
window (which is cut at the edges of the band) is taken for background.

Deliberately per dump: it costs no latency and no memory. Weak and broad interference needs the time axis and is
found later, on calibrated data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

MIN_CHANNELS: Final = 32
"""Good channels that a spectrum needs to be judged."""
MAD_TO_SIGMA: Final = 1.4826
"""Standard deviation of a Gaussian, in units of its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class FlaggerSettings:
    """Parameters of the flagger."""

    half_width: int = 6
    """Channels to either side in the running median."""
    n_sigma: float = 7.0
    """Threshold of a single sample, in units of the noise."""
    falloff: float = 1.2
    """Factor by which the threshold per sample falls when the window doubles."""
    doublings: int = 2
    """Windows of 1, 2, …, 2^doublings samples."""


@njit(nogil=True, cache=True)
def _insert(ordered: Any, n: int, value: float) -> int:
    i = n
    while i > 0 and ordered[i - 1] > value:
        ordered[i] = ordered[i - 1]
        i -= 1
    ordered[i] = value
    return n + 1


@njit(nogil=True, cache=True)
def _remove(ordered: Any, n: int, value: float) -> int:
    i = np.searchsorted(ordered[:n], value)
    for j in range(i, n - 1):
        ordered[j] = ordered[j + 1]
    return n - 1


@njit(nogil=True, cache=True)
def _middle(ordered: Any, n: int) -> float:
    if n % 2 == 1:
        return float(ordered[n // 2])
    return float(0.5 * (ordered[n // 2 - 1] + ordered[n // 2]))


@njit(nogil=True, cache=True)
def running_median(x: Any, half_width: int, background: Any) -> None:
    """Write the running median of `x` (NaN: no sample) to `background`; both (C,). Windows end at the edges."""
    n_chans = x.shape[0]
    ordered = np.empty(2 * half_width + 1, x.dtype)
    n = 0
    for c in range(min(half_width, n_chans)):
        if not np.isnan(x[c]):
            n = _insert(ordered, n, x[c])
    for c in range(n_chans):
        if c + half_width < n_chans and not np.isnan(x[c + half_width]):
            n = _insert(ordered, n, x[c + half_width])
        if c - half_width - 1 >= 0 and not np.isnan(x[c - half_width - 1]):
            n = _remove(ordered, n, x[c - half_width - 1])
        background[c] = _middle(ordered, n) if n > 0 else np.nan


@njit(nogil=True, cache=True)
def difference_noise(x: Any) -> float:
    """Return the noise from second differences, which slopes do not touch; 0 if there are none."""
    n_chans = x.shape[0]
    differences = np.empty(n_chans, x.dtype)
    n = 0
    for c in range(1, n_chans - 1):
        difference = abs(2 * x[c] - x[c - 1] - x[c + 1])
        if not np.isnan(difference):
            differences[n] = difference
            n += 1
    # The difference of white noise has variance 4 + 1 + 1.
    return float(MAD_TO_SIGMA / 6**0.5 * np.median(differences[:n])) if n > 0 else 0.0


@njit(nogil=True, cache=True)
def _variation(background: Any, half_width: int, variation: Any) -> None:
    """Write the range of the background within the window around each channel to `variation`.

    Near an edge of the band the window is moved rather than cut, and its range counts twice: there the
    background belongs to the middle of a window that was cut, up to half of its width away.
    """
    n_chans = background.shape[0]
    for c in range(n_chans):
        low = np.inf
        high = -np.inf
        first = min(max(0, c - half_width), n_chans - 2 * half_width - 1)
        for k in range(first, first + 2 * half_width + 1):
            if not np.isnan(background[k]):
                low = min(low, background[k])
                high = max(high, background[k])
        weight = 1 if half_width <= c < n_chans - half_width else 2
        variation[c] = weight * (high - low) if high >= low else 0.0


@njit(nogil=True, cache=True)
def sum_threshold(
    deviation: Any, threshold: float, falloff: float, doublings: int, hit: Any
) -> None:
    """Set `hit` (bool (C,)) where sums of neighbouring deviations (NaN: no sample) exceed the threshold."""
    n_chans = deviation.shape[0]
    fresh = np.empty(n_chans, np.bool_)
    for power in range(doublings + 1):
        width = 1 << power
        limit = threshold / falloff**power
        fresh[:] = False
        total = 0.0
        n = 0
        for c in range(n_chans):
            if not hit[c] and not np.isnan(deviation[c]):
                total += deviation[c]
                n += 1
            last = c - width
            if last >= 0 and not hit[last] and not np.isnan(deviation[last]):
                total -= deviation[last]
                n -= 1
            if c >= width - 1 and n > 0 and total > n * limit:
                fresh[c - width + 1 : c + 1] = True
        for c in range(n_chans):
            hit[c] = hit[c] or (fresh[c] and not np.isnan(deviation[c]))


@njit(nogil=True, cache=True)
def flag_spectrum(
    x: Any,
    half_width: int,
    n_sigma: float,
    falloff: float,
    doublings: int,
    floor: float,
    hit: Any,
) -> None:
    """Set `hit` (bool (C,)) where one spectrum (NaN: no sample) has interference; see the module's text."""
    background = np.empty_like(x)
    running_median(x, half_width, background)
    deviation = x - background
    good = deviation[~np.isnan(deviation)]
    hit[:] = False
    if good.shape[0] < MIN_CHANNELS:
        return
    sigma = max(MAD_TO_SIGMA * np.median(np.abs(good)), difference_noise(x), floor)
    variation = np.empty_like(x)
    _variation(background, half_width, variation)
    deviation -= variation
    sum_threshold(deviation, n_sigma * sigma, falloff, doublings, hit)
