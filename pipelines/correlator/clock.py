"""When dumps are due: the time of the observation against the time on the wall.

Pure arithmetic; whoever uses it says what time it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SimulationClock:
    """A clock that runs at its own speed.

    The observation's time is counted in dumps from ``sync_time``.
    """

    int_time: float
    """Seconds of the observation in a dump."""
    ratio: float
    """Wall seconds per second of the observation; 0: dumps are due at once."""
    wall: float
    """Wall time (monotonic, s) at which dump `dump` begins."""
    dump: int = 0

    def due(self, dump: int) -> float:
        """Wall time at which a dump is complete and to be sent."""
        if self.ratio == 0:
            return -math.inf
        return self.wall + (dump + 1 - self.dump) * self.int_time * self.ratio

    def next_dump(self, wall: float) -> int:
        """Return the first dump that begins at wall time `wall` or later; `dump` where time does not run."""
        if self.ratio == 0:
            return self.dump
        elapsed = (wall - self.wall) / (self.int_time * self.ratio)
        return self.dump + max(0, math.ceil(elapsed))

    def restarted(self, wall: float, dump: int) -> SimulationClock:
        """Return the clock with `dump` beginning at wall time `wall`."""
        return SimulationClock(self.int_time, self.ratio, wall, dump)
