"""What the simulator streams: something that fills dumps, be it a model or a recording."""

from __future__ import annotations

from typing import Protocol

import katpoint
import numpy as np
from numpy.typing import NDArray

from pipelines.common.stream_info import CorrelatorStream


class DumpSource(Protocol):
    """Fills dumps. One thread at a time calls `fill`, never that of the event loop."""

    @property
    def stream(self) -> CorrelatorStream:
        """Description of the stream that the dumps make up."""
        ...

    @property
    def antennas(self) -> tuple[katpoint.Antenna, ...]:
        """In the order of the stream's products."""
        ...

    @property
    def n_dumps(self) -> int | None:
        """How many dumps there are; None: as many as are asked for."""
        ...

    def target(self, index: int) -> str | None:
        """Description (katpoint's) of the phase centre of a dump; None: as the array is pointed."""
        ...

    def fill(self, index: int, target: katpoint.Target, out: NDArray[np.int32]) -> None:
        """Write dump `index` to `out`, counts of shape (n_chans, n_bls, 2)."""
        ...
