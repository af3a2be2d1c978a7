"""The writer's KATCP server: dumps from the network to a bounded queue to the disk."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiokatcp
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import telstate as ts
from pipelines.common.dataset_files import OF_BLOCK, OF_DUMP
from pipelines.common.errors import TelstateError
from pipelines.common.l0 import Dump
from pipelines.common.l0.receiver import DEFAULT_HELD
from pipelines.common.l0.server import L0_QUALITY, L0Input, L0Server
from pipelines.writer.measurement_set import MeasurementSetSink, measurement_set_path
from pipelines.writer.second_sink import SecondSink
from pipelines.writer.store import BlockStore, StoreError

logger = logging.getLogger(__name__)

QUEUE_DUMPS: Final = DEFAULT_HELD - 1
"""Dumps that may wait for the disk, those being written included; one more is in the loop's hands."""
WRITERS: Final = 2
"""Threads that write."""
_POLL: Final = 0.02
LOW_SPACE: Final = 1800.0
"""Seconds of data; with less room than for these there is a warning, with a tenth of it an error."""


@dataclass(slots=True)
class _Block:
    """What is known of the block that is being written."""

    store: BlockStore
    second: SecondSink | None = None
    n_dumps: int = 0
    """One more than the highest dump index that came."""


class WriterServer(L0Server):
    """Writes every capture block as a data set that katdal opens.

    When the disk cannot keep up, whole dumps are dropped and counted, with ``device-status`` degraded; when it
    fails (full, say), what could not be written is counted, with ``device-status`` fail, and writing is tried
    again with the next dump. Either way katdal sees what is missing as lost data.

    With `measurement_set` there is a MeasurementSet of the block as well, made with what time the disk leaves.
    """

    STAGE = "writer"
    QUALITY = (
        *L0_QUALITY,
        "dumps-written",
        "bytes-written",
        "heaps-dropped",
        "heaps-not-written",
        "disk-free",
        "queue-depth",
    )

    def __init__(
        self,
        options: argparse.Namespace,
        telstate: TelescopeState,
        source: L0Input,
        *,
        measurement_set: bool = False,
    ) -> None:
        super().__init__(options, telstate, source)
        self._measurement_set = measurement_set
        self._root: Path = options.data
        self._block: _Block | None = None
        self._executor = ThreadPoolExecutor(WRITERS, thread_name_prefix="writer")
        self._dumps = self.add_sensor(int, "dumps-written", "Dumps of which something was written")
        self._bytes = self.add_sensor(int, "bytes-written", "Bytes of arrays written", units="B")
        self._dropped = self.add_sensor(
            int, "heaps-dropped", "Heaps dropped since the disk did not keep up"
        )
        self._failed = self.add_sensor(int, "heaps-not-written", "Heaps that the disk refused")
        self._free = self.add_sensor(int, "disk-free", "Space left on the data volume", units="B")
        self._ms_dumps = self.add_sensor(
            int, "ms-dumps-written", "Dumps in the block's MeasurementSet"
        )
        self._ms_dropped = self.add_sensor(
            int, "ms-dumps-dropped", "Dumps left out of the block's MeasurementSet"
        )
        self._depth = self.add_sensor(int, "queue-depth", "Dumps waiting for the disk")

    async def prepare(self, cbid: str) -> None:
        """Make the block's directories."""
        store = await asyncio.to_thread(
            BlockStore, self._root, cbid, self.source.stream.name, self.layout
        )
        self._set_free(await asyncio.to_thread(store.free_bytes))
        # What there is can be read whatever becomes of this program (pipelines.metadata).
        await ts.publish(self._view(cbid), OF_DUMP, store.chunk_info(1))
        self._block = _Block(store, await self._second(cbid) if self._measurement_set else None)

    async def _second(self, cbid: str) -> SecondSink:
        stream = self.source.stream
        path = measurement_set_path(self._root, cbid, stream.name)
        sink = await asyncio.to_thread(MeasurementSetSink, path, stream, self.layout)
        return SecondSink(sink)

    async def capture(self, cbid: str, dumps: AsyncIterator[Dump]) -> None:
        """Write the block's dumps."""
        block = self._prepared(cbid)
        async with asyncio.TaskGroup() as writes:
            pending: set[asyncio.Task[None]] = set()
            async for dump in dumps:
                block.n_dumps = max(block.n_dumps, dump.index + 1)
                if not await self._room(pending):
                    self._drop(dump)
                    continue
                task = writes.create_task(self._write(block, dump))
                pending.add(task)
                task.add_done_callback(pending.discard)
                task.add_done_callback(lambda _: self._set_depth(len(pending)))
                self._set_depth(len(pending))

    def _prepared(self, cbid: str) -> _Block:
        if self._block is None:
            raise StoreError(f"capture block {cbid} was not prepared")
        return self._block

    async def _room(self, pending: set[asyncio.Task[None]]) -> bool:
        """Wait for room in the queue; false when the memory for what comes from the network runs out first."""
        while len(pending) >= QUEUE_DUMPS:
            if self.starving:
                return False
            await asyncio.wait(pending, timeout=_POLL, return_when=asyncio.FIRST_COMPLETED)
        return True

    def _set_depth(self, depth: int) -> None:
        self._depth.set_value(
            depth,
            status=aiokatcp.Sensor.Status.WARN
            if depth >= QUEUE_DUMPS
            else aiokatcp.Sensor.Status.NOMINAL,
        )

    def _set_free(self, free: int) -> None:
        """Tell how much room there is: before the disk is full, somebody should know that it will be."""
        rate = self.layout.heap_bytes * self.layout.n_senders / self.layout.int_time
        status = aiokatcp.Sensor.Status.NOMINAL
        if free < LOW_SPACE * rate:
            status = aiokatcp.Sensor.Status.WARN
        if free < 0.1 * LOW_SPACE * rate:
            status = aiokatcp.Sensor.Status.ERROR
        self._free.set_value(free, status=status)

    def _drop(self, dump: Dump) -> None:
        heaps = len(dump.parts)
        dump.release()
        self._dropped.set_value(self._dropped.value + heaps, status=aiokatcp.Sensor.Status.WARN)
        if self.device_status is aiokatcp.DeviceStatus.OK:
            self.set_device_status(
                aiokatcp.DeviceStatus.DEGRADED, f"{self._root} is too slow: dropping dumps"
            )

    async def _write(self, block: _Block, dump: Dump) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as both:
                if block.second is not None:
                    both.create_task(self._write_second(block.second, dump))
                written, failures, free = await loop.run_in_executor(
                    self._executor, _write_parts, block.store, dump
                )
        finally:
            dump.release()
        self._set_free(free)
        if written:
            self._dumps.value += 1
            self._bytes.value += written
        if failures:
            self._failed.set_value(
                self._failed.value + len(failures), status=aiokatcp.Sensor.Status.ERROR
            )
            self.set_device_status(aiokatcp.DeviceStatus.FAIL, failures[0])

    async def _write_second(self, second: SecondSink, dump: Dump) -> None:
        await second.write(dump)
        self._ms_dumps.value = second.written
        self._tell_second(second)

    def _tell_second(self, second: SecondSink) -> None:
        if second.dropped != self._ms_dropped.value:
            self._ms_dropped.set_value(second.dropped, status=aiokatcp.Sensor.Status.WARN)
        if second.failure:
            self.set_device_status(aiokatcp.DeviceStatus.DEGRADED, second.failure)

    async def conclude(self, cbid: str) -> None:
        """Publish the chunks' description: the metadata writer, which is asked next, makes the file of it."""
        block = self._prepared(cbid)
        n_dumps = max(block.n_dumps, self.announced)
        if n_dumps:
            await ts.publish(self._view(cbid), OF_BLOCK, block.store.chunk_info(n_dumps))
        else:
            logger.warning("capture block %s has no data", cbid)
        try:
            await asyncio.to_thread(block.store.mark_complete)
        except OSError as exc:
            raise StoreError(f"{self._root}: not marked as complete: {exc}") from exc
        logger.info("capture block %s: %d dumps", cbid, n_dumps)
        if block.second is not None:
            await self._conclude_second(block.second, cbid)

    def _view(self, cbid: str) -> TelescopeState:
        """Return the capture-stream view of a block."""
        return self.telstate.view(self.telstate.join(cbid, self.source.stream.name))

    async def _conclude_second(self, second: SecondSink, cbid: str) -> None:
        """A block whose data set is whole is no failure, whatever becomes of its MeasurementSet."""
        try:
            await second.finish(self.telstate, cbid)
        except TelstateError as exc:
            second.failure = f"no MeasurementSet: {exc}"
        self._tell_second(second)
        await second.close()

    async def on_stop(self) -> None:
        """Finish the block, then let the threads go."""
        await super().on_stop()
        await asyncio.to_thread(self._executor.shutdown)


def _write_parts(store: BlockStore, dump: Dump) -> tuple[int, list[str], int]:
    """Write a dump; return the bytes written, what went wrong, and the space left."""
    written, failures = 0, []
    for part in dump.parts:
        try:
            written += store.write(dump.index, part)
        except StoreError as exc:
            failures.append(str(exc))
    try:
        return written, failures, store.free_bytes()
    except OSError as exc:
        return written, [*failures, str(exc)], 0
