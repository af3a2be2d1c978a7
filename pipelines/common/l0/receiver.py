"""The receiver of one capture block of an L0 stream."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import spead2
import spead2.recv
import spead2.recv.asyncio
import spead2.send
import spead2.send.asyncio

from pipelines.common.endpoints import Endpoint
from pipelines.common.l0.layout import (
    END_HEAP_BYTES,
    MAX_DUMPS,
    Dump,
    DumpPart,
    L0Layout,
    part_of_payload,
    timestamp_of_payload,
)
from pipelines.common.l0.place import FLUSH_ID, ITEMS, STATE, HeapClass, place_capsule
from pipelines.common.spead import DEFAULT_INTERFACE, FLAVOUR, IMMEDIATE_FORMAT, add_reader

DEFAULT_WINDOW: Final = 8
"""Dumps that are collected at a time."""
DEFAULT_HELD: Final = 7
"""Dumps that the consumer may hold without holding up the network thread."""
_POLL: Final = 0.05
_SETTLE: Final = 0.2
"""Seconds in which packets that were overtaken by the end heaps may still come."""


@dataclass(frozen=True, slots=True)
class SenderCount:
    """What came from one sender in a block."""

    received: int
    announced: int | None
    """Dumps sent, by its end heap; None when that has not come."""
    expected: int
    """`announced`, or else the most that any sender is known to have sent."""

    @property
    def lost(self) -> int:
        """Heaps that were sent and did not come."""
        return max(0, self.expected - self.received)


def buffer_bytes(layout: L0Layout, window: int = DEFAULT_WINDOW, held: int = DEFAULT_HELD) -> int:
    """Memory of a receiver, bytes: the dumps under way, one being refilled, and those the consumer holds."""
    return (window + held + 1) * layout.chunk_bytes


class L0Receiver:
    """Receives the dumps of one capture block; an asynchronous context manager and iterator.

    A dump comes out when a newer one pushes it out of the window, or at the end: when every sender's end heap
    has come, or at the deadline set by :meth:`finish_within`. Dumps come in order; a dump of which nothing came
    is left out. Memory is bounded by :func:`buffer_bytes`; a consumer that holds more dumps than `held` makes
    the kernel drop packets, which are counted as lost.

    Parameters
    ----------
    layout
        Shape of the stream.
    capture_block
        Heaps of other blocks are ignored.
    window
        Dumps that may be incomplete at a time.
    held
        Dumps that the consumer may hold unreleased.
    """

    def __init__(
        self,
        layout: L0Layout,
        capture_block: int,
        *,
        window: int = DEFAULT_WINDOW,
        held: int = DEFAULT_HELD,
    ) -> None:
        self.layout = layout
        self.bad_timestamps = 0
        """Heaps whose time contradicts their dump index."""
        self._received = [0] * layout.n_senders
        self._announced: list[int | None] = [None] * layout.n_senders
        self._origin = math.nan
        self._deadline = math.inf
        self._secret = secrets.randbits(48)
        self._placed = np.full((window, layout.n_senders), -1, np.int64)
        self._ended = np.zeros(layout.n_senders, np.int64)
        self._pool = spead2.ThreadPool()
        config = spead2.recv.StreamConfig(
            max_heaps=4 * layout.n_senders, substreams=layout.n_senders, allow_unsized_heaps=False
        )
        base = config.next_stat_index()
        for heap_class in HeapClass:
            config.add_stat(f"l0.{heap_class.name.lower()}")
        self._state = self._new_state(capture_block, window, base)
        n_chunks = window + held + 1
        self._ring = spead2.recv.asyncio.ChunkRingbuffer(n_chunks)
        self._free = spead2.recv.ChunkRingbuffer(n_chunks)
        self._stream = spead2.recv.ChunkRingStream(
            self._pool,
            config,
            spead2.recv.ChunkStreamConfig(
                items=list(ITEMS), max_chunks=window, place=place_capsule(self._state)
            ),
            self._ring,
            self._free,
        )
        for _ in range(n_chunks):
            self._stream.add_free_chunk(self._new_chunk())
        self._flush_queue = spead2.InprocQueue()
        self._stream.add_inproc_reader(self._flush_queue)

    def _new_state(self, capture_block: int, window: int, stat_base: int) -> npt.NDArray[Any]:
        state = np.zeros(1, STATE)
        values = {
            "capture_block": capture_block,
            "heap_bytes": self.layout.heap_bytes,
            "slot_bytes": self.layout.slot_bytes,
            "n_senders": self.layout.n_senders,
            "channels_per_sender": self.layout.channels_per_sender,
            "window": window,
            "secret": self._secret,
            "stat_base": stat_base,
            "newest": -1,
            "rival": -MAX_DUMPS,
            "placed": self._placed.ctypes.data,
            "ended": self._ended.ctypes.data,
        }
        for name, value in values.items():
            state[name] = value
        return state

    def _new_chunk(self) -> spead2.recv.Chunk:
        # Written once, so that no page fault falls into the time of receiving.
        data = np.ones(self.layout.chunk_bytes, np.uint8)
        return spead2.recv.Chunk(
            data=data, present=np.zeros(2 * self.layout.n_senders + 1, np.uint8)
        )

    def listen(self, endpoint: Endpoint, interface: str = DEFAULT_INTERFACE) -> None:
        """Listen to an endpoint, by the interface with the given address where it is a multicast group.

        Raises
        ------
        EndpointError
            The address cannot be bound or joined.
        """
        add_reader(self._stream, endpoint, interface=interface)

    def add_inproc(self, queue: spead2.InprocQueue) -> None:
        """Listen to a queue within this process."""
        self._stream.add_inproc_reader(queue)

    def finish_within(self, seconds: float) -> None:
        """End the block after so long, whether the end heaps have come or not."""
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flush_queue.stop()
        await asyncio.to_thread(self._stream.stop)

    async def __aiter__(self) -> AsyncIterator[Dump]:
        flush = asyncio.create_task(self._flush_at_end())
        try:
            while not (flush.done() and self._ring.empty()):
                chunk = await self._next_chunk(flush)
                if chunk is None:
                    continue
                dump = self._open(chunk)
                if dump is not None:
                    yield dump
            await flush
        finally:
            flush.cancel()

    async def _next_chunk(self, flush: asyncio.Task[None]) -> spead2.recv.Chunk | None:
        """Wait for a chunk, or None when the flush is over first."""
        get = asyncio.ensure_future(self._ring.get())
        try:
            await asyncio.wait((get, flush), return_when=asyncio.FIRST_COMPLETED)
            if get.done():
                return get.result()
            return None
        finally:
            get.cancel()

    async def _flush_at_end(self) -> None:
        """Wait for the end of the block, then push everything out of the window."""
        loop = asyncio.get_running_loop()
        # The network thread marks the ends in memory; there is nothing to await.
        while not self._ended.all() and loop.time() < self._deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
        await asyncio.sleep(_SETTLE)
        # The second one is looked at when all chunks that the first has pushed out are in the ring.
        for count in (1, 2):
            await self._send_flush()
            while self._state["closed"][0] < count:  # noqa: ASYNC110
                await asyncio.sleep(_POLL / 10)

    async def _send_flush(self) -> None:
        heap = spead2.send.Heap(FLAVOUR)
        heap.add_item(
            spead2.Item(FLUSH_ID, "", "", (), format=IMMEDIATE_FORMAT, value=self._secret)
        )
        sender = spead2.send.asyncio.InprocStream(
            self._pool, [self._flush_queue], spead2.send.StreamConfig()
        )
        await sender.async_send_heap(heap)

    def _open(self, chunk: spead2.recv.Chunk) -> Dump | None:
        """Count what is in a chunk and return its dump; None, and the chunk given back, if there is none."""
        present = np.asarray(chunk.present)
        data = np.asarray(chunk.data)
        n = self.layout.n_senders
        for sender in range(n):
            if present[n + sender]:
                self._note_end(sender, data)
        senders = [s for s in range(n) if present[s] and self._plausible(chunk.chunk_id, s, data)]
        if not senders:
            self._stream.add_free_chunk(chunk)
            return None
        for sender in senders:
            self._received[sender] += 1
        return Dump(
            chunk.chunk_id,
            self._time(chunk.chunk_id),
            tuple(self._part(data, sender) for sender in senders),
            partial(self._stream.add_free_chunk, chunk),
        )

    def _payload(self, data: npt.NDArray[Any], sender: int) -> npt.NDArray[Any]:
        start = sender * self.layout.slot_bytes
        return data[start : start + self.layout.heap_bytes]

    def _part(self, data: npt.NDArray[Any], sender: int) -> DumpPart:
        layout = self.layout
        return part_of_payload(
            self._payload(data, sender), layout.channels(sender), layout.n_bls, layout.content
        )

    def _note_end(self, sender: int, data: npt.NDArray[Any]) -> None:
        start = self.layout.n_senders * self.layout.slot_bytes + sender * END_HEAP_BYTES
        count = timestamp_of_payload(data[start : start + END_HEAP_BYTES])
        if 0 <= count <= MAX_DUMPS and count == int(count):
            self._announced[sender] = int(count)

    def _time(self, index: int) -> float:
        return self._origin + index * self.layout.int_time

    def _plausible(self, index: int, sender: int, data: npt.NDArray[Any]) -> bool:
        """Whether a heap's time agrees with its dump index, by those of the first heap."""
        time = timestamp_of_payload(self._payload(data, sender))
        if math.isnan(self._origin) and 0 <= time < math.inf:
            self._origin = time - index * self.layout.int_time
        if abs(time - self._time(index)) < 0.5 * self.layout.int_time:
            return True
        self.bad_timestamps += 1
        return False

    @property
    def starving(self) -> bool:
        """Whether the next dump would find no memory while data may still come: the consumer is too slow."""
        return self._free.empty() and not self._state["closed"][0]

    @property
    def heaps(self) -> Mapping[HeapClass, int]:
        """Heaps seen so far, by what became of them."""
        stats = self._stream.stats
        return {c: stats[f"l0.{c.name.lower()}"] for c in HeapClass}

    @property
    def counts(self) -> tuple[SenderCount, ...]:
        """What came from each sender: exact when the block is over and its end heaps have come."""
        dumps = max(self._received, default=0)
        most = max([dumps, *(n for n in self._announced if n is not None)])
        return tuple(
            SenderCount(received, announced, most if announced is None else announced)
            for received, announced in zip(self._received, self._announced, strict=True)
        )
