"""One capture block: dumps from the receiver go through the processor to the sender.

Two tasks: one takes input dumps, has them processed in a thread, and hands finished output dumps on; the other
sends them. Between them go a fixed number of output buffers; when none is free the first task waits, and so, in
the end, does the receiver (see :mod:`pipelines.ingest.receive`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.ingest.compute import L0Dump, Processor
from pipelines.ingest.layout import OutputLayout
from pipelines.ingest.numbering import DumpGrid, HeapAccount
from pipelines.ingest.receive import Dump, HeapStream

logger = logging.getLogger(__name__)

Agree = Callable[[float], Awaitable[float]]
"""Proposes ``first_timestamp`` and returns the one that holds for all ingests of the stream."""


class Sender(Protocol):
    """What takes output dumps."""

    async def send(self, capture_block: int, dump: L0Dump) -> None:
        """Send a dump; its arrays are free again when this returns."""

    async def end(self, capture_block: int, n_dumps: int) -> None:
        """Say that no more will come."""


@dataclass(slots=True)
class CaptureCounts:
    """What became of a capture block so far."""

    account: HeapAccount
    contradicted: int = 0
    """Heaps with a timestamp that later ones contradict, thrown away."""
    off_grid: int = 0
    """Heaps between the block's dumps: a sender that was restarted on another grid. Thrown away."""
    past: int = 0
    """Heaps of dumps at or before one that was already passed. Thrown away."""
    early_dumps: int = 0
    """Input dumps before the one that all ingests agreed to call the first; not averaged."""
    output_dumps: int = 0
    samples: int = 0
    lost_samples: int = 0
    """Of `samples`, those that did not come."""
    saturated_samples: int = 0
    """Of `samples`, those that the correlator clipped."""
    rfi_samples: int = 0
    """Of `samples`, those with interference."""
    output_samples: int = 0
    flagged_samples: int = 0
    """Of `output_samples`, those with a flag."""
    last_timestamp: float | None = None
    """Start of the newest input dump, seconds since ``sync_time``."""


@dataclass(slots=True)
class CaptureBlock:
    """A capture block on its way through ingest."""

    number: int
    """The capture block id, as a number."""
    layout: OutputLayout
    stream: HeapStream
    processor: Processor
    sender: Sender
    buffers: list[L0Dump]
    """Memory of output dumps, lent for the length of the block."""
    agree: Agree
    counts: CaptureCounts = field(init=False)
    _grid: DumpGrid | None = field(init=False, default=None)
    _current: int | None = field(init=False, default=None)
    """Output dump that is being made."""
    _free: asyncio.Queue[L0Dump] = field(init=False)
    _outgoing: asyncio.Queue[L0Dump | None] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = CaptureCounts(HeapAccount(self.layout.source.n_heaps))
        self._free = asyncio.Queue()
        self._outgoing = asyncio.Queue()
        for buffer in self.buffers:
            self._free.put_nowait(buffer)

    async def run(self) -> None:
        """Work until the stream's last dump is sent, then say so to the receivers."""
        self.processor.reset()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            tasks.create_task(self._process())
        await self.sender.end(self.number, self.counts.output_dumps)

    async def _process(self) -> None:
        async for dump in self.stream.dumps():
            try:
                await self._take(dump)
            finally:
                self.stream.give_back(dump.slot)
        await self._emit()
        self._outgoing.put_nowait(None)

    async def _take(self, dump: Dump) -> None:
        """Put an input dump where it belongs."""
        number = await self._number(dump)
        if number is None:
            return
        if not self.counts.account.add(number, dump.received):
            self.counts.past += dump.received
            return
        self.counts.last_timestamp = dump.timestamp / self.layout.source.scale_factor_timestamp
        if number < 0:
            self.counts.early_dumps += 1
            return
        await self._average(dump, number)

    async def _average(self, dump: Dump, number: int) -> None:
        index = number // self.layout.ratio
        if index != self._current:
            await self._emit()
            self._current = index
        found = await asyncio.to_thread(self.processor.add, dump.counts, dump.present)
        self.counts.samples += found.samples
        self.counts.lost_samples += found.lost
        self.counts.saturated_samples += found.saturated
        self.counts.rfi_samples += found.rfi
        if number % self.layout.ratio == self.layout.ratio - 1:
            await self._emit()

    async def _number(self, dump: Dump) -> int | None:
        """Return the number of the dump in the block; None, and its heaps counted, if it has none."""
        if dump.spurious:
            self.counts.contradicted += dump.received
            return None
        if self._grid is None:
            self._grid = await self._agree_on_grid(dump.timestamp)
        number = self._grid.number(dump.timestamp)
        if number is None:
            self.counts.off_grid += dump.received
        return number

    async def _agree_on_grid(self, timestamp: int) -> DumpGrid:
        source, ratio = self.layout.source, self.layout.ratio
        rate = source.scale_factor_timestamp
        proposal = DumpGrid(timestamp, source.ticks_per_dump, ratio, rate)
        first = await self.agree(proposal.output_time(0))
        return DumpGrid.agreed(first, source.ticks_per_dump, ratio, rate)

    async def _emit(self) -> None:
        """Hand on the output dump that is being made, if there is one."""
        if self._current is None or self._grid is None:
            return
        buffer = await self._free.get()
        await asyncio.to_thread(self.processor.finish, buffer)
        buffer.index = self._current
        buffer.timestamp = self._grid.output_time(self._current)
        self._current = None
        self._outgoing.put_nowait(buffer)

    async def _send(self) -> None:
        while (dump := await self._outgoing.get()) is not None:
            await self.sender.send(self.number, dump)
            self.counts.output_dumps += 1
            self.counts.output_samples += dump.flags.size
            self.counts.flagged_samples += dump.flagged
            self._free.put_nowait(dump)
