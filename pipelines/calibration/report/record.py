"""What is remembered of a capture block for its report; bounded, whatever the length of the block."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.calibration.solutions import ComplexGains, Polarisation, Quality, Solutions

MAX_CHANS: Final = 1024
"""Channels of a spectrum that are drawn."""
MAX_SCANS: Final = 500
"""Scans that the table has, the newest."""
MAX_GAINS: Final = 2048
"""Gains against time; of more, every second one is left out."""


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """A line of the table of scans."""

    name: str
    start: float
    """Unix s."""
    n_dumps: int
    counts: Mapping[str, int]
    """Solutions by product."""
    phase_rms: float
    """rad"""
    failure: str = ""
    """Why there is no solution."""


@dataclass(slots=True)
class BlockRecord:
    """What the solutions of a block were."""

    cbid: str
    stream: str
    antennas: tuple[str, ...]
    freqs: npt.NDArray[np.float64]
    """(chan,) Hz, all of the stream's."""
    refant: str = ""
    why: str = ""
    """Why it is the reference antenna."""
    scans: deque[ScanRecord] = field(default_factory=lambda: deque(maxlen=MAX_SCANS))
    delays: deque[tuple[float, npt.NDArray[np.float64]]] = field(
        default_factory=lambda: deque(maxlen=MAX_SCANS)
    )
    """Times, and (pol, ant) s."""
    bandpass: ComplexGains | None = None
    """(drawn, pol, ant), the newest."""
    gain_times: list[float] = field(default_factory=list)
    gains: list[ComplexGains] = field(default_factory=list)
    """(pol, ant)"""
    snr: dict[str, Quality] = field(default_factory=dict)
    """(pol, ant) by product, of its newest scan; of gains the median of the scan's."""
    polarisation: Polarisation = field(default_factory=Polarisation)
    """The newest leakages, and the newest phase."""
    measured_flux: Mapping[str, float] = field(default_factory=dict)
    """Jy by calibrator."""
    n_dumps: int = 0
    _flagged: npt.NDArray[np.float64] | None = None
    _thinned: int = 1
    _seen: int = 0

    @property
    def step(self) -> int:
        """Every how many channels one is drawn."""
        return -(-len(self.freqs) // MAX_CHANS)

    @property
    def drawn(self) -> npt.NDArray[np.float64]:
        """Frequencies that are drawn, Hz."""
        return self.freqs[:: self.step]

    @property
    def flagged(self) -> npt.NDArray[np.float64] | None:
        """(drawn, ant) part of the samples of all scans."""
        return None if self._flagged is None else self._flagged / self.n_dumps

    def fail(self, name: str, n_dumps: int, why: str, time: float) -> None:
        """Take note of a scan without a solution."""
        self.scans.append(ScanRecord(name, time, n_dumps, {}, float("nan"), why))

    def add(self, name: str, n_dumps: int, solutions: Solutions, counts: Mapping[str, int]) -> None:
        """Take note of a scan's solutions."""
        start = solutions.start
        self.scans.append(ScanRecord(name, start, n_dumps, dict(counts), solutions.phase_rms))
        if solutions.delays is not None:
            self.delays.append((start, solutions.delays))
        if solutions.bandpass is not None:
            self.bandpass = solutions.bandpass[:: self.step].copy()
        for time, gains in zip(solutions.gain_times, solutions.gains, strict=True):
            self._add_gain(time, gains)
        self._add_quality(solutions)
        self._add_polarisation(solutions.polarisation)
        if solutions.flagged is not None:
            starts = np.arange(0, len(self.freqs), self.step)
            sizes = np.diff([*starts, len(self.freqs)])[:, np.newaxis]
            flagged = np.add.reduceat(solutions.flagged, starts, axis=0) / sizes * n_dumps
            self._flagged = flagged if self._flagged is None else self._flagged + flagged
            self.n_dumps += n_dumps

    def _add_gain(self, time: float, gains: ComplexGains) -> None:
        if self._seen % self._thinned == 0:
            self.gain_times.append(time)
            self.gains.append(gains)
        self._seen += 1
        if len(self.gains) > MAX_GAINS:
            self._thinned *= 2
            del self.gain_times[1::2], self.gains[1::2]

    def _add_quality(self, solutions: Solutions) -> None:
        median: Any = np.median(solutions.gain_snr, axis=0) if solutions.gain_snr else None
        for product, snr in (
            ("K", solutions.delay_snr),
            ("B", solutions.bandpass_snr),
            ("G", median),
        ):
            if snr is not None:
                self.snr[product] = snr

    def _add_polarisation(self, found: Polarisation) -> None:
        old = self.polarisation
        if found.leakage is None:
            leakage, leakage_snr = old.leakage, old.leakage_snr
        else:
            leakage, leakage_snr = found.leakage, found.leakage_snr
        new = old if found.phase is None else found
        self.polarisation = Polarisation(leakage, leakage_snr, new.delay, new.phase, new.snr)
