"""SPEAD as the programs speak it: ids of items, and streams of UDP packets in and out.

The ids of the correlator stream are katgpucbf's (its *data interfaces* page); those of L0 are ours. A
receiver hard-codes them: descriptors are sent for people and for other programs.
"""

from __future__ import annotations

import atexit
import ctypes
import weakref
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import spead2
import spead2.recv
import spead2.send
import spead2.send.asyncio

from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import EndpointError
from pipelines.common.sockets import open_socket

FLAVOUR: Final = spead2.Flavour(4, 64, 48, 0)
"""SPEAD-64-48: 64-bit item pointers with 48-bit addresses."""

IMMEDIATE_FORMAT: Final = [("u", FLAVOUR.heap_address_bits)]
IMMEDIATE_BITS: Final = FLAVOUR.heap_address_bits
TIMESTAMP_MODULUS: Final = 1 << IMMEDIATE_BITS
"""Where timestamps and other immediates wrap around."""

# Correlator stream
TIMESTAMP_ID: Final = 0x1600
FREQUENCY_ID: Final = 0x4103
"""First channel number of the heap; in the L0 stream too."""
XENG_RAW_ID: Final = 0x1800

MISSING: Final = (-(2**31), 1)
"""Real and imaginary part that mark one product of one channel as missing."""
MAX_COUNT: Final = 2**31 - 1
"""Where a real or imaginary part is clipped, above and, negated, below (katgpucbf's X-engines)."""

# L0 stream
CORRELATOR_DATA_ID: Final = 0x6001
FLAGS_ID: Final = 0x6002
WEIGHTS_ID: Final = 0x6003
WEIGHTS_CHANNEL_ID: Final = 0x6004
L0_TIMESTAMP_ID: Final = 0x6005
DUMP_INDEX_ID: Final = 0x6006
CAPTURE_BLOCK_ID: Final = 0x6007

END_DUMP_INDEX: Final = TIMESTAMP_MODULUS - 1
"""``dump_index`` of the heap that ends a block."""
END_HEAP_REPEATS: Final = 3

# katdal's bits (`katdal.flags`); it reserves the first one, and nobody else at MeerKAT uses it.
FLAG_SATURATED: Final = 0x01
"""A correlator's count was clipped."""
FLAG_DATA_LOST: Final = 0x08
FLAG_INGEST_RFI: Final = 0x10
FLAG_CAL_RFI: Final = 0x40

MAX_PACKET_SIZE: Final = 8872
"""Payload of a packet that fits in a jumbo frame of 9000 bytes beside IP, UDP and SPEAD headers."""
BURST_SIZE: Final = 65536
BURST_TIME: Final = 0.1
"""Seconds that a burst lasts at most at the rate of its stream, and that a stream waits after it."""
MULTICAST_TTL: Final = 1
DEFAULT_INTERFACE: Final = "127.0.0.1"


def correlator_items(n_chans_per_substream: int, n_bls: int) -> spead2.send.ItemGroup:
    """Items of a correlator heap, as descriptors and without values."""
    items = spead2.send.ItemGroup(flavour=FLAVOUR)
    _add_immediate(items, TIMESTAMP_ID, "timestamp", "ADC samples since sync_time, start")
    _add_immediate(items, FREQUENCY_ID, "frequency", "First channel number of the heap")
    shape = (n_chans_per_substream, n_bls, 2)
    items.add_item(XENG_RAW_ID, "xeng_raw", "Counts, real and imaginary", shape, dtype=np.int32)
    return items


def l0_items(n_chans: int, n_bls: int) -> spead2.send.ItemGroup:
    """Items of an L0 heap of `n_chans` channels, as descriptors and without values."""
    items = spead2.send.ItemGroup(flavour=FLAVOUR)
    shape = (n_chans, n_bls)
    items.add_item(
        CORRELATOR_DATA_ID, "correlator_data", "Visibilities, Jy", shape, dtype=np.complex64
    )
    items.add_item(FLAGS_ID, "flags", "Flags, katdal's bits", shape, dtype=np.uint8)
    items.add_item(WEIGHTS_ID, "weights", "Inverse variances, scaled", shape, dtype=np.uint8)
    items.add_item(
        WEIGHTS_CHANNEL_ID, "weights_channel", "Scale of weights", (n_chans,), dtype=np.float32
    )
    items.add_item(
        L0_TIMESTAMP_ID, "timestamp", "Centre of dump, s since sync_time", (), dtype=np.float64
    )
    _add_immediate(items, DUMP_INDEX_ID, "dump_index", "Dump in the capture block, from 0")
    _add_immediate(items, FREQUENCY_ID, "frequency", "First channel number of the heap")
    _add_immediate(items, CAPTURE_BLOCK_ID, "capture_block_id", "Capture block id as a number")
    return items


