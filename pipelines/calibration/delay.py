"""Delays of the inputs, from the slope of phase with frequency.

The delay of an input is the ``K`` of its gain ``exp(2 pi i K nu)``, in katdal's sense, relative to the
reference antenna's. First guess: the peak of each baseline's delay spectrum, its power summed over time, so
that phases that drift during the scan do no harm; the delays of the antennas from those of the baselines by
least squares. Then refinement: gains of a few blocks of channels, and a line through their phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.special import gammainccinv, gammaincinv

from pipelines.calibration.interval import Interval, block_edges
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.parallel import in_ranges
from pipelines.calibration.stefcal import MIN_ANTENNAS, Gains, solve

Delays = npt.NDArray[np.float64]

OVERSAMPLING: Final = 2
"""Points of the delay spectrum per independent delay."""
MAX_CHANS: Final = 1024
"""Channels of a delay spectrum; of more, neighbours are averaged. Over 856 MHz, 0.6 us is the longest delay."""
PAIRS_AT_A_TIME: Final = 128
"""Pairs of antennas whose delay spectra are in memory together."""
MAX_SNR: Final = 1e4
"""What is better than this is as good as this."""
FALSE_ALARM: Final = 1e-3
"""Probability that noise alone makes a baseline's peak believable."""
REFINEMENTS: Final = 3
_MAX_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class BaselinePeaks:
    """Peaks of delay spectra, of one polarisation."""

    delays: npt.NDArray[np.float64]
    """(P,) s"""
    strength: npt.NDArray[np.float64]
    """(P,) power over that which noise alone reaches with probability :data:`FALSE_ALARM`; 0 without data."""


def fringe(delays: Delays, freqs: npt.NDArray[np.float64]) -> npt.NDArray[np.complex64]:
    """Return the gains of delays (pol, ant) at frequencies, shape (pol, chan, ant); unknown delays are 0."""
    gains = np.empty((len(delays), len(freqs), delays.shape[1]), np.complex64)
    for pol, row in enumerate(2 * np.pi * np.nan_to_num(delays)):
        for ant, turns in enumerate(row):
            np.exp(1j * turns * freqs, out=gains[pol, :, ant], casting="same_kind")
    return gains


def only(gains: npt.NDArray[np.complex64], channels: slice) -> npt.NDArray[np.complex64]:
    """Set gains (pol, chan, ant) outside of some channels to 0, in place: what is there does not count."""
    start, stop, _ = channels.indices(gains.shape[1])
    gains[:, :start] = 0
    gains[:, stop:] = 0
    return gains


