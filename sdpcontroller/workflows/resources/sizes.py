"""Names of networks and volumes, and the sizes of streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipelines import catalogue

CBF_NETWORK: Final = "cbf"
"""Logical network of the correlator's data."""
SDP_NETWORK: Final = "sdp_10g"
"""Logical network between the processor's own programs."""
DATA_VOLUME: Final = "data"
"""Where data sets and images are written."""

INGEST_MAX_RATE: Final = 8e9
"""Bit/s that one ingest takes. One receiver core is worth 7–8 Gb/s at 1472-byte packets and more at
jumbo frames (measured; ``python -m benchmarks.ingest``)."""

MBIT: Final = 1e6
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class StreamSize:
    """Size of one correlator or L0 stream."""

    n_chans: int
    n_antennas: int
    int_time: float
    """Seconds between dumps of the observation."""
    speed: float = 1.0
    """Seconds of the observation per second of wall clock."""

    @property
    def wall_int_time(self) -> float:
        """Seconds of wall clock between dumps."""
        return self.int_time / self.speed

    @property
    def products(self) -> int:
        """Correlation products."""
        return catalogue.n_products(self.n_antennas)

    def correlation_mbps(self) -> float:
        """Rate of the stream as a correlator sends it, Mbit/s."""
        return catalogue.correlation_rate(self.n_chans, self.n_antennas, self.wall_int_time) / MBIT

    def l0_mbps(self) -> float:
        """Rate of the stream as L0, Mbit/s."""
        return catalogue.l0_rate(self.n_chans, self.n_antennas, self.wall_int_time) / MBIT