def flags_items(n_chans: int, n_bls: int) -> spead2.send.ItemGroup:
    """Items of a heap of flags of `n_chans` channels, as descriptors and without values."""
    items = spead2.send.ItemGroup(flavour=FLAVOUR)
    items.add_item(FLAGS_ID, "flags", "Flags, katdal's bits", (n_chans, n_bls), dtype=np.uint8)
    items.add_item(
        L0_TIMESTAMP_ID, "timestamp", "Centre of dump, s since sync_time", (), dtype=np.float64
    )
    _add_immediate(items, DUMP_INDEX_ID, "dump_index", "Dump in the capture block, from 0")
    _add_immediate(items, FREQUENCY_ID, "frequency", "First channel number of the heap")
    _add_immediate(items, CAPTURE_BLOCK_ID, "capture_block_id", "Capture block id as a number")
    return items


def _add_immediate(items: spead2.send.ItemGroup, item_id: int, name: str, description: str) -> None:
    items.add_item(item_id, name, description, (), format=IMMEDIATE_FORMAT)


def make_sender(
    endpoints: Sequence[Endpoint],
    *,
    interface: str = DEFAULT_INTERFACE,
    rate: float,
    max_packet_size: int = MAX_PACKET_SIZE,
    max_heaps: int = 64,
    ttl: int = MULTICAST_TTL,
    thread_pool: spead2.ThreadPool | None = None,
) -> spead2.send.asyncio.UdpStream:
    """Open a UDP stream that sends substream `i` to ``endpoints[i]``.

    Parameters
    ----------
    endpoints
        All multicast, or all unicast.
    interface
        Address of the interface that multicast leaves by.
    rate
        Bytes per second of the whole stream; 0 is without limit, which loses data on any real receiver.
    max_packet_size
        Payload of a UDP packet, bytes.
    max_heaps
        Heaps (substreams included) that may be queued before sending fails.

    Raises
    ------
    EndpointError
        No endpoints, a mixture of multicast and unicast, or an interface that is not there.
    """
    if len({endpoint.is_multicast for endpoint in endpoints}) != 1:
        raise EndpointError("endpoints must be all multicast or all unicast, and at least one")
    burst = BURST_SIZE if rate == 0 else max(1, min(BURST_SIZE, int(rate * BURST_TIME)))
    config = spead2.send.StreamConfig(
        max_packet_size=max_packet_size, rate=rate, burst_size=burst, max_heaps=max_heaps
    )
    addresses = [(endpoint.host, endpoint.port) for endpoint in endpoints]
    pool = thread_pool or spead2.ThreadPool()
    multicast: dict[str, Any] = {}
    if endpoints[0].is_multicast:
        multicast = {"ttl": ttl, "interface_address": interface}
    try:
        sender = spead2.send.asyncio.UdpStream(pool, addresses, config, **multicast)
    except (RuntimeError, OSError, ValueError) as exc:
        raise EndpointError(
            f"cannot send to {endpoints[0]} by interface {interface}: {exc}"
        ) from exc
    _SENDERS.add(sender)
    return sender


_SENDERS: Final[weakref.WeakSet[spead2.send.asyncio.UdpStream]] = weakref.WeakSet()


@atexit.register
def _spare_senders() -> None:
    """Keep senders that are there when the interpreter ends from being destroyed.

    One that waits for its rate limit would wait, when destroyed, for a thread that has ended by then: for ever.
    """
    for sender in _SENDERS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(sender))


def add_reader(
    stream: spead2.recv.Stream | spead2.recv.ChunkRingStream,
    endpoint: Endpoint,
    *,
    interface: str = DEFAULT_INTERFACE,
    buffer_size: int = 4 * 1024 * 1024,
    max_packet_size: int = 9200,
) -> None:
    """Make a receive stream listen on an endpoint, joining the group on that interface alone where it is one.

    Raises
    ------
    EndpointError
        The address cannot be bound or joined.
    """
    with open_socket(endpoint, interface, buffer_size) as sock:  # the stream makes its own of it
        stream.add_udp_reader(sock, max_size=max_packet_size)
