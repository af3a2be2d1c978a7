"""KATCP server of ingest: capture requests and sensors.

Without postponed annotations: aiokatcp reads those of request handlers when the class is made.
"""

import argparse
import asyncio
import enum
import logging
from dataclasses import dataclass
from typing import Final

import aiokatcp
from katsdptelstate.aio.telescope_state import TelescopeState
from katsdptelstate.errors import ImmutableKeyError
from redis.exceptions import RedisError

from pipelines.catalogue import INGEST_OUTPUT_BUFFERS
from pipelines.common import telstate as ts
from pipelines.common.errors import TelstateError
from pipelines.common.program import ProgramServer, check_capture_block_id
from pipelines.ingest.capture import CaptureBlock, Sender
from pipelines.ingest.compute import L0Dump, Processor
from pipelines.ingest.layout import OutputLayout
from pipelines.ingest.place import HeapClass
from pipelines.ingest.receive import HeapStream, Receiver
from pipelines.ingest.sensors import IngestSensors

logger = logging.getLogger(__name__)

_UPDATE_INTERVAL: Final = 0.5
"""Seconds between updates of the sensors."""
_POLL_INTERVAL: Final = 0.05
"""Seconds between looks at whether the input is silent."""


class IngestState(enum.Enum):
    """What ingest is doing: ``idle → starting → capturing → draining → idle``."""

    IDLE = "idle"
    STARTING = "starting"
    CAPTURING = "capturing"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """What the server needs to know beyond the layout."""

    stream: str
    """Name of the L0 stream."""
    sync_time: float
    """Unix time that timestamps count from."""
    idle_time: float
    """Seconds without a packet after which the input is taken to be drained."""
    drain_time: float
    """Longest wait for that, s."""


@dataclass(frozen=True, slots=True)
class _Capture:
    """The capture block in progress."""

    block: CaptureBlock
    task: asyncio.Task[None]


