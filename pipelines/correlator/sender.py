"""From dumps of counts to heaps on the network.

The memory of dumps, and the heaps that point to it, are made once and used again: sending a dump costs no
allocation and no copy in Python.
"""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import spead2
import spead2.send
from numpy.typing import NDArray

from pipelines.common import spead
from pipelines.common.endpoints import Endpoint
from pipelines.common.stream_info import CorrelatorStream
from pipelines.correlator.errors import ModelError
from pipelines.correlator.faults import Fate, FaultPlan

PACKET_OVERHEAD: Final = 1.02
"""Bytes of packets for bytes of data: SPEAD headers and item pointers of jumbo packets, rounded up."""

FASTER_THAN_REAL_TIME: Final = 1.05
"""So that a delayed dump is caught up with."""

TRUNCATED_PACKETS: Final = 16
"""Most packets that a truncated heap has: they are sent without a rate limit."""

_IMMEDIATE_BYTES: Final = spead.IMMEDIATE_BITS // 8


def send_rate(stream: CorrelatorStream, clock_ratio: float, max_rate: float) -> float:
    """Rate at which to send, bytes of packets per second.

    Parameters
    ----------
    stream
        What is sent.
    clock_ratio
        Seconds of wall time per second of the observation; 0 for as fast as `max_rate` allows.
    max_rate
        Bound, bit/s.

    Raises
    ------
    ModelError
        The stream needs more than the bound.
    """
    bound = max_rate / 8
    if clock_ratio == 0:
        return bound
    size = stream.heap_bytes * stream.n_substreams * PACKET_OVERHEAD
    rate = size / (stream.int_time * clock_ratio) * FASTER_THAN_REAL_TIME
    if rate > bound:
        raise ModelError(
            f"stream {stream.name!r} needs {rate * 8e-9:.2f} Gb/s at clock ratio {clock_ratio:g}, more than "
            f"the limit of {max_rate * 1e-9:g} Gb/s: use a larger clock ratio or fewer channels"
        )
    return rate


class DumpBuffer:
    """Memory of one dump, and the heaps that send it.

    Attributes
    ----------
    counts
        Shape (n_chans, n_bls, 2).
    heaps
        One per substream.
    """

    def __init__(self, stream: CorrelatorStream) -> None:
        # Touched now, so that the first dumps do not wait for page faults.
        self.counts: NDArray[np.int32] = np.ones((stream.n_chans, stream.n_bls, 2), np.int32)
        self._timestamp = np.zeros((), ">u8")
        parts = self.counts.reshape(stream.n_substreams, -1, stream.n_bls, 2)
        self.heaps = [
            self._heap(i * stream.n_chans_per_substream, part) for i, part in enumerate(parts)
        ]

    def set_timestamp(self, ticks: int) -> None:
        """Set the heaps' timestamp, ADC samples since ``sync_time``; it wraps around."""
        self._timestamp[...] = ticks % spead.TIMESTAMP_MODULUS

    def copy(self, substream: int) -> spead2.send.Heap:
        """Return a heap that sends what a substream has now, whatever becomes of this memory."""
        parts = self.counts.reshape(len(self.heaps), -1, *self.counts.shape[1:])
        first = substream * parts.shape[1]
        return self._heap(first, parts[substream].copy(), self._timestamp.copy())

    def _heap(
        self,
        first_channel: int,
        counts: NDArray[np.int32],
        timestamp: NDArray[np.uint64] | None = None,
    ) -> spead2.send.Heap:
        heap = spead2.send.Heap(spead.FLAVOUR)
        stamp = self._timestamp if timestamp is None else timestamp
        heap.add_item(_immediate(spead.TIMESTAMP_ID, stamp))
        heap.add_item(_immediate(spead.FREQUENCY_ID, np.array(first_channel, ">u8")))
        heap.add_item(
            spead2.Item(
                spead.XENG_RAW_ID, "xeng_raw", "", counts.shape, dtype=counts.dtype, value=counts
            )
        )
        heap.repeat_pointers = True
        return heap


def _immediate(item_id: int, value: NDArray[np.uint64]) -> spead2.Item:
    """Item that follows later changes of a big-endian number, and is short enough to be an immediate."""
    data = value.reshape(1).view(np.uint8)[-_IMMEDIATE_BYTES:]
    return spead2.Item(item_id, "", "", data.shape, dtype=data.dtype, value=data)


@dataclass(frozen=True)
class Sent:
    """What became of one dump."""

    heaps: int
    """Heaps that left whole, each counted as often as it was sent."""
    bytes: int
    """Bytes of packets."""
    fates: Mapping[Fate, int]


