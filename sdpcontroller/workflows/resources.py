"""How much each program asks for: formulas over the streams, kept apart from graph-building.

Every formula names its inputs and units and says where it comes from. Bandwidth is in Mbit/s and memory in
MiB, as agents advertise them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from pipelines import catalogue
from scheduler.requests import NicRequest, TaskRequest, VolumeRequest

CBF_NETWORK: Final = "cbf"
"""Logical network of the correlator's data."""
SDP_NETWORK: Final = "sdp_10g"
"""Logical network between the processor's own programs."""
DATA_VOLUME: Final = "data"
"""Where data sets and images are written."""

_MBIT: Final = 1e6
_MIB: Final = 2**20

INGEST_MAX_RATE: Final = 8e9
"""Bit/s that one ingest takes. One receiver core is worth 7–8 Gb/s at 1472-byte packets and more at
jumbo frames (measured; ``benchmarks/ingest.py``)."""


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
    def dump_mib(self) -> float:
        """Memory of one dump of complex64 visibilities (or int32 pairs), MiB."""
        return self.n_chans * catalogue.n_products(self.n_antennas) * 8 / _MIB

    @property
    def buffer_mib(self) -> float:
        """Memory of a program's buffer, if this is an L0 stream that it receives, MiB."""
        products = catalogue.n_products(self.n_antennas)
        return catalogue.l0_buffer_bytes(self.n_chans, products) / _MIB

    def correlation_mbps(self) -> float:
        """Rate of the stream as a correlator sends it, Mbit/s."""
        return catalogue.correlation_rate(self.n_chans, self.n_antennas, self.wall_int_time) / _MBIT

    def l0_mbps(self) -> float:
        """Rate of the stream as L0, Mbit/s."""
        return catalogue.l0_rate(self.n_chans, self.n_antennas, self.wall_int_time) / _MBIT


def telstate() -> TaskRequest:
    """Redis: one core's share at most, and the solutions and sensors of a long observation."""
    return TaskRequest.of(cpus=0.2, mem_mib=256, ports=catalogue.TELSTATE.ports)


def correlator(stream: StreamSize) -> TaskRequest:
    """Simulator: two dumps of float64 model visibilities and four of counts on their way out."""
    mem = catalogue.PYTHON_MIB + 8 * stream.dump_mib
    return TaskRequest.of(
        cpus=1,
        mem_mib=math.ceil(mem),
        ports=catalogue.CORRELATOR.ports,
        nics=[NicRequest.of(CBF_NETWORK, out_mbps=stream.correlation_mbps())],
    )


def ingest(
    part: StreamSize, groups: StreamSize, output: StreamSize, *, n_heaps: int, less: bool
) -> TaskRequest:
    """Ingest of part of the band: the arrays that it says it has (:func:`pipelines.catalogue.ingest_bytes`).

    Parameters
    ----------
    part
        The channels that this ingest takes, at the correlator's dump rate.
    groups
        All channels of the multicast groups that it joins: a group that it shares with its neighbour comes
        whole.
    output
        What it sends.
    n_heaps
        Substreams that it takes.
    less
        Whether one core has to do for receiving and processing, on a small test machine. Otherwise the
        receiver thread has a core of its own: whoever shares it makes it lose packets.
    """
    arrays = catalogue.ingest_bytes(
        part.n_chans, output.n_chans, catalogue.n_products(part.n_antennas), n_heaps
    )
    mem = catalogue.PYTHON_MIB + arrays / _MIB
    return TaskRequest.of(
        cpus=0.5,
        mem_mib=math.ceil(mem),
        cores=("receive",) if less else ("receive", "process"),
        ports=catalogue.INGEST.ports,
        nics=[
            NicRequest.of(CBF_NETWORK, in_mbps=groups.correlation_mbps(), affinity=not less),
            NicRequest.of(SDP_NETWORK, out_mbps=output.l0_mbps()),
        ],
    )


def calibration(l0: StreamSize, buffer_time: float, *, less: bool) -> TaskRequest:
    """Calibration: scans of `buffer_time` seconds (:func:`pipelines.catalogue.calibration_bytes`)."""
    dumps = math.ceil(buffer_time / l0.int_time)
    scans = catalogue.calibration_bytes(l0.n_chans, l0.n_antennas, dumps)
    mem = catalogue.PYTHON_MIB + scans / _MIB + l0.buffer_mib
    return TaskRequest.of(
        cpus=0.5 if less else 2,
        mem_mib=math.ceil(mem),
        ports=catalogue.CALIBRATION.ports,
        nics=[NicRequest.of(SDP_NETWORK, in_mbps=l0.l0_mbps())],
    )


def writer(l0: StreamSize) -> TaskRequest:
    """Writer: the dumps between the network and the disk."""
    mem = catalogue.PYTHON_MIB + l0.buffer_mib
    return TaskRequest.of(
        cpus=0.3,
        mem_mib=math.ceil(mem),
        ports=catalogue.WRITER.ports,
        nics=[NicRequest.of(SDP_NETWORK, in_mbps=l0.l0_mbps())],
        volumes=[VolumeRequest.of(DATA_VOLUME)],
    )


def display(l0: StreamSize) -> TaskRequest:
    """Signal display: its memory (:func:`pipelines.catalogue.display_bytes`) and the network's buffer."""
    memory = catalogue.display_bytes(l0.n_chans, l0.n_antennas)
    mem = catalogue.PYTHON_MIB + memory / _MIB + l0.buffer_mib
    return TaskRequest.of(
        cpus=0.2,
        mem_mib=math.ceil(mem),
        ports=catalogue.DISPLAY.ports,
        nics=[NicRequest.of(SDP_NETWORK, in_mbps=l0.l0_mbps())],
    )


def imager() -> TaskRequest:
    """Imager: works in blocks, so its memory is that of its images and one block."""
    return TaskRequest.of(cpus=1, mem_mib=1500, volumes=[VolumeRequest.of(DATA_VOLUME)])
