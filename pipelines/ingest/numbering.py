"""Numbers of dumps and heaps: which dump is it, which output dump does it go to, how many heaps were lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MODULUS: Final = 1 << 48


def wrapped(difference: int) -> int:
    """Return a difference of two 48-bit timestamps as the nearer of its readings, in [-2^47, 2^47)."""
    return (difference + _MODULUS // 2) % _MODULUS - _MODULUS // 2


@dataclass(frozen=True, slots=True)
class DumpGrid:
    """The dumps of one capture block, counted from a first one.

    All ingests of a stream agree on where dump 0 begins through ``first_timestamp`` in telescope state, so they
    number the same dump the same even if one of them missed the first.
    """

    origin: int
    """Start of input dump 0, ADC samples since ``sync_time``."""
    ticks: int
    """ADC samples per input dump."""
    ratio: int
    """Input dumps per output dump."""
    rate: float
    """ADC samples per second, Hz."""

    def number(self, timestamp: int) -> int | None:
        """Return the number of the input dump that begins at `timestamp`; None if none does."""
        number, remainder = divmod(wrapped(timestamp - self.origin), self.ticks)
        return number if remainder == 0 else None

    def output_time(self, index: int) -> float:
        """Return the centre of output dump `index`, seconds since ``sync_time``."""
        return (self.origin + (index + 0.5) * self.ratio * self.ticks) / self.rate

    @classmethod
    def agreed(cls, first_timestamp: float, ticks: int, ratio: int, rate: float) -> DumpGrid:
        """Return the grid that `first_timestamp` (centre of output dump 0, seconds) was made from.

        Exact: 48 bits of ticks leave a float64 four bits and the start of a dump is a whole tick.
        """
        origin = round(first_timestamp * rate - 0.5 * ratio * ticks)
        return cls(origin, ticks, ratio, rate)


@dataclass(slots=True)
class HeapAccount:
    """Heaps of one capture block; ``received + lost == expected`` at every moment."""

    n_heaps: int
    """Heaps per dump."""
    received: int = 0
    dumps: int = 0
    first: int | None = None
    """Number of the first dump seen."""
    last: int | None = None

    def add(self, number: int, received: int) -> bool:
        """Enter a dump of which `received` heaps came; false (and nothing entered) if it lies in the past."""
        if self.last is not None and number <= self.last:
            return False
        if self.first is None:
            self.first = number
        self.last = number
        self.received += received
        self.dumps += 1
        return True

    @property
    def expected(self) -> int:
        """Heaps that should have come from the first to the last dump seen."""
        if self.first is None or self.last is None:
            return 0
        return (self.last - self.first + 1) * self.n_heaps

    @property
    def lost(self) -> int:
        """Heaps that should have come and did not."""
        return self.expected - self.received
