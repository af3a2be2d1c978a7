"""How a calibration is set up, and the memory that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines import catalogue
from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.solutions import Channels


@dataclass(frozen=True, slots=True)
class CalSettings:
    """How to calibrate."""

    stream: str
    """Name of the calibration stream."""
    buffer_time: float
    """Visibilities that are held at most, s; scans may be longer."""
    g_solint: float = 0.0
    """Interval of the gains, s; 0 for one solution per dump."""
    preferred_refants: Sequence[str] = ()
    """Reference antennas in order of preference; the first that has data is taken, or else the best."""
    channels: Channels = field(default_factory=Channels)
    """Those that delays and gains are solved from."""

    def dumps_per_gain(self, int_time: float) -> int:
        """Whole dumps in a solution interval."""
        return catalogue.dumps_per_gain(self.g_solint, int_time)

    def batch(self, int_time: float) -> int:
        """Solution intervals that are solved together."""
        interval = self.dumps_per_gain(int_time) * int_time
        return catalogue.calibration_batch(self.buffer_time, interval)


class CalMemory:
    """The arrays of a calibration: two batches of intervals, and the sums of a scan.

    Parameters
    ----------
    pairs, n_chans
        Of the stream.
    batch
        Intervals in a batch.
    """

    def __init__(self, pairs: Pairs, n_chans: int, batch: int) -> None:
        self.batch = batch
        self.scan = Interval(pairs, n_chans)
        self.free = [Interval(pairs, n_chans) for _ in range(2 * batch)]