def baseline_peaks(
    intervals: Sequence[Interval],
    pol: int,
    freqs: npt.NDArray[np.float64],
    channels: slice = slice(None),
) -> BaselinePeaks:
    """Find the peak of every pair's delay spectrum in a polarisation.

    Of many channels, neighbours are averaged: delays are looked for up to half of the inverse of what is left.

    Parameters
    ----------
    freqs
        (chan,) Hz
    channels
        Those that are looked at.
    """
    first_chan, last_chan, _ = channels.indices(len(freqs))
    freqs = freqs[channels]
    factor = -(-len(freqs) // MAX_CHANS)
    n_chans = len(freqs) // factor
    n_points = OVERSAMPLING * n_chans
    n_pairs = intervals[0].pairs.n_pairs
    middle, position, floor = (np.zeros(n_pairs) for _ in range(3))
    n_intervals = np.zeros(n_pairs, np.int64)

    def find(start: int, stop: int) -> None:
        """Write the peaks and the floors of pairs ``start`` to ``stop``, some at a time.

        The power of a pair's spectra (pair, point) is summed over the intervals that have data of it.
        """
        for first in range(start, stop, PAIRS_AT_A_TIME):
            part = slice(first, min(first + PAIRS_AT_A_TIME, stop))
            power = np.zeros((part.stop - part.start, n_points), np.float32)
            for interval in intervals:
                whole = interval.sums[pol, first_chan:last_chan, part]
                whole = whole[: n_chans * factor].reshape(n_chans, factor, -1)
                vis = whole[:, 0].copy()
                for k in range(1, factor):
                    vis += whole[:, k]
                spectrum = fft.fft(np.ascontiguousarray(vis.T), n_points, axis=1)
                power += spectrum.real**2 + spectrum.imag**2
                n_intervals[part] += vis.any(axis=0)
            middle[part], position[part] = _peaks(power)
            floor[part] = np.median(power[:, ::OVERSAMPLING], axis=1)

    in_ranges(n_pairs, PAIRS_AT_A_TIME, find)
    floor *= _noise_peak(np.maximum(n_intervals, 1), n_chans)
    # A spectrum without noise has no floor: its peak is as good as can be.
    strength = np.divide(middle, floor, out=np.full_like(middle, 1e9), where=floor > 1e-9 * middle)
    strength[middle <= 0] = 0.0
    width = abs(float(freqs[1] - freqs[0])) * factor
    return BaselinePeaks(position / (n_points * width), strength)


def _peaks(power: npt.NDArray[np.float32]) -> tuple[Any, Any]:
    """Return the height and the position, in points, of the peaks of spectra (pair, point)."""
    n_points = power.shape[1]
    peak = power.argmax(axis=1)
    rows = np.arange(len(power))
    left, middle, right = (
        power[rows, (peak + k) % n_points].astype(np.float64) for k in (-1, 0, 1)
    )
    curve = left - 2 * middle + right
    shift = np.divide(0.5 * (left - right), curve, out=np.zeros_like(curve), where=curve < 0)
    return middle, (peak + shift + n_points / 2) % n_points - n_points / 2


def _noise_peak(n_intervals: npt.NDArray[np.int64], n_chans: int) -> npt.NDArray[np.float64]:
    """Return the highest power in the spectrum of noise, over its median.

    The power of noise, summed over n intervals, has a gamma distribution of shape n, independent at as many
    delays as there are channels.
    """
    highest = gammainccinv(n_intervals, FALSE_ALARM / n_chans)
    return np.asarray(highest / gammaincinv(n_intervals, 0.5))


def delays_of_antennas(
    peaks: BaselinePeaks,
    ant1: npt.NDArray[np.int64],
    ant2: npt.NDArray[np.int64],
    n_antennas: int,
    refant: int,
    resolution: float,
) -> npt.NDArray[np.float64]:
    """Fit delays per antenna to those of baselines; NaN for antennas without a believable baseline.

    Baselines that are off the fit by more than `resolution` (s) are left out, the worst first, one a round.
    """
    used = peaks.strength >= 1
    delays = np.full(n_antennas, np.nan)
    for _ in range(max(_MAX_ROUNDS, int(used.sum()) // 4)):
        known = _connected(ant1[used], ant2[used], n_antennas, refant)
        unknown = np.flatnonzero(known)
        unknown = unknown[unknown != refant]
        rows = np.flatnonzero(used & known[ant1])
        delays[:] = np.nan
        if not known[refant] or known.sum() < MIN_ANTENNAS:
            return delays
        design = np.zeros((len(rows), n_antennas))
        design[np.arange(len(rows)), ant1[rows]] = 1.0
        design[np.arange(len(rows)), ant2[rows]] = -1.0
        scale = np.sqrt(np.minimum(peaks.strength[rows], 1e4))
        solution, *_ = np.linalg.lstsq(
            design[:, unknown] * scale[:, np.newaxis], peaks.delays[rows] * scale, rcond=None
        )
        delays[refant] = 0.0
        delays[unknown] = solution
        off = np.abs(delays[ant1[rows]] - delays[ant2[rows]] - peaks.delays[rows])
        worst = off.argmax()
        if off[worst] <= resolution:
            break
        used[rows[worst]] = False
    return delays


def _connected(
    ant1: npt.NDArray[np.int64], ant2: npt.NDArray[np.int64], n_antennas: int, refant: int
) -> npt.NDArray[np.bool_]:
    """Which antennas have a path of baselines to the reference antenna (itself only if it has one at all)."""
    known = np.zeros(n_antennas, np.bool_)
    known[refant] = bool(np.any((ant1 == refant) | (ant2 == refant)))
    for _ in range(n_antennas):
        before = known.sum()
        known[ant1[known[ant2]]] = True
        known[ant2[known[ant1]]] = True
        if known.sum() == before:
            break
    return known


def first_delays(
    peaks: Sequence[BaselinePeaks], pairs: Pairs, freqs: npt.NDArray[np.float64], refant: int
) -> Delays:
    """Return delays, s, shape (pol, ant), of the peaks of each polarisation; NaN where there is none."""
    resolution = 1 / (len(freqs) * abs(float(freqs[1] - freqs[0])))
    return np.stack(
        [
            delays_of_antennas(p, pairs.ant1, pairs.ant2, pairs.n_antennas, refant, resolution)
            for p in peaks
        ]
    )


def refined_delays(
    intervals: Sequence[Interval],
    delays: Delays,
    scale: npt.NDArray[np.float32],
    freqs: npt.NDArray[np.float64],
    refant: int,
    channels: slice = slice(None),
) -> Delays:
    """Return better delays, from the slopes of phases over the band.

    Parameters
    ----------
    delays
        (pol, ant) s, right to a fraction of the inverse of the bandwidth.
    scale
        (pol, chan, 1) root of the model's flux density.
    """
    for _ in range(REFINEMENTS):
        gains = only((scale * fringe(delays, freqs)).astype(np.complex64), channels)
        blocks = [interval.band_sums(gains) for interval in intervals]
        delays = delays + residual_delays(blocks, intervals[0].pairs, freqs, refant).delays
    return delays


def level_of(
    vis: npt.NDArray[np.complex128], weights: npt.NDArray[np.float64], pairs: Pairs, refant: int
) -> Gains:
    """Solve sums over blocks (pol, block, P) for one gain of the band, shape (pol, ant)."""
    return solve(
        vis.sum(axis=1),
        weights.sum(axis=1),
        pairs.ant1,
        pairs.ant2,
        pairs.n_antennas,
        refant,
    )


@dataclass(frozen=True, slots=True)
class Residual:
    """Delays that are left."""

    delays: Delays
    """(pol, ant) s; 0 where they cannot be measured."""
    snr: npt.NDArray[np.float32]
    """(pol, ant) of the phases that they were measured from, of the whole band."""


def residual_delays(
    blocks: Sequence[tuple[npt.NDArray[np.complex128], npt.NDArray[np.float64]]],
    pairs: Pairs,
    freqs: npt.NDArray[np.float64],
    refant: int,
) -> Residual:
    """Measure the delays that are left in intervals that are nearly coherent over the band.

    Parameters
    ----------
    blocks
        Sums and weights of the blocks of channels of each interval, shape (pol, block, P).
    """
    vis, weights = np.zeros_like(blocks[0][0]), np.zeros_like(blocks[0][1])
    for block_vis, block_weights in blocks:
        level = np.nan_to_num(level_of(block_vis, block_weights, pairs, refant).gains)
        pair = (level[:, pairs.ant1] * level[:, pairs.ant2].conj())[:, np.newaxis]
        vis += pair.conj() * block_vis
        weights += np.abs(pair) ** 2 * block_weights
    edges = block_edges(len(freqs))
    centres = np.array([freqs[a:b].mean() for a, b in pairwise(edges)])
    delays, snr = [], []
    for pol_vis, pol_weights in zip(vis, weights, strict=True):
        solved = solve(
            pol_vis, pol_weights, pairs.ant1, pairs.ant2, pairs.n_antennas, refant, near_one=True
        )
        information = _information(solved.gains, pol_weights, pairs)
        delays.append(_slopes(solved.gains, information, centres))
        snr.append(np.sqrt((np.minimum(solved.snr, MAX_SNR) ** 2).sum(axis=0)))
    found = np.stack(delays)
    return Residual(found - found[:, refant : refant + 1], np.stack(snr))


def _information(
    gains: npt.NDArray[np.complex64], weights: npt.NDArray[np.float64], pairs: Pairs
) -> npt.NDArray[np.float64]:
    """Return the inverse variances of the phases of gains (block, ant), up to a factor; 0 for none.

    Not those that residuals tell: they scatter, and what a bandpass has of curvature would then become a slope.
    """
    power = np.abs(np.nan_to_num(gains)) ** 2
    total: npt.NDArray[np.float64] = np.zeros(power.shape)
    for ant, other in ((pairs.ant1, pairs.ant2), (pairs.ant2, pairs.ant1)):
        np.add.at(total.T, ant, (weights * power[:, other]).T)
    return np.asarray(total * power)


def _slopes(
    gains: npt.NDArray[np.complex64],
    weight: npt.NDArray[np.float64],
    freqs: npt.NDArray[np.float64],
) -> Delays:
    """Fit lines to phases (block, ant); return their slopes in turns per Hz, 0 where there is no fit."""
    good = np.isfinite(gains)
    # Turn each antenna's mean phase to zero, so that no phase is near the cut.
    mean = np.where(good, gains, 0).sum(axis=0)
    turn = np.where(np.abs(mean) > 0, mean.conj(), 1)
    phase = np.where(good, np.angle(gains * turn), 0.0) / (2 * np.pi)
    total = np.maximum(weight.sum(axis=0), 1e-30)
    x = freqs[:, np.newaxis] - (weight * freqs[:, np.newaxis]).sum(axis=0) / total
    spread = (weight * x**2).sum(axis=0)
    slope = (weight * x * phase).sum(axis=0)
    return np.asarray(np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0))
