"""Delays of the inputs, from the slope of phase with frequency.

The delay of an input is the ``K`` of its gain ``exp(2 pi i K nu)``, in katdal's sense, relative to the
reference antenna's. First guess: the peak of each baseline's delay spectrum, its power summed over time, so
that phases that drift during the scan do no harm; the delays of the antennas from those of the baselines by
least squares. Then refinement: gains of a few blocks of channels, and a line through their phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import gammainccinv, gammaincinv

from pipelines.calibration.scan import Scan, average
from pipelines.calibration.stefcal import MIN_ANTENNAS, solve

OVERSAMPLING: Final = 8
"""Points of the delay spectrum per independent delay."""
FALSE_ALARM: Final = 1e-3
"""Probability that noise alone makes a baseline's peak believable."""
N_BLOCKS: Final = 16
"""Blocks of channels for the refinement."""
REFINEMENTS: Final = 2
_MAX_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class BaselinePeaks:
    """Peaks of delay spectra, of one polarisation."""

    delays: npt.NDArray[np.float64]
    """(P,) s"""
    strength: npt.NDArray[np.float64]
    """(P,) power over that which noise alone reaches with probability :data:`FALSE_ALARM`; 0 without data."""


def fringe(
    delays: npt.NDArray[np.float64], freqs: npt.NDArray[np.float64]
) -> npt.NDArray[np.complex128]:
    """Return the gains of delays (..., ant) at frequencies, shape (..., 1, chan, ant); unknown delays are 0."""
    phase = 2 * np.pi * np.nan_to_num(delays)[..., np.newaxis, :] * freqs[:, np.newaxis]
    gains: npt.NDArray[np.complex128] = np.exp(1j * phase)
    return gains[..., np.newaxis, :, :]


def baseline_peaks(
    vis: npt.NDArray[np.complex64], weights: npt.NDArray[np.float32], channel_width: float
) -> BaselinePeaks:
    """Find the peak of every baseline's delay spectrum.

    Parameters
    ----------
    vis, weights
        (T, chan, P) of one polarisation.
    channel_width
        Hz.
    """
    n_points = OVERSAMPLING * vis.shape[1]
    power = np.zeros((n_points, vis.shape[2]))
    for dump_vis, dump_weights in zip(vis, weights, strict=True):
        spectrum = np.fft.fft(dump_vis * dump_weights, n_points, axis=0)
        power += spectrum.real**2 + spectrum.imag**2
    peak = power.argmax(axis=0)
    columns = np.arange(power.shape[1])
    left, middle, right = (power[(peak + k) % n_points, columns] for k in (-1, 0, 1))
    curve = left - 2 * middle + right
    shift = np.divide(0.5 * (left - right), curve, out=np.zeros_like(curve), where=curve < 0)
    position = (peak + shift + n_points / 2) % n_points - n_points / 2
    n_dumps = np.maximum((weights > 0).any(axis=1).sum(axis=0), 1)
    floor = np.median(power, axis=0) * _noise_peak(n_dumps, vis.shape[1])
    # A spectrum without noise has no floor: its peak is as good as can be.
    strength = np.divide(middle, floor, out=np.full_like(middle, 1e9), where=floor > 1e-9 * middle)
    strength[middle <= 0] = 0.0
    return BaselinePeaks(position / (n_points * channel_width), strength)


def _noise_peak(n_dumps: npt.NDArray[np.int64], n_chans: int) -> npt.NDArray[np.float64]:
    """Return the highest power in the spectrum of noise, over its median.

    The power of noise, summed over n dumps, has a gamma distribution of shape n, independent at as many delays
    as there are channels.
    """
    highest = gammainccinv(n_dumps, FALSE_ALARM / n_chans)
    return np.asarray(highest / gammaincinv(n_dumps, 0.5))


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


def solve_delays(scan: Scan, refant: int) -> npt.NDArray[np.float64]:
    """Return delays in seconds, shape (pol, ant); NaN where there is none."""
    n_chans = len(scan.freqs)
    delays = np.full((scan.vis.shape[0], scan.n_antennas), np.nan)
    if n_chans < 2:
        return delays
    width = abs(float(scan.freqs[1] - scan.freqs[0]))
    hands = scan.hands
    for pol in range(len(delays)):
        peaks = baseline_peaks(scan.vis[pol], scan.weights[pol], width)
        delays[pol] = delays_of_antennas(
            peaks, hands.ant1, hands.ant2, scan.n_antennas, refant, 1 / (n_chans * width)
        )
    for _ in range(REFINEMENTS):
        delays += _residual_delays(scan.corrected(fringe(delays, scan.freqs)), refant)
        delays -= delays[:, refant : refant + 1]
    return delays


def time_gains(scan: Scan, refant: int) -> npt.NDArray[np.complex64]:
    """Return gains per dump over the whole band, shape (pol, T, 1, ant)."""
    gains = []
    for vis, weights in zip(scan.vis, scan.weights, strict=True):
        mean, weight = average(vis, weights, axis=1)
        solved = solve(mean, weight, scan.hands.ant1, scan.hands.ant2, scan.n_antennas, refant)
        gains.append(solved.gains[:, np.newaxis])
    return np.stack(gains)


def _residual_delays(scan: Scan, refant: int) -> npt.NDArray[np.float64]:
    """Return the delays that are left in a scan that is nearly coherent over the band, shape (pol, ant).

    0 where they cannot be measured.
    """
    steady = scan.corrected(time_gains(scan, refant))
    edges = np.linspace(0, len(scan.freqs), min(N_BLOCKS, len(scan.freqs)) + 1).astype(int)
    blocks = [slice(a, b) for a, b in pairwise(edges)]
    centres = np.array([scan.freqs[block].mean() for block in blocks])
    result = np.zeros((scan.vis.shape[0], scan.n_antennas))
    for pol in range(len(result)):
        averages = [
            average(steady.vis[pol][:, b], steady.weights[pol][:, b], axis=(0, 1)) for b in blocks
        ]
        solved = solve(
            np.stack([vis for vis, _ in averages]),
            np.stack([weights for _, weights in averages]),
            scan.hands.ant1,
            scan.hands.ant2,
            scan.n_antennas,
            refant,
            near_one=True,
        )
        result[pol] = _slopes(solved.gains, solved.snr, centres)
    return result


def _slopes(
    gains: npt.NDArray[np.complex64],
    snr: npt.NDArray[np.float32],
    freqs: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Fit lines to phases (chan, ant); return their slopes in turns per Hz, 0 where there is no fit."""
    good = np.isfinite(gains)
    weight = np.where(good, np.minimum(snr, 1e4) ** 2, 0.0)
    # Turn each antenna's mean phase to zero, so that no phase is near the cut.
    mean = np.where(good, gains, 0).sum(axis=0)
    turn = np.where(np.abs(mean) > 0, mean.conj(), 1)
    phase = np.where(good, np.angle(gains * turn), 0.0) / (2 * np.pi)
    total = np.maximum(weight.sum(axis=0), 1e-30)
    x = freqs[:, np.newaxis] - (weight * freqs[:, np.newaxis]).sum(axis=0) / total
    spread = (weight * x**2).sum(axis=0)
    slope = (weight * x * phase).sum(axis=0)
    return np.asarray(np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0))
