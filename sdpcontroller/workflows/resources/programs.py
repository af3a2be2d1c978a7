"""The formulas of each program, and the requests that are made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pipelines import catalogue
from pipelines.catalogue import Program
from scheduler.requests import NicRequest, TaskRequest, VolumeRequest
from sdpcontroller.workflows.resources.formula import Asked, Quantity, formula, memory
from sdpcontroller.workflows.resources.sizes import (
    CBF_NETWORK,
    DATA_VOLUME,
    MBIT,
    MIB,
    SDP_NETWORK,
    StreamSize,
)


def fixed(program: str, resource: str, unit: str, value: float, why: str, source: str) -> Quantity:
    """Declare an amount that depends on nothing."""

    @formula(program, resource, unit, why=why, source=source)
    def constant() -> float:
        return value

    return constant()


def _stream(
    network: str, bit_rate: Callable[[int, int, float], float], source: str
) -> Callable[[str, str, str], Callable[..., Quantity]]:
    """Return what declares, by program, ``in`` or ``out`` and reason, the rate of a kind of stream."""

    def declare(program: str, way: str, why: str) -> Callable[..., Quantity]:
        """Declare the rate, Mbit/s, of the stream's way in or out of a program."""

        @formula(program, f"{network} {way}", "Mbit/s", why=why, source=source)
        def rate(n_chans: int, n_antennas: int, wall_int_time: float) -> float:
            return bit_rate(n_chans, n_antennas, wall_int_time) / MBIT

        return rate

    return declare


_correlation_in_or_out = _stream(
    CBF_NETWORK,
    catalogue.correlation_rate,
    "pipelines.catalogue.correlation_rate: 8 bytes per product and channel, 5 % above real time",
)
_l0_in_or_out = _stream(
    SDP_NETWORK,
    catalogue.l0_rate,
    "pipelines.catalogue.l0_rate: 10 bytes per product and channel, 5 % above real time",
)


def _rate_of(rate: Callable[..., Quantity], size: StreamSize) -> Quantity:
    return rate(n_chans=size.n_chans, n_antennas=size.n_antennas, wall_int_time=size.wall_int_time)


def _of_l0(
    program: Program,
    cpus: Quantity,
    mem: Quantity,
    received: Quantity,
    sent: Quantity | None = None,
    *,
    volumes: Sequence[str] = (),
) -> Asked:
    """Make the request of a program that works on an L0 stream, or on one of flags."""
    out = 0.0 if sent is None else sent.value
    request = TaskRequest.of(
        cpus=cpus.value,
        mem_mib=mem.value,
        ports=program.ports,
        nics=[NicRequest.of(SDP_NETWORK, in_mbps=received.value, out_mbps=out)],
        volumes=[VolumeRequest.of(volume) for volume in volumes],
    )
    return Asked(request, (cpus, mem, received, *(() if sent is None else (sent,))))


def _l0_buffer(n_chans: int, n_antennas: int) -> float:
    """Memory of the dumps that a receiver of L0 holds, bytes."""
    return catalogue.l0_buffer_bytes(n_chans, catalogue.n_products(n_antennas))


_telstate_cpus = fixed(
    "telstate", "cpus", "CPU", 0.2, "one core's share at most", "Redis has one thread"
)


@formula(
    "telstate",
    "mem",
    "MiB",
    why="sensors of a long observation, and solutions for all channels, which stay as long as the product",
    source="pipelines.catalogue.solution_bytes; 64 antennas, 32k channels: 32 MiB a bandpass",
)
def _telstate_mem(solution_mib: float) -> float:
    return math.ceil(256 + catalogue.TELSTATE_SOLUTIONS * solution_mib)


