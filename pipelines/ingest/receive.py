"""Receive the heaps of a correlation stream into chunks of one dump each.

The sockets belong to the :class:`Receiver` and stay open while the program lives; a capture block gets a
spead2 stream of its own on them (duplicates of the sockets), so that it starts with clean counters and an empty
window, and nothing is missed between blocks. While no capture is on, a stream that turns everything away keeps
the sockets drained.

The memory is allocated and touched once and lent to one stream after the other. When the processing does not
keep up and all chunks are in use, spead2 stops reading, the socket's buffer overflows, and the loss is
counted like any other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import spead2
import spead2.recv
import spead2.recv.asyncio

from pipelines.catalogue import INGEST_SPARE_CHUNKS, INGEST_WINDOW
from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import EndpointError
from pipelines.common.placing import HEAP_LENGTH_ID
from pipelines.common.sockets import open_socket
from pipelines.common.spead import FREQUENCY_ID, TIMESTAMP_ID
from pipelines.ingest import place
from pipelines.ingest.layout import InputLayout
from pipelines.ingest.numbering import wrapped
from pipelines.ingest.place import HeapClass

SOCKET_BUFFER: Final = 64 * 1024 * 1024
"""Bytes asked of the kernel for each socket: half a second of 1 Gb/s."""
MAX_PACKET: Final = 65536
MAX_AHEAD: Final = 16
"""Dumps that a single heap may move the window ahead; further needs more than one witness."""


@dataclass(slots=True)
class Dump:
    """One input dump in the receiver's memory; valid until given back."""

    timestamp: int
    """Start, ADC samples since ``sync_time``; exceeds 48 bits after a wrap within the block."""
    counts: npt.NDArray[np.int32]
    """(channel, product, 2)."""
    present: npt.NDArray[np.uint8]
    """(heap,)."""
    spurious: bool
    """Later heaps contradict its timestamp: from a bad heap, or from before the sender's clock was set back."""
    slot: int

    @property
    def received(self) -> int:
        """Heaps that came."""
        return int(np.count_nonzero(self.present))


@dataclass(slots=True)
class _Slot:
    """Memory of one chunk."""

    data: npt.NDArray[np.uint8]
    present: npt.NDArray[np.uint8]


