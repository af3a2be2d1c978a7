"""Gains per channel, from the sums of a scan."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import N_PARALLEL, Pairs
from pipelines.calibration.solutions import ComplexGains, Quality
from pipelines.calibration.stefcal import Gains, solve

MIN_SNR: Final = 10.0
"""Median signal to noise of a bandpass solution below which channels are solved together."""
MIN_BLOCKS: Final = 8
"""Blocks of channels that are always left."""


def solve_bandpass(scan: Interval, refant: int) -> tuple[ComplexGains, Quality]:
    """Solve gains per channel of a scan whose delays and gains are corrected.

    Where the signal in a channel is too weak, the channels are solved in blocks, and the solutions
    interpolated.

    Returns
    -------
    bandpass, snr
        (chan, pol, ant), and (pol, ant): the median over the channels.
    """
    pairs = scan.pairs
    bandpass = np.empty((scan.n_chans, N_PARALLEL, pairs.n_antennas), np.complex64)
    snr = np.empty((N_PARALLEL, pairs.n_antennas), np.float32)
    for pol in range(N_PARALLEL):
        bandpass[:, pol], snr[pol] = _of_pol(scan, pol, refant)
    return bandpass, snr


def levels(bandpass: ComplexGains) -> npt.NDArray[np.float32]:
    """Return the mean amplitudes of a bandpass over the channels, shape (pol, ant); 1 where there is none."""
    amplitude = np.abs(bandpass)
    count = np.isfinite(amplitude).sum(axis=0)
    level = np.nansum(amplitude, axis=0) / np.maximum(count, 1)
    return np.where(count > 0, level, 1).astype(np.float32)


def _of_pol(scan: Interval, pol: int, refant: int) -> tuple[ComplexGains, Quality]:
    """Solve in the smallest blocks of channels that give enough signal."""
    sums, weights, pairs = scan.sums[pol], scan.weights[pol], scan.pairs
    solved = _solved(sums, weights, pairs, refant)
    block = 1
    while _weak(solved) and scan.n_chans >= 2 * block * MIN_BLOCKS:
        block *= 2
        starts = np.arange(0, len(sums), 2)
        sums, weights = (np.add.reduceat(array, starts, axis=0) for array in (sums, weights))
        solved = _solved(sums, weights, pairs, refant)
    snr = np.median(solved.snr, axis=0)
    if block == 1:
        return solved.gains, snr
    gains = interpolated(solved.gains, block, scan.n_chans)
    gains[scan.good == 0] = np.nan
    return gains, snr


def _solved(sums: Any, weights: Any, pairs: Pairs, refant: int) -> Gains:
    return solve(sums, weights, pairs.ant1, pairs.ant2, pairs.n_antennas, refant, near_one=True)


def _weak(solved: Gains) -> bool:
    usable = solved.snr[:, solved.snr.any(axis=0)]
    return bool(usable.size and np.median(usable) < MIN_SNR)


def interpolated(gains: ComplexGains, block: int, n_chans: int) -> ComplexGains:
    """Interpolate gains (block, ant) to channels, real and imaginary parts; NaN where no block has a gain."""
    channels = np.arange(n_chans)
    centres = np.minimum(np.arange(0, n_chans, block) + (block - 1) / 2, n_chans - 1)
    result = np.full((n_chans, gains.shape[1]), np.nan + 0j, np.complex64)
    for ant, column in enumerate(gains.T):
        good = np.isfinite(column)
        if good.any():
            result[:, ant] = np.interp(channels, centres[good], column[good])
    return result