def telstate(calibrated: Sequence[StreamSize] = ()) -> Asked:
    """Redis with the telescope state of a product that calibrates these visibility streams."""
    solutions = sum(catalogue.solution_bytes(size.n_chans, size.n_antennas) for size in calibrated)
    mem = _telstate_mem(solution_mib=solutions / MIB)
    request = TaskRequest.of(
        cpus=_telstate_cpus.value, mem_mib=mem.value, ports=catalogue.TELSTATE.ports
    )
    return Asked(request, (_telstate_cpus, mem))


_correlator_out = _correlation_in_or_out("correlator", "out", "the stream that it sends")
_correlator_cpus = fixed("correlator", "cpus", "CPU", 1, "one thread computes", "its design")


@memory(
    "correlator",
    why="the interpreter, two dumps of float64 model visibilities and four of counts on their way out",
    source="pipelines.correlator.simulator, its arrays",
)
def _correlator_mem(n_chans: int, n_antennas: int) -> float:
    dump = n_chans * catalogue.n_products(n_antennas) * catalogue.BYTES_PER_CORRELATION
    return 8 * dump


def correlator(stream: StreamSize) -> Asked:
    """Correlator simulator."""
    out = _rate_of(_correlator_out, stream)
    mem = _correlator_mem(n_chans=stream.n_chans, n_antennas=stream.n_antennas)
    request = TaskRequest.of(
        cpus=_correlator_cpus.value,
        mem_mib=mem.value,
        ports=catalogue.CORRELATOR.ports,
        nics=[NicRequest.of(CBF_NETWORK, out_mbps=out.value)],
    )
    return Asked(request, (_correlator_cpus, mem, out))


_ingest_in = _correlation_in_or_out(
    "ingest",
    "in",
    "all channels of the groups that it joins: one shared with a neighbour comes whole",
)
_ingest_out = _l0_in_or_out("ingest", "out", "the part of the L0 stream that it sends")
_ingest_cpus = fixed(
    "ingest",
    "cpus",
    "CPU",
    0.5,
    "KATCP, telescope state and sending; the rest is pinned",
    "measured",
)


@memory(
    "ingest",
    why="the interpreter, the receiver's dumps, one input dump, one output dump as sums, the output buffers",
    source="pipelines.catalogue.ingest_bytes, held to by tests/pipelines/ingest",
)
def _ingest_mem(chans_in: int, chans_out: int, n_antennas: int, n_heaps: int) -> float:
    products = catalogue.n_products(n_antennas)
    return catalogue.ingest_bytes(chans_in, chans_out, products, n_heaps)


@formula(
    "ingest",
    "pinned",
    "cores",
    why="one that receives, which nobody may share, and those that flag and average",
    source="pipelines.catalogue.INGEST_CORE_RATE for each of these, measured by benchmarks.ingest",
)
def _ingest_cores(mbps: float, less: bool) -> float:
    return 1 if less else 1 + math.ceil(mbps * MBIT / catalogue.INGEST_CORE_RATE)


