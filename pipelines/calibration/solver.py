"""From a calibrator's scan to solutions: K, then B, then G, each applied before the next is solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.calibration.delay import baseline_peaks, fringe, solve_delays, time_gains
from pipelines.calibration.scan import Scan, average
from pipelines.calibration.stefcal import MIN_ANTENNAS, solve

MIN_BANDPASS_SNR: Final = 10.0
"""Median signal to noise of a bandpass solution below which channels are solved together."""
MIN_BLOCKS: Final = 8
"""Blocks of channels that are always left."""

Delays = npt.NDArray[np.float64]
ComplexGains = npt.NDArray[np.complex64]


@dataclass(frozen=True, slots=True)
class Products:
    """Which products a scan is solved for."""

    delay: bool = False
    bandpass: bool = False
    gain: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """The delays and bandpass that are in force; None where none has been solved yet."""

    delays: Delays | None = None
    """(pol, ant), s"""
    bandpass: ComplexGains | None = None
    """(chan, pol, ant)"""


@dataclass(frozen=True, slots=True)
class Solutions:
    """What a scan gave. NaN where an input has no solution."""

    refant: int
    start: float
    """Unix time from which delays and bandpass hold: the scan's first dump."""
    delays: Delays | None
    bandpass: ComplexGains | None
    gain_times: tuple[float, ...]
    """Unix times of the gains."""
    gains: tuple[ComplexGains, ...]
    """(pol, ant) each."""
    phase_rms: float
    """Radians, weighted, of the calibrated visibilities averaged over the band; NaN if there are none."""

    @property
    def empty(self) -> bool:
        """Whether nothing at all could be solved."""
        arrays = (self.delays, self.bandpass, *self.gains)
        return not any(a is not None and np.isfinite(a).any() for a in arrays)


def choose_refant(scan: Scan, preferred: Sequence[str] = ()) -> int | None:
    """Return the first of the preferred antennas that has data, or the one with the most and strongest.

    Strength is the peak of a baseline's delay spectrum over its noise: independent of phases and delays.
    None if too few antennas have any data for a solution.
    """
    width = abs(float(scan.freqs[1] - scan.freqs[0])) if len(scan.freqs) > 1 else 1.0
    score = np.zeros(scan.n_antennas)
    partners = np.zeros((scan.n_antennas, scan.n_antennas), np.int64)
    for vis, weights in zip(scan.vis, scan.weights, strict=True):
        present = weights.any(axis=(0, 1))
        strength = np.sqrt(np.minimum(baseline_peaks(vis, weights, width).strength, 1e6)) * present
        fraction = np.mean(weights > 0, axis=(0, 1))
        for ant in (scan.hands.ant1, scan.hands.ant2):
            np.add.at(score, ant, strength * fraction)
        np.add.at(partners, (scan.hands.ant1, scan.hands.ant2), present)
    alive = (partners + partners.T).sum(axis=0) > 0
    if alive.sum() < MIN_ANTENNAS:
        return None
    for name in preferred:
        if name in scan.hands.antennas and alive[scan.hands.antennas.index(name)]:
            return scan.hands.antennas.index(name)
    return int(score.argmax())


def solve_bandpass(scan: Scan, refant: int) -> ComplexGains:
    """Solve gains per channel of a scan whose delays are corrected, shape (chan, pol, ant).

    Gains that vary with time are taken out before the average over time, so a drift during the scan does not
    decorrelate it. Where the signal in a channel is too weak, the channels are solved in blocks, and the
    solutions interpolated. The mean amplitude of each input over the channels is 1: level and time are G's.
    """
    steady = scan.corrected(time_gains(scan, refant))
    bandpass = np.empty((len(scan.freqs), len(scan.vis), scan.n_antennas), np.complex64)
    for pol, (vis, weights) in enumerate(zip(steady.vis, steady.weights, strict=True)):
        mean, weight = average(vis, weights, axis=0)
        bandpass[:, pol] = _bandpass_of_pol(mean, weight, scan, refant)
    amplitude = np.abs(bandpass)
    count = np.isfinite(amplitude).sum(axis=0)
    level = np.nansum(amplitude, axis=0) / np.maximum(count, 1)
    return np.asarray(bandpass / np.where(count > 0, level, 1), np.complex64)