class IngestServer(ProgramServer):
    """Runs capture blocks, one after another, and tells how they fare."""

    STAGE = "ingest"
    QUALITY = (
        "input-heaps-total",
        "input-heaps-lost",
        "input-heaps-rejected",
        "input-samples-saturated",
        "flagged-fraction",
        "rfi-fraction",
        "input-rate",
    )

    def __init__(
        self,
        options: argparse.Namespace,
        settings: IngestSettings,
        telstate: TelescopeState,
        layout: OutputLayout,
        receiver: Receiver,
        processor: Processor,
        sender: Sender,
    ) -> None:
        super().__init__(options)
        self._settings = settings
        self.stream_name = settings.stream
        self._telstate = telstate
        self._layout = layout
        self._receiver = receiver
        self._processor = processor
        self._sender = sender
        self._buffers = [L0Dump.empty(layout) for _ in range(INGEST_OUTPUT_BUFFERS)]
        self._sensors = IngestSensors(self, layout, settings.sync_time)
        self._state = IngestState.IDLE
        self._stream: HeapStream | None = None
        self._capture: _Capture | None = None
        self._finishing: asyncio.Task[tuple[int, int, int]] | None = None
        self._hurry = asyncio.Event()

    async def listen(self) -> None:
        """Begin to drain the input, and to keep the sensors up to date."""
        await self._discard()
        self.add_service_task(asyncio.create_task(self._update_sensors()))

    async def request_capture_init(self, ctx: aiokatcp.RequestContext, cbid: str) -> None:
        """Begin a capture block: replies when its data can come.

        Parameters
        ----------
        cbid
            Capture block id, decimal digits
        """
        number = int(check_capture_block_id(cbid))
        self._require(IngestState.IDLE, f"capture block {cbid} cannot begin")
        self._set_state(IngestState.STARTING)
        stream = await self._switch(active=True)
        block = CaptureBlock(
            number,
            self._layout,
            stream,
            self._processor,
            self._sender,
            self._buffers,
            lambda proposal: self._agree(cbid, proposal),
        )
        self._sensors.begin(cbid)
        task = asyncio.create_task(_run(block), name=f"capture block {cbid}")
        self.add_service_task(task)
        self._capture = _Capture(block, task)
        self._set_state(IngestState.CAPTURING)

    async def request_capture_done(self, ctx: aiokatcp.RequestContext) -> tuple[int, int, int]:
        """End the capture block: replies dumps sent, heaps received and heaps lost, once all is sent."""
        self._require(IngestState.CAPTURING, "there is no capture to end")
        return await self._finish()

    async def on_stop(self) -> None:
        """End the capture in order, then stop receiving."""
        self._hurry.set()
        if self._capture is not None and not self._capture.task.done():
            await self._finish()
        await self._receiver.close()

    async def _finish(self) -> tuple[int, int, int]:
        """End the capture block, or join in the end that is under way."""
        if self._finishing is None and self._capture is not None:
            self._set_state(IngestState.DRAINING)
            self._finishing = asyncio.create_task(self._drain(self._capture))
        if self._finishing is None:
            return 0, 0, 0
        # A client that gives up must not leave half of an end behind.
        return await asyncio.shield(self._finishing)

    async def _drain(self, capture: _Capture) -> tuple[int, int, int]:
        block, counts = capture.block, capture.block.counts
        await self._silence(block.stream)
        block.stream.finish()
        await capture.task
        self._sensors.update(block)
        self._sensors.end()
        logger.info(
            "capture block %d: %d dumps sent, %d heaps received, %d lost",
            block.number, counts.output_dumps, counts.account.received, counts.account.lost,
        )  # fmt: skip
        self._capture = None
        await self._discard()
        self._finishing = None
        self._set_state(IngestState.IDLE)
        return counts.output_dumps, counts.account.received, counts.account.lost

    async def _silence(self, stream: HeapStream) -> None:
        """Wait until the input has been silent for long enough, or for as long as it may take."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_time
        packets, since = stream.packets, loop.time()
        while not self._hurry.is_set():
            if loop.time() >= min(deadline, since + self._settings.idle_time):
                return
            await asyncio.sleep(_POLL_INTERVAL)
            if stream.packets != packets:
                packets, since = stream.packets, loop.time()

    async def _discard(self) -> None:
        """Between captures: count what comes and throw it away."""
        await self._switch(active=False)

    async def _switch(self, *, active: bool) -> HeapStream:
        if self._stream is not None:
            # Only when it has ended are its figures final.
            await self._receiver.stop()
            self._sensors.add_idle(self._stream.classes()[HeapClass.IDLE])
        self._stream = await self._receiver.switch(active)
        return self._stream

    async def _agree(self, cbid: str, proposal: float) -> float:
        """Publish ``first_timestamp`` of the block; where another ingest was first, return its own."""
        view = self._telstate.view(self._telstate.join(cbid, self._settings.stream))
        try:
            await view.set("first_timestamp", proposal)
        except ImmutableKeyError:
            agreed = await ts.get(view, "first_timestamp")
            if not isinstance(agreed, float):
                raise TelstateError(
                    f"first_timestamp of capture block {cbid} is {agreed!r:.40}, not a time"
                ) from None
            return agreed
        except (OSError, RedisError) as exc:
            raise TelstateError(f"telescope state does not take first_timestamp: {exc}") from exc
        return proposal

    async def _update_sensors(self) -> None:
        while True:
            await asyncio.sleep(_UPDATE_INTERVAL)
            if self._capture is not None:
                self._sensors.update(self._capture.block)

    def _require(self, state: IngestState, refusal: str) -> None:
        if self._state is not state:
            raise aiokatcp.FailReply(f"{refusal}: ingest is {self._state.value}")

    def _set_state(self, state: IngestState) -> None:
        logger.debug("%s -> %s", self._state.value, state.value)
        self._state = state


async def _run(block: CaptureBlock) -> None:
    """Run a block; of a group of exceptions the first speaks for the rest."""
    try:
        await block.run()
    except* Exception as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