class HeapSender:
    """Sends dumps of one stream.

    Parameters
    ----------
    stream
        What is sent.
    endpoints
        Where substreams go, as the interface says.
    rate
        Bytes per second.
    interface
        Address of the interface for multicast.
    faults
        What to break.

    Raises
    ------
    EndpointError
        The endpoints or the interface cannot be used.
    ModelError
        There are more endpoints than substreams.
    """

    def __init__(
        self,
        stream: CorrelatorStream,
        endpoints: Sequence[Endpoint],
        *,
        rate: float,
        interface: str = spead.DEFAULT_INTERFACE,
        max_packet_size: int = spead.MAX_PACKET_SIZE,
        faults: FaultPlan | None = None,
    ) -> None:
        if len(endpoints) > stream.n_substreams:
            raise ModelError(
                f"{len(endpoints)} endpoints for {stream.n_substreams} substreams: some would get nothing"
            )
        self._stream = stream
        self._endpoints = tuple(endpoints)
        self._interface = interface
        self._max_packet_size = max_packet_size
        self._faults = faults or FaultPlan()
        # One sequence for data and descriptors of all substreams: receivers tell heaps apart by their counts.
        self._counts = itertools.count(1)
        # Two dumps, either all doubled, and descriptors.
        max_heaps = 4 * stream.n_substreams + 2 * len(endpoints)
        self._sender = spead.make_sender(
            endpoints,
            interface=interface,
            rate=rate,
            max_packet_size=max_packet_size,
            max_heaps=max_heaps,
        )
        items = spead.correlator_items(stream.n_chans_per_substream, stream.n_bls)
        self._descriptors = items.get_heap(descriptors="all", data="none")
        self._late: list[spead2.send.HeapReference] = []
        """Copies of heaps that are to be late."""

    async def send_descriptors(self) -> None:
        """Send the descriptors to every endpoint."""
        heaps = [
            spead2.send.HeapReference(self._descriptors, cnt=next(self._counts), substream_index=i)
            for i in range(len(self._endpoints))
        ]
        await self._sender.async_send_heaps(heaps, spead2.send.GroupMode.SERIAL)

    async def send(self, buffer: DumpBuffer, dump: int) -> Sent:
        """Send a dump; returns when its memory may be overwritten.

        Raises
        ------
        OSError
            The network refused.
        """
        buffer.set_timestamp(dump * self._stream.dump_ticks)
        fates: Counter[Fate] = Counter()
        references: list[spead2.send.HeapReference] = []
        last, self._late = self._late, []
        size = 0
        for substream, heap in enumerate(buffer.heaps):
            fate = self._faults.fate(dump, substream)
            fates[fate] += 1
            endpoint = self._stream.endpoint_index(substream, len(self._endpoints))
            cnt = next(self._counts)
            if fate is Fate.TRUNCATED:
                size += self._send_truncated(heap, cnt, self._endpoints[endpoint])
                continue
            if fate is Fate.LATE:
                heap = buffer.copy(substream)  # the memory is used again before it is sent
            queue = {Fate.REORDERED: last, Fate.LATE: self._late}.get(fate, references)
            copies = {Fate.DROPPED: 0, Fate.DUPLICATED: 2}.get(fate, 1)
            reference = spead2.send.HeapReference(heap, cnt=cnt, substream_index=endpoint)
            queue += copies * [reference]
        for batch in (references, last):
            size += await self._send_batch(batch)
        return Sent(len(references) + len(last), size, fates)

    async def _send_batch(self, batch: list[spead2.send.HeapReference]) -> int:
        if not batch:
            return 0
        return await self._sender.async_send_heaps(batch, spead2.send.GroupMode.ROUND_ROBIN)

    async def send_late(self) -> Sent:
        """Send what would be sent with the next dump: there is none."""
        late, self._late = self._late, []
        return Sent(len(late), await self._send_batch(late), Counter())

    def _send_truncated(self, heap: spead2.send.Heap, cnt: int, endpoint: Endpoint) -> int:
        """Send the first packets of a heap, at most half of it."""
        packets = list(spead2.send.PacketGenerator(heap, cnt, self._max_packet_size))
        size = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            if endpoint.is_multicast:
                address = socket.inet_aton(self._interface)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, address)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, spead.MULTICAST_TTL)
            for packet in packets[: min(len(packets) // 2, TRUNCATED_PACKETS)]:
                size += sock.sendto(packet, (endpoint.host, endpoint.port))
        return size
