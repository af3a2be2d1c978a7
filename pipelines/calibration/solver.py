"""From a calibrator's scan to solutions: K, then B, then G, each applied before the next is solved.

A scan of any length is solved in bounded memory. Its solution intervals come in batches. Delays are found in
the first batch, and a first bandpass; with them every interval gives its gain, and its visibilities, divided
by delays and gain, are added to the sums of the scan. Those are all that is needed of them: the final
bandpass, the last correction of the delays, and what the cross hands tell of polarisation. The gains are then
referred to the final delays and bandpass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.calibration.bandpass import levels, solve_bandpass
from pipelines.calibration.cross_hands import CrossHands
from pipelines.calibration.delay import (
    BaselinePeaks,
    baseline_peaks,
    first_delays,
    fringe,
    level_of,
    only,
    refined_delays,
    residual_delays,
)
from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import N_PARALLEL
from pipelines.calibration.polarisation import solve_polarisation
from pipelines.calibration.refant import Reference, choose_refant
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import (
    Applied,
    Channels,
    ComplexGains,
    Delays,
    Polarisation,
    Products,
    Quality,
    Solutions,
)

_ALL_CHANNELS: Final = Channels()


class ScanSolver:
    """Solves one scan.

    Parameters
    ----------
    scan
        For the sums of the scan; cleared.
    freqs
        (chan,) Hz.
    sky
        Model of the calibrator.
    wanted
        What the calibrator is good for.
    applied
        Delays and bandpass in force; new ones replace them, for this scan already.
    refant
        Antenna of phase 0; None: chosen from the data.
    preferred
        Antennas that it is chosen from, if they have data.
    channels
        Those that delays and gains are solved from.
    """

    def __init__(
        self,
        scan: Interval,
        freqs: npt.NDArray[np.float64],
        sky: Sky,
        wanted: Products,
        applied: Applied,
        refant: Reference | None = None,
        preferred: Sequence[str] = (),
        channels: Channels = _ALL_CHANNELS,
    ) -> None:
        scan.clear()
        self._scan = scan
        self._freqs = freqs
        self.sky = sky
        self._scale = np.sqrt(sky.parallel).astype(np.float32)[:, :, np.newaxis]
        self._wanted = wanted
        self._applied = applied
        self.reference = refant
        self._preferred = preferred
        self._channels = channels
        self._delays = None if wanted.delay else applied.delays
        self._bandpass = None if wanted.bandpass else applied.bandpass
        self._times: list[float] = []
        self._gains: list[ComplexGains] = []
        self._snr: list[Quality] = []
        self._start: float | None = None
        self._good = np.zeros((scan.n_chans, scan.pairs.n_antennas), np.int64)
        self._n_dumps = 0
        self._phase = np.zeros(2)
        """Weighted sum of squares of the calibrated phases, and sum of weights."""

    def add(self, intervals: Sequence[Interval]) -> None:
        """Solve a batch of intervals for their gains and add them to the scan; they can be cleared then."""
        if self._start is None:
            self._start = intervals[0].times[0]
        for interval in intervals:
            self._good += interval.good
            self._n_dumps += len(interval.times)
        if not self._know_delays(intervals):
            return
        if self._wanted.bandpass and self._bandpass is None:
            self._find_bandpass(intervals)
        gains = only(self._instrument(self._bandpass), self._channels.gain)
        found = [self._gain(interval, gains) for interval in intervals]
        if self._needs_sums:
            applied = None if self._wanted.bandpass else self._bandpass
            self._scan.fold(intervals, self._instrument(applied), found)

    @property
    def _needs_sums(self) -> bool:
        return self._wanted.delay or self._wanted.bandpass or self._wanted.polarisation

    def _know_delays(self, intervals: Sequence[Interval]) -> bool:
        """Choose the reference antenna and find first delays, if they are not there; whether there are any."""
        peaks: list[BaselinePeaks] = []
        wants_delays = self._wanted.delay and self._delays is None
        if wants_delays or self.reference is None:
            peaks = [
                baseline_peaks(intervals, pol, self._freqs, self._channels.delay)
                for pol in range(N_PARALLEL)
            ]
        if self.reference is None:
            self.reference = choose_refant(intervals, peaks, self._preferred)
        if self.reference is None:
            return False
        if wants_delays:
            refant = self.reference.antenna
            used = self._channels.delay
            delays = first_delays(peaks, self._scan.pairs, self._freqs[used], refant)
            if np.isfinite(delays).any():
                self._delays = refined_delays(
                    intervals, delays, self._scale, self._freqs, refant, used
                )
        return True

    def _find_bandpass(self, intervals: Sequence[Interval]) -> None:
        """Find a first bandpass in a batch.

        Gains that vary with time are taken out before, so that a drift does not decorrelate it.
        """
        gains = only(self._instrument(None), self._channels.gain)
        found = [
            np.nan_to_num(
                level_of(*interval.band_sums(gains), self._scan.pairs, self._refant).gains
            )
            for interval in intervals
        ]
        self._scan.fold(intervals, self._instrument(None), found)
        bandpass, _ = solve_bandpass(self._scan, self._refant)
        self._scan.clear()
        if np.isfinite(bandpass).any():
            self._bandpass = np.asarray(bandpass / levels(bandpass))

    @property
    def _refant(self) -> int:
        if self.reference is None:
            raise RuntimeError("gains are solved once there is a reference antenna")
        return self.reference.antenna

    def _instrument(self, bandpass: ComplexGains | None) -> ComplexGains:
        """Return delays, bandpass and the root of the model as gains (pol, chan, ant), 0 for none."""
        if self._delays is None:
            shape = (N_PARALLEL, len(self._freqs), self._scan.pairs.n_antennas)
            gains = np.ones(shape, np.complex64)
        else:
            gains = fringe(self._delays, self._freqs)
        gains *= self._scale
        if bandpass is not None:
            gains *= bandpass.transpose(1, 0, 2)
            gains[~np.isfinite(gains)] = 0
        return gains

    def _gain(self, interval: Interval, instrument: ComplexGains) -> ComplexGains:
        """Solve the gain of an interval; return it with 0 where there is none."""
        pairs = self._scan.pairs
        vis, weights = interval.band_sums(instrument)
        solved = level_of(vis, weights, pairs, self._refant)
        self._times.append(interval.time)
        self._gains.append(solved.gains)
        self._snr.append(solved.snr)
        gains = np.nan_to_num(solved.gains)
        pair = gains[:, pairs.ant1] * gains[:, pairs.ant2].conj()
        power = np.abs(pair) ** 2 * weights.sum(axis=1)
        phase = np.angle(vis.sum(axis=1) * pair.conj())
        self._phase += (power * phase**2).sum(), power.sum()
        return gains

    def finish(self) -> tuple[Solutions, Applied] | None:
        """Return what was solved, and what is in force from now on; None if there was too little data.

        The last delays and bandpass differ from those that the gains were solved with. Gains and bandpass are
        turned and scaled against that, so that all together they are what was solved.
        """
        if self.reference is None or self._start is None:
            return None
        left, delay_snr = self._left_of_delays()
        bandpass, bandpass_snr, scale = self._last_bandpass()
        polarisation = self._polarisation(bandpass)
        centre = self._freqs[self._channels.gain].mean()
        turn = scale * np.exp(-2j * np.pi * left * centre)
        if bandpass is not None:
            bandpass *= fringe(-left, self._freqs - centre).transpose(1, 0, 2)
        wants_gains = self._wanted.gain
        solutions = Solutions(
            refant=self._refant,
            n_antennas=self._scan.pairs.n_antennas,
            start=self._start,
            delays=None if delay_snr is None or self._delays is None else self._delays + left,
            bandpass=bandpass,
            gain_times=tuple(self._times) if wants_gains else (),
            gains=tuple((gain * turn).astype(np.complex64) for gain in self._gains)
            if wants_gains
            else (),
            phase_rms=float(np.sqrt(np.divide(*self._phase))) if self._phase[1] else float("nan"),
            delay_snr=delay_snr,
            bandpass_snr=bandpass_snr,
            gain_snr=tuple(self._snr) if wants_gains else (),
            polarisation=polarisation,
            flagged=self._flagged(),
        )
        return solutions, self._in_force(solutions)

    def _in_force(self, solutions: Solutions) -> Applied:
        """Return what is in force with what was solved."""
        old, leakage = self._applied, solutions.polarisation.leakage
        return Applied(
            old.delays if solutions.delays is None else solutions.delays,
            old.bandpass if solutions.bandpass is None else solutions.bandpass,
            old.leakage if leakage is None else leakage,
        )

    def _flagged(self) -> npt.NDArray[np.float32]:
        """Return the part of the samples, (chan, ant), that was flagged or lost."""
        of_antenna = N_PARALLEL * (self._scan.pairs.n_antennas - 1)
        return (1 - self._good / (of_antenna * max(1, self._n_dumps))).astype(np.float32)

    def _left_of_delays(self) -> tuple[Delays, Quality | None]:
        """Return what is left of the delays in the sums of the scan, and the signal to noise.

        Nothing is left, and there is no quality, where no delays were solved.
        """
        scan = self._scan
        if not self._wanted.delay or self._delays is None:
            return np.zeros((N_PARALLEL, scan.pairs.n_antennas)), None
        ones = np.ones((N_PARALLEL, scan.n_chans, scan.pairs.n_antennas), np.complex64)
        only(ones, self._channels.delay)
        left = residual_delays([scan.band_sums(ones)], scan.pairs, self._freqs, self._refant)
        return left.delays, left.snr

    def _last_bandpass(self) -> tuple[ComplexGains | None, Quality | None, npt.NDArray[np.float32]]:
        """Return the bandpass of the scan, its quality, and the level (pol, ant) that it was divided by."""
        if not self._wanted.bandpass or self._bandpass is None:
            return None, None, np.ones((N_PARALLEL, self._scan.pairs.n_antennas), np.float32)
        bandpass, snr = solve_bandpass(self._scan, self._refant)
        level = levels(bandpass)
        return np.asarray(bandpass / level), snr, level

    def _polarisation(self, bandpass: ComplexGains | None) -> Polarisation:
        if not self._wanted.polarisation or not self.sky.known:
            return Polarisation()
        cross = CrossHands.of(self._scan, bandpass, self.sky, self._freqs, self._applied.leakage)
        return Polarisation() if cross is None else solve_polarisation(cross, self._refant)