def ingest(
    part: StreamSize, groups: StreamSize, output: StreamSize, *, n_heaps: int, less: bool
) -> Asked:
    """Ingest of part of the band.

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
    mem = _ingest_mem(
        chans_in=part.n_chans,
        chans_out=output.n_chans,
        n_antennas=part.n_antennas,
        n_heaps=n_heaps,
    )
    cores = _ingest_cores(mbps=part.correlation_mbps(), less=less)
    received, sent = _rate_of(_ingest_in, groups), _rate_of(_ingest_out, output)
    request = TaskRequest.of(
        cpus=_ingest_cpus.value,
        mem_mib=mem.value,
        cores=("receive", *(f"process.{n}" for n in range(round(cores.value) - 1))),
        ports=catalogue.INGEST.ports,
        nics=[
            NicRequest.of(CBF_NETWORK, in_mbps=received.value, affinity=not less),
            NicRequest.of(SDP_NETWORK, out_mbps=sent.value),
        ],
    )
    return Asked(request, (_ingest_cpus, cores, mem, received, sent))


_cal_in = _l0_in_or_out("cal", "in", "the L0 stream")


@formula(
    "cal",
    "cpus",
    "CPU",
    why="its solver's threads; half a core where less_resources is set",
    source="pipelines.catalogue.CALIBRATION_THREADS",
)
def _cal_cpus(less: bool) -> float:
    return 0.5 if less else catalogue.CALIBRATION_THREADS


@memory(
    "cal",
    why="the interpreter, two batches of solution intervals, sums of a scan, gains, and the network's buffer",
    source="pipelines.catalogue.calibration_bytes, held to by tests/pipelines/calibration",
)
def _cal_mem(n_chans: int, n_antennas: int, batch: int) -> float:
    arrays = catalogue.calibration_bytes(n_chans, n_antennas, batch)
    return arrays + _l0_buffer(n_chans, n_antennas)


def calibration(l0: StreamSize, buffer_time: float, g_solint: float = 0.0, *, less: bool) -> Asked:
    """Calibration that holds visibilities of up to `buffer_time` seconds; gains every `g_solint` seconds."""
    dumps = catalogue.dumps_per_gain(g_solint, l0.int_time)
    mem = _cal_mem(
        n_chans=l0.n_chans,
        n_antennas=l0.n_antennas,
        batch=catalogue.calibration_batch(buffer_time, dumps * l0.int_time),
    )
    received = _rate_of(_cal_in, l0)
    return _of_l0(
        catalogue.CALIBRATION, _cal_cpus(less=less), mem, received, volumes=(DATA_VOLUME,)
    )


_writer_in = _l0_in_or_out("vis_writer", "in", "the L0 stream")
_writer_cpus = fixed("vis_writer", "cpus", "CPU", 0.3, "it copies to the disk", "measured")


@memory(
    "vis_writer",
    why="the interpreter and the dumps between the network and the disk",
    source="pipelines.catalogue.l0_buffer_bytes",
)
def _writer_mem(n_chans: int, n_antennas: int) -> float:
    return _l0_buffer(n_chans, n_antennas)


def writer(l0: StreamSize) -> Asked:
    """Visibility writer."""
    mem = _writer_mem(n_chans=l0.n_chans, n_antennas=l0.n_antennas)
    return _of_l0(
        catalogue.WRITER, _writer_cpus, mem, _rate_of(_writer_in, l0), volumes=(DATA_VOLUME,)
    )


_flags_in = _l0_in_or_out("flags", "in", "the L0 stream")
_flags_cpus = fixed("flags", "cpus", "CPU", 1, "one thread flags", "its design")


def _flags_out_or_in(program: str, way: str, why: str) -> Callable[..., Quantity]:
    @formula(
        program,
        f"{SDP_NETWORK} {way}",
        "Mbit/s",
        why=why,
        source="pipelines.catalogue.flags_rate: a byte per product and channel, times rate_ratio",
    )
    def rate(n_chans: int, n_antennas: int, wall_int_time: float, rate_ratio: float) -> float:
        return catalogue.flags_rate(n_chans, n_antennas, wall_int_time) * rate_ratio / MBIT

    return rate


_flags_out = _flags_out_or_in("flags", "out", "the flags, a window at a time")


@memory(
    "flags",
    why="the interpreter, two windows of amplitudes and flags, a bandpass, and the network's buffer",
    source="pipelines.catalogue.flags_bytes and bandpass_bytes, held to by tests/pipelines/flags",
)
def _flags_mem(n_chans: int, n_antennas: int) -> float:
    windows = catalogue.flags_bytes(n_chans, catalogue.n_products(n_antennas))
    bandpass = catalogue.bandpass_bytes(n_chans, n_antennas)
    return windows + bandpass + _l0_buffer(n_chans, n_antennas)


def flags(l0: StreamSize, rate_ratio: float) -> Asked:
    """Flagger with the time axis."""
    mem = _flags_mem(n_chans=l0.n_chans, n_antennas=l0.n_antennas)
    sent = _flags_rate(_flags_out, l0, rate_ratio)
    return _of_l0(catalogue.FLAGS, _flags_cpus, mem, _rate_of(_flags_in, l0), sent)


def _flags_rate(rate: Callable[..., Quantity], size: StreamSize, rate_ratio: float) -> Quantity:
    return rate(
        n_chans=size.n_chans,
        n_antennas=size.n_antennas,
        wall_int_time=size.wall_int_time,
        rate_ratio=rate_ratio,
    )


_flag_writer_in = _flags_out_or_in("flag_writer", "in", "the flags, a window at a time")
_flag_writer_cpus = fixed("flag_writer", "cpus", "CPU", 0.2, "it copies to the disk", "measured")


@memory(
    "flag_writer",
    why="the interpreter and the dumps between the network and the disk, a byte per sample",
    source="pipelines.catalogue.L0_BUFFERED",
)
def _flag_writer_mem(n_chans: int, n_antennas: int) -> float:
    return catalogue.L0_BUFFERED * n_chans * catalogue.n_products(n_antennas)


def flag_writer(l0: StreamSize, rate_ratio: float) -> Asked:
    """Writer of flags."""
    mem = _flag_writer_mem(n_chans=l0.n_chans, n_antennas=l0.n_antennas)
    received = _flags_rate(_flag_writer_in, l0, rate_ratio)
    return _of_l0(catalogue.FLAG_WRITER, _flag_writer_cpus, mem, received, volumes=(DATA_VOLUME,))


_display_in = _l0_in_or_out("display", "in", "the L0 stream")
_display_cpus = fixed("display", "cpus", "CPU", 0.2, "at most four dumps a second", "measured")


@memory(
    "display",
    why="the interpreter, what it remembers, and the network's buffer",
    source="pipelines.catalogue.display_bytes, held to by tests/pipelines/display",
)
def _display_mem(n_chans: int, n_antennas: int) -> float:
    return catalogue.display_bytes(n_chans, n_antennas) + _l0_buffer(n_chans, n_antennas)


def display(l0: StreamSize) -> Asked:
    """Signal display."""
    mem = _display_mem(n_chans=l0.n_chans, n_antennas=l0.n_antennas)
    return _of_l0(catalogue.DISPLAY, _display_cpus, mem, _rate_of(_display_in, l0))


_QUALITY = (
    fixed("quality", "cpus", "CPU", 0.1, "a record of each task every five seconds", "its design"),
    fixed("quality", "mem", "MiB", 128, "the interpreter and the newest records", "measured"),
)


def quality() -> Asked:
    """Aggregator of quality records."""
    cpus, mem = _QUALITY
    request = TaskRequest.of(cpus=cpus.value, mem_mib=mem.value, ports=catalogue.QUALITY.ports)
    return Asked(request, _QUALITY)


_metadata_cpus = fixed("meta_writer", "cpus", "CPU", 0.1, "a file a minute", "its design")


@memory(
    "meta_writer",
    why="the interpreter and the largest sensor, the bandpass solutions of a block, while it is encoded",
    source="pipelines.catalogue.metadata_bytes; the number of copies was measured",
    interpreter=catalogue.METADATA_PYTHON_MIB,
)
def _metadata_mem(n_chans: int, n_antennas: int) -> float:
    return catalogue.metadata_bytes(n_chans, n_antennas)


def metadata(l0: Sequence[StreamSize]) -> Asked:
    """Writer of the telescope state of a product with these visibility streams."""
    mem = _metadata_mem(
        n_chans=max(size.n_chans for size in l0), n_antennas=max(size.n_antennas for size in l0)
    )
    request = TaskRequest.of(
        cpus=_metadata_cpus.value,
        mem_mib=mem.value,
        ports=catalogue.METADATA.ports,
        volumes=[VolumeRequest.of(DATA_VOLUME)],
    )
    return Asked(request, (_metadata_cpus, mem))