def _bandpass_of_pol(
    vis: npt.NDArray[np.complex128], weights: npt.NDArray[np.float64], scan: Scan, refant: int
) -> ComplexGains:
    """Solve (chan, P) for gains (chan, ant), in the smallest blocks of channels that give enough signal."""
    hands, n_chans = scan.hands, len(vis)
    block = 1
    while True:
        starts = np.arange(0, n_chans, block)
        total = np.add.reduceat(weights, starts, axis=0)
        mean = np.add.reduceat(vis * weights, starts, axis=0)
        mean = np.divide(mean, total, out=np.zeros_like(mean), where=total > 0)
        solved = solve(mean, total, hands.ant1, hands.ant2, scan.n_antennas, refant, near_one=True)
        usable = solved.snr[:, solved.snr.any(axis=0)]
        weak = usable.size > 0 and np.median(usable) < MIN_BANDPASS_SNR
        if not weak or n_chans < 2 * block * MIN_BLOCKS:
            break
        block *= 2
    if block == 1:
        return solved.gains
    seen = np.zeros((n_chans, scan.n_antennas), np.bool_)
    for ant in (hands.ant1, hands.ant2):
        np.logical_or.at(seen.T, ant, (weights > 0).T)
    return np.where(seen, _interpolated(solved.gains, starts, block, n_chans), np.nan + 0j)


def _interpolated(
    gains: ComplexGains, starts: npt.NDArray[np.int64], block: int, n_chans: int
) -> ComplexGains:
    """Interpolate gains (block, ant) to channels, real and imaginary parts; NaN where no block has a gain."""
    channels = np.arange(n_chans)
    centres = np.minimum(starts + (block - 1) / 2, n_chans - 1)
    result = np.full((n_chans, gains.shape[1]), np.nan + 0j, np.complex64)
    for ant, column in enumerate(gains.T):
        good = np.isfinite(column)
        if good.any():
            result[:, ant] = np.interp(channels, centres[good], column[good])
    return result


def solve_gains(
    scan: Scan, refant: int, dumps_per_solution: int
) -> tuple[tuple[float, ...], tuple[ComplexGains, ...]]:
    """Solve gains per interval over the whole band; return their times and the gains, (pol, ant) each.

    The last interval may be shorter.
    """
    starts = range(0, len(scan.times), dumps_per_solution)
    parts = [slice(start, start + dumps_per_solution) for start in starts]
    per_pol = []
    for vis, weights in zip(scan.vis, scan.weights, strict=True):
        averages = [average(vis[part], weights[part], axis=(0, 1)) for part in parts]
        solved = solve(
            np.stack([mean for mean, _ in averages]),
            np.stack([weight for _, weight in averages]),
            scan.hands.ant1,
            scan.hands.ant2,
            scan.n_antennas,
            refant,
        )
        per_pol.append(solved.gains)
    gains = np.stack(per_pol, axis=1)
    return tuple(float(scan.times[part].mean()) for part in parts), tuple(gains)


def _bandpass_gains(bandpass: ComplexGains) -> ComplexGains:
    """(chan, pol, ant) as :meth:`Scan.corrected` takes it."""
    return bandpass.transpose(1, 0, 2)[:, np.newaxis]


def phase_rms(scan: Scan) -> float:
    """Return the weighted rms phase in radians of a scan's visibilities, averaged over frequency."""
    mean, weight = average(scan.vis, scan.weights, axis=2)
    total = weight.sum()
    if not total > 0:
        return float("nan")
    return float(np.sqrt((weight * np.angle(mean) ** 2).sum() / total))


def solve_scan(
    scan: Scan, wanted: Products, applied: Applied, refant: int, dumps_per_gain: int = 1
) -> tuple[Solutions, Applied]:
    """Solve a scan for the wanted products.

    Parameters
    ----------
    scan
        Divided by its model.
    wanted
        What the calibrator is good for.
    applied
        Delays and bandpass in force; new ones replace them, for this scan already.
    refant
        Antenna of phase 0.
    dumps_per_gain
        Dumps in a solution of G.

    Returns
    -------
    solutions, applied
        What was solved, and what is in force from now on.
    """
    delays = bandpass = None
    if wanted.delay:
        delays = solve_delays(scan, refant)
        if np.isfinite(delays).any():
            applied = replace(applied, delays=delays)
    if applied.delays is not None:
        scan = scan.corrected(fringe(applied.delays, scan.freqs))
    if wanted.bandpass:
        bandpass = solve_bandpass(scan, refant)
        if np.isfinite(bandpass).any():
            applied = replace(applied, bandpass=bandpass)
    if applied.bandpass is not None:
        scan = scan.corrected(_bandpass_gains(applied.bandpass))
    times: tuple[float, ...] = ()
    gains: tuple[ComplexGains, ...] = ()
    if wanted.gain:
        times, gains = solve_gains(scan, refant, dumps_per_gain)
        scan = scan.corrected(_gains_of_dumps(gains, len(scan.times), dumps_per_gain))
    solutions = Solutions(
        refant, float(scan.times[0]), delays, bandpass, times, gains, phase_rms(scan)
    )
    return solutions, applied


def _gains_of_dumps(
    gains: tuple[ComplexGains, ...], n_dumps: int, dumps_per_gain: int
) -> npt.NDArray[Any]:
    """(pol, T, 1, ant) of the gains of intervals."""
    index = np.arange(n_dumps) // dumps_per_gain
    return np.stack(gains)[index].transpose(1, 0, 2)[:, :, np.newaxis]
