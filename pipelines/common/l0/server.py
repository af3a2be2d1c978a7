"""What the programs that receive L0 have in common: capture blocks over KATCP, and the counts of heaps."""

# No postponed annotations here: aiokatcp reads those of request handlers to decode arguments.

import abc
import argparse
import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import aiokatcp
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import PipelineError
from pipelines.common.l0.layout import Content, Dump, L0Layout
from pipelines.common.l0.place import REJECTIONS
from pipelines.common.l0.receiver import L0Receiver
from pipelines.common.program import ProgramServer, check_capture_block_id
from pipelines.common.stream_info import VisStream

logger = logging.getLogger(__name__)

L0_QUALITY: Final = ("input-heaps-total", "input-heaps-lost", "input-heaps-rejected")
"""Sensors that every receiver of L0 reports."""
DEFAULT_DRAIN: Final = 10.0
"""Seconds after capture-done in which the end heaps must come."""
_STOP_DRAIN: Final = 0.0


class CaptureState(enum.Enum):
    """idle → preparing → capturing → draining → idle; preparing → idle when it fails."""

    IDLE = "idle"
    PREPARING = "preparing"
    CAPTURING = "capturing"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class L0Input:
    """The L0 stream that a program receives, and from where."""

    stream: VisStream
    endpoints: Sequence[Endpoint]
    """One for each ingest, in the order of their channels."""
    interface: str
    drain: float = DEFAULT_DRAIN
    content: Content = Content.VISIBILITIES

    @property
    def layout(self) -> L0Layout:
        """Shape of the heaps.

        Raises
        ------
        StreamError
            The channels are not equal parts from the endpoints.
        """
        return L0Layout(
            self.stream.n_chans,
            self.stream.n_bls,
            len(self.endpoints),
            self.stream.int_time,
            self.content,
        )