@dataclass(slots=True)
class Receiver:
    """Owner of the sockets and the chunks of one ingest."""

    layout: InputLayout
    endpoints: Sequence[Endpoint]
    interfaces: Sequence[str]
    """Addresses of the interfaces; the endpoints are shared out among them in order, as evenly as can be."""
    window: int = INGEST_WINDOW
    """Dumps that are open at once, for late heaps and late substreams."""
    _sockets: list[socket.socket] = field(init=False, default_factory=list)
    _slots: list[_Slot] = field(init=False, default_factory=list)
    _threads: spead2.ThreadPool = field(init=False)
    _stream: HeapStream | None = field(init=False, default=None)

    def open(self) -> None:
        """Join the groups and touch the memory; blocks for as long as that takes.

        Raises
        ------
        EndpointError
            A group cannot be joined on its interface, or there are more interfaces than groups.
        """
        n_interfaces, n_endpoints = len(self.interfaces), len(self.endpoints)
        if n_interfaces > max(1, n_endpoints):
            raise EndpointError(
                f"{n_interfaces} interfaces for {n_endpoints} groups: some would get nothing"
            )
        self._threads = spead2.ThreadPool(1)
        for _ in range(n_chunks(self.window)):
            data = np.ones(self.layout.chunk_bytes, np.uint8)
            self._slots.append(_Slot(data, np.zeros(self.layout.n_heaps, np.uint8)))
        try:
            for i, endpoint in enumerate(self.endpoints):
                interface = self.interfaces[i * n_interfaces // n_endpoints]
                self._sockets.append(open_socket(endpoint, interface, SOCKET_BUFFER))
        except EndpointError:
            self._close_sockets()
            raise

    async def switch(self, active: bool, queue: spead2.InprocQueue | None = None) -> HeapStream:
        """End the present stream, if there is one, and begin a fresh one.

        Parameters
        ----------
        active
            False: heaps are only counted and thrown away.
        queue
            Packets come from here in addition to the sockets.
        """
        await self.stop()
        self._stream = HeapStream(self.layout, self._slots, self.window, self._threads, active)
        self._stream.start(self._sockets, queue)
        return self._stream

    async def stop(self) -> None:
        """End the present stream at once."""
        if self._stream is not None:
            # Joins the network thread: not on the event loop.
            await asyncio.to_thread(self._stream.stop)
            self._stream = None

    async def close(self) -> None:
        """End the present stream and leave the groups."""
        await self.stop()
        self._close_sockets()

    def _close_sockets(self) -> None:
        while self._sockets:
            self._sockets.pop().close()

    @property
    def nbytes(self) -> int:
        """Memory of the chunks, bytes."""
        return sum(slot.data.nbytes + slot.present.nbytes for slot in self._slots)


class HeapStream:
    """One spead2 stream: the heaps of one capture block, or of the time between two."""

    def __init__(
        self,
        layout: InputLayout,
        slots: Sequence[_Slot],
        window: int,
        threads: spead2.ThreadPool,
        active: bool,
    ) -> None:
        self._layout = layout
        self._slots = slots
        self._state, self._placed = _place_state(layout, window, active)
        config = spead2.recv.StreamConfig(
            # As many as can be under way, even if all substreams come to these addresses; nothing is known
            # of how the sender numbers its heaps, so they are not divided by number.
            max_heaps=window * (layout.n_chans // layout.n_chans_per_substream),
            # A stop item is as easily forged or stray as any other, and says nothing of a capture block.
            stop_on_stop_item=False,
            allow_out_of_order=True,
        )
        self._stat_base = config.next_stat_index()
        for heap_class in HeapClass:
            config.add_stat(heap_class.name.lower())
        self._state["stat_base"] = self._stat_base
        self._capsule = place.place_capsule(self._state)
        self._ring = spead2.recv.asyncio.ChunkRingbuffer(len(slots))
        self._stream = spead2.recv.ChunkRingStream(
            threads,
            config,
            spead2.recv.ChunkStreamConfig(
                items=[TIMESTAMP_ID, FREQUENCY_ID, HEAP_LENGTH_ID],
                max_chunks=window,
                place=self._capsule,
            ),
            self._ring,
            spead2.recv.asyncio.ChunkRingbuffer(len(slots)),
        )
        self._end = spead2.InprocQueue()

    def start(self, sockets: Sequence[socket.socket], queue: spead2.InprocQueue | None) -> None:
        """Lend the chunks to the stream and begin to read."""
        for index in range(len(self._slots)):
            self.give_back(index)
        for sock in sockets:
            self._stream.add_udp_reader(sock, max_size=MAX_PACKET)
        if queue is not None:
            self._stream.add_inproc_reader(queue)
        self._stream.add_inproc_reader(self._end)

    def finish(self) -> None:
        """Read no more and hand out what is in the window; :meth:`dumps` ends after it.

        spead2 hands out its window when a reader comes to its end, and drops it when the stream is
        stopped from outside; so there is a reader that does nothing but end.
        """
        self._end.stop()

    def stop(self) -> None:
        """Stop at once; blocks until the network thread has let go of the memory."""
        self._stream.stop()

    async def dumps(self) -> AsyncIterator[Dump]:
        """Yield dumps in the order of the window, those without any heap left out.

        Every dump must be given back by its `slot`.
        """
        async for chunk in self._ring:
            dump = self._as_dump(chunk)
            if dump.received == 0:
                self.give_back(dump.slot)
            else:
                yield dump

    def give_back(self, slot: int) -> None:
        """Lend a chunk's memory to the stream again."""
        memory = self._slots[slot]
        chunk = spead2.recv.Chunk(data=memory.data, present=memory.present)
        self._stream.add_free_chunk(chunk)

    @property
    def packets(self) -> int:
        """Packets seen so far."""
        return self._stream.stats["packets"]

    def classes(self) -> dict[HeapClass, int]:
        """Return the number of heaps by what the callback made of them."""
        stats = self._stream.stats
        return {c: stats[self._stat_base + c] for c in HeapClass}

    @property
    def incomplete(self) -> int:
        """Heaps given up because some of their packets never came."""
        stats = self._stream.stats
        return stats["incomplete_heaps_evicted"] + stats["incomplete_heaps_flushed"]

    def _as_dump(self, chunk: spead2.recv.Chunk) -> Dump:
        slot = next(i for i, s in enumerate(self._slots) if s.data is chunk.data)
        state, layout = self._state[0], self._layout
        segment = chunk.chunk_id >> place.SEGMENT_SHIFT
        position = chunk.chunk_id & ((1 << place.SEGMENT_SHIFT) - 1)
        starts = state["segment_start"]
        start = int(starts[segment % place.SEGMENTS_KEPT])
        timestamp = start + (position - place.SEGMENT_ORIGIN) * layout.ticks_per_dump
        spurious = False
        if segment < state["segment"]:
            following = int(starts[(segment + 1) % place.SEGMENTS_KEPT])
            few = int(state["segment_heaps"][segment % place.SEGMENTS_KEPT])
            spurious = wrapped(following - timestamp) <= 0 or few < state["confirmations"]
        memory = self._slots[slot]
        shape = (len(layout.channels), layout.n_bls, 2)
        counts = memory.data.view(np.int32).reshape(shape)
        return Dump(timestamp, counts, memory.present, spurious, slot)


def n_chunks(window: int) -> int:
    """Return the chunks that a receiver with this window allocates."""
    return window + INGEST_SPARE_CHUNKS


def _place_state(layout: InputLayout, window: int, active: bool) -> tuple[Any, Any]:
    state, placed = place.new_state(window, layout.n_heaps)
    state["active"] = active
    state["heap_bytes"] = layout.heap_bytes
    state["n_chans"] = layout.n_chans
    state["first_channel"] = layout.channels.start
    state["channels_per_heap"] = layout.n_chans_per_substream
    state["ticks"] = layout.ticks_per_dump
    state["max_ahead"] = MAX_AHEAD
    state["confirmations"] = max(4, layout.n_heaps)
    return state, placed