class L0Server(ProgramServer):
    """A program that does something with each capture block of an L0 stream.

    Subclasses implement :meth:`capture`, and :meth:`prepare` where a block needs preparation that can fail,
    and :meth:`conclude` where something is handed on at its end.
    """

    def __init__(
        self, options: argparse.Namespace, telstate: TelescopeState, source: L0Input
    ) -> None:
        super().__init__(options)
        self.telstate = telstate
        self.source = source
        self.layout = source.layout
        self.stream_name = source.stream.name
        self._state = CaptureState.IDLE
        self._receiver: L0Receiver | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._total = self._lost = self._rejected = 0
        self._block_sensor = self.add_sensor(
            str, "capture-block-id", "Capture block; empty if none"
        )
        self._total_sensor = self.add_sensor(int, "input-heaps-total", "L0 heaps received")
        self._lost_sensor = self.add_sensor(
            int,
            "input-heaps-lost",
            "L0 heaps sent and not received; final when a block is over",
            warn_above=0,
        )
        self._rejected_sensor = self.add_sensor(
            int, "input-heaps-rejected", "Heaps that were malformed or too late", warn_above=0
        )

    async def prepare(self, cbid: str) -> None:
        """Get ready for a block. Raises a :class:`PipelineError` or OSError to refuse it."""

    @abc.abstractmethod
    async def capture(self, cbid: str, dumps: AsyncIterator[Dump]) -> None:
        """Work through a block's dumps as they come; every dump must be released."""

    async def conclude(self, cbid: str) -> None:
        """Hand on what comes of a block; after its data, and not before capture-done asks for it.

        Programs upstream may be at work until then, even when no more data comes.
        """

    @property
    def starving(self) -> bool:
        """Whether dumps must be released at once, or the network's data will be lost."""
        return self._receiver is not None and self._receiver.starving

    @property
    def announced(self) -> int:
        """The most dumps that a sender's end heap has announced for the block; 0 before the first has come."""
        counts = self._receiver.counts if self._receiver is not None else ()
        return max((count.announced or 0 for count in counts), default=0)

    def _set_state(self, state: CaptureState) -> None:
        logger.debug("capture %s -> %s", self._state.value, state.value)
        self._state = state

    async def request_capture_init(self, ctx: aiokatcp.RequestContext, cbid: str) -> None:
        """Start receiving a capture block: capture-init CBID."""
        check_capture_block_id(cbid)
        if self._state is not CaptureState.IDLE:
            raise aiokatcp.FailReply(
                f"capture block {self._block_sensor.value} is {self._state.value}: capture-done first"
            )
        self._set_state(CaptureState.PREPARING)
        try:
            receiver = await self._open(cbid)
        except BaseException as exc:
            self._set_state(CaptureState.IDLE)
            if isinstance(exc, PipelineError | OSError):
                raise aiokatcp.FailReply(f"cannot start capture block {cbid}: {exc}") from exc
            raise
        self._receiver = receiver
        self._asked.clear()
        self._block_sensor.value = cbid
        self.set_device_status(aiokatcp.DeviceStatus.OK, f"capture block {cbid} starts")
        self._set_state(CaptureState.CAPTURING)
        self._task = asyncio.create_task(self._run(cbid, receiver), name=f"capture {cbid}")

    async def request_capture_done(self, ctx: aiokatcp.RequestContext) -> None:
        """Wait for the capture block's data and finish it."""
        if self._task is None:
            raise aiokatcp.FailReply("no capture block is on")
        cbid = self._block_sensor.value
        try:
            await self._finish(self.source.drain)
        except Exception as exc:
            raise aiokatcp.FailReply(f"capture block {cbid}: {exc}") from exc

    async def on_stop(self) -> None:
        """Finish the block with what has come."""
        if self._task is not None:
            logger.warning("stopped in capture block %s: finishing it", self._block_sensor.value)
            try:
                await self._finish(_STOP_DRAIN)
            except Exception as exc:
                logger.error("capture block not finished: %s", exc)

    async def _open(self, cbid: str) -> L0Receiver:
        await self.prepare(cbid)
        receiver = await asyncio.to_thread(L0Receiver, self.layout, int(cbid))
        try:
            for endpoint in self.source.endpoints:
                receiver.listen(endpoint, self.source.interface)
        except BaseException:
            await receiver.__aexit__(None, None, None)
            raise
        return receiver

    async def _finish(self, drain: float) -> None:
        """Wait for the end of the block, at most `drain` seconds for its data; raises what it failed with."""
        task, receiver = self._task, self._receiver
        if task is None or receiver is None:
            return
        receiver.finish_within(drain)
        self._asked.set()
        self._set_state(CaptureState.DRAINING)
        try:
            # The block goes on when the client that asked has gone.
            await asyncio.shield(task)
        finally:
            if task.done():
                self._task = self._receiver = None
                self._block_sensor.value = ""
                self._set_state(CaptureState.IDLE)

    async def _run(self, cbid: str, receiver: L0Receiver) -> None:
        """The life of a block from the first dump to its conclusion."""
        try:
            async with receiver:
                await self.capture(cbid, self._counted(receiver))
            self._report(cbid, receiver)
            await self._asked.wait()
            await self.conclude(cbid)
        except Exception as exc:
            logger.error("capture block %s failed: %s", cbid, exc, exc_info=_is_bug(exc))
            self.set_device_status(aiokatcp.DeviceStatus.FAIL, f"capture block {cbid}: {exc}")
            raise
        finally:
            self._count(receiver)
            self._total, self._lost = self._total_sensor.value, self._lost_sensor.value
            self._rejected = self._rejected_sensor.value

    def _report(self, cbid: str, receiver: L0Receiver) -> None:
        self._count(receiver)
        lost = sum(count.lost for count in receiver.counts)
        logger.info("capture block %s: %s", cbid, _summary(receiver))
        if lost and self.device_status is aiokatcp.DeviceStatus.OK:
            self.set_device_status(aiokatcp.DeviceStatus.DEGRADED, f"{lost} heaps lost")

    async def _counted(self, receiver: L0Receiver) -> AsyncIterator[Dump]:
        async for dump in receiver:
            self._count(receiver)
            yield dump

    def _count(self, receiver: L0Receiver) -> None:
        """Bring the sensors up to date; they count on from block to block."""
        counts, heaps = receiver.counts, receiver.heaps
        rejected = sum(heaps[c] for c in REJECTIONS) + receiver.bad_timestamps
        self._total_sensor.value = self._total + sum(count.received for count in counts)
        self._lost_sensor.value = self._lost + sum(count.lost for count in counts)
        self._rejected_sensor.value = self._rejected + rejected


def _is_bug(exc: Exception) -> bool:
    """Whether the traceback is worth a place in the log."""
    return not isinstance(exc, PipelineError | OSError)


def _summary(receiver: L0Receiver) -> str:
    """How a block went, for the log."""
    counts = receiver.counts
    silent = [str(i) for i, count in enumerate(counts) if count.announced is None]
    ends = f"; no end heap from ingest {', '.join(silent)}" if silent else ""
    received, lost = sum(c.received for c in counts), sum(c.lost for c in counts)
    return f"{received} heaps received, {lost} lost{ends}"
