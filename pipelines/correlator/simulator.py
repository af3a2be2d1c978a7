"""The capture: dumps are computed ahead in a thread, and sent when they are due.

One task produces and one sends, with `N_BUFFERS` dumps of memory between them; that bounds memory and how far
ahead of its time a dump is computed. What the array points at is fixed when a dump begins to be computed.

::

    IDLE ──capture_init──► CAPTURING ──capture_done──► STOPPING ──all sent──► IDLE
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import katpoint
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import telstate as ts
from pipelines.correlator.clock import SimulationClock
from pipelines.correlator.errors import CorrelatorError
from pipelines.correlator.faults import Fate
from pipelines.correlator.sender import DumpBuffer, HeapSender, Sent
from pipelines.correlator.source import DumpSource

logger = logging.getLogger(__name__)

N_BUFFERS: Final = 2
DESCRIPTOR_INTERVAL: Final = 5.0
"""Seconds of wall time between descriptors."""

EDGE: Final = 0.001
"""Part of a dump by which samples of sensors keep away from the edges of dumps."""


class CaptureState(enum.Enum):
    """What the simulator is doing."""

    IDLE = "idle"
    CAPTURING = "capturing"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Progress:
    """How far transmission is, since the program was started."""

    dumps: int = 0
    heaps: int = 0
    bytes: int = 0
    fates: Mapping[Fate, int] = field(default_factory=dict)
    behind: float = 0.0
    """Wall seconds by which the last dump was late."""
    rate: float = 0.0
    """Bits per wall second, from the last dump to the one before."""
    finished: bool = False
    """A recording has been sent to its end."""


@dataclass
class _Capture:
    """One capture block under way."""

    cbid: str
    first_dump: int
    before: Progress
    stop: asyncio.Event
    task: asyncio.Task[None] | None = None


class Simulator:
    """Streams a source's dumps.

    Parameters
    ----------
    source
        Where dumps come from.
    sender
        Where they go.
    telstate
        Root view of telescope state.
    clock_ratio
        Wall seconds per second of the observation; 0: as fast as the sender allows.
    target
        Where the array is pointed at first.
    on_progress
        Told of every dump.
    wall
        The monotonic clock, s.
    """

    def __init__(
        self,
        source: DumpSource,
        sender: HeapSender,
        telstate: TelescopeState,
        *,
        clock_ratio: float = 1.0,
        target: katpoint.Target | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.transmitting = False
        self.progress = Progress()
        self._sender = sender
        self._telstate = telstate
        self._on_progress = on_progress
        self._wall = wall
        self._target = target
        self._recorded_target: str | None = None
        self._clock = SimulationClock(source.stream.int_time, clock_ratio, wall())
        self._next_dump = 0
        self._state = CaptureState.IDLE
        self._capture: _Capture | None = None
        self._last_sent = wall()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dumps")
        self._buffers = [DumpBuffer(source.stream) for _ in range(N_BUFFERS)]

    @property
    def state(self) -> CaptureState:
        """What the simulator is doing."""
        return self._state

    @property
    def target(self) -> katpoint.Target | None:
        """Where the array is pointed; dumps that are under way may still have another target."""
        return self._target

    def _set_state(self, state: CaptureState) -> None:
        logger.info("%s -> %s", self._state.value, state.value)
        self._state = state

    async def warm_up(self) -> None:
        """Compute the first dump, so that everything is compiled and read when data is asked for."""
        target = self._target or katpoint.Target("zenith, azel, 0:00:00, 90:00:00")
        await self._fill(0, target, self._buffers[0])

    def point(self, description: str) -> katpoint.Target:
        """Point the array; holds from the next dump that is not yet being computed.

        Raises
        ------
        CorrelatorError
            It is no katpoint description of one target, or the source is a recording.
        """
        if self.source.target(0) is not None:
            raise CorrelatorError("a recording is replayed: its phase centre cannot be changed")
        self._target = parse_target(description)
        return self._target

    async def capture_init(self, cbid: str) -> asyncio.Task[None]:
        """Begin a capture block.

        Returns
        -------
        Task
            It streams; it ends after `capture_done`, or at the end of a recording, and its failure is the
            caller's to notice.

        Raises
        ------
        CorrelatorError
            A capture is under way, there is no target, or a recording is over.
        TelstateError
            The block cannot be described in telescope state.
        """
        if self._state is not CaptureState.IDLE:
            raise CorrelatorError(f"capture block {self._block} is {self._state.value}")
        first = self._first_dump()
        self._set_state(CaptureState.CAPTURING)
        self._capture = _Capture(cbid, first, self.progress, asyncio.Event())
        try:
            await self._describe_block(self._capture)
        except BaseException:
            self._end_capture()
            raise
        self.transmitting = True
        self._capture.task = asyncio.create_task(self._run(self._capture), name=f"capture {cbid}")
        return self._capture.task

    @property
    def _block(self) -> str:
        return self._capture.cbid if self._capture else "none"

    def _first_dump(self) -> int:
        """Dump that the next block begins with."""
        n_dumps = self.source.n_dumps
        if n_dumps is None:
            if self._target is None:
                raise CorrelatorError("the array has no target: send ?target first")
            return max(self._next_dump, self._clock.next_dump(self._wall()))
        if self._next_dump >= n_dumps:
            raise CorrelatorError(f"the recording is over: all of its {n_dumps} dumps were sent")
        return self._next_dump

    async def _describe_block(self, capture: _Capture) -> None:
        """Write what CAM writes at a real telescope."""
        names = ",".join(antenna.name for antenna in self.source.antennas)
        obs_params = {
            "observer": "correlator simulator",
            "description": f"Simulated observation {capture.cbid}",
            "experiment_id": capture.cbid,
            "ants": names,
        }
        await ts.publish(self._telstate.view(capture.cbid), "obs_params", obs_params)
        target = self._target_of(capture.first_dump)
        # katdal needs both to have a value when the first dump begins.
        before = self._start_of(capture.first_dump, -EDGE)
        await ts.add_sample(self._telstate, "cbf_target", target, before)
        await ts.add_sample(self._telstate, "obs_activity", "track", before)
        self._recorded_target = target

    def _target_of(self, dump: int) -> str:
        recorded = self.source.target(dump)
        return self._target.description if recorded is None and self._target else recorded or ""

    def _start_of(self, dump: int, offset: float = 0.0) -> float:
        """Unix time at which a dump begins, plus a part of a dump."""
        return self.source.stream.sync_time + (dump + offset) * self.source.stream.int_time

    async def capture_done(self) -> tuple[int, int]:
        """End the capture block at the end of the dump that is being sent.

        Returns
        -------
        Dumps and heaps sent in the block, all of them on the network.

        Raises
        ------
        CorrelatorError
            There is no capture block.
        """
        if self._state is not CaptureState.CAPTURING or not (self._capture and self._capture.task):
            raise CorrelatorError("there is no capture block to end")
        self._set_state(CaptureState.STOPPING)
        self._capture.stop.set()
        # Whoever asked may go away; the block ends all the same.
        drain = asyncio.create_task(self._drain(self._capture, self._capture.task))
        return await asyncio.shield(drain)

    async def _drain(self, capture: _Capture, task: asyncio.Task[None]) -> tuple[int, int]:
        await asyncio.wait({task})
        self._end_capture()
        if not task.cancelled() and task.exception() is not None:
            raise CorrelatorError(f"streaming failed: {_cause(task.exception())}")
        return (
            self.progress.dumps - capture.before.dumps,
            self.progress.heaps - capture.before.heaps,
        )

    def _end_capture(self) -> None:
        self.transmitting = False
        self._capture = None
        self._set_state(CaptureState.IDLE)

    async def close(self) -> None:
        """Stop at once and release the thread."""
        if self._capture is not None and self._capture.task is not None:
            self._capture.task.cancel()
            await asyncio.wait({self._capture.task})
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, capture: _Capture) -> None:
        free: asyncio.Queue[DumpBuffer] = asyncio.Queue()
        ready: asyncio.Queue[tuple[int, DumpBuffer] | None] = asyncio.Queue()
        for buffer in self._buffers:
            free.put_nowait(buffer)
        if self.source.n_dumps is not None and self._clock.ratio > 0:
            # A recording's time begins when somebody wants it.
            self._clock = self._clock.restarted(self._wall(), capture.first_dump)
        await self._sender.send_descriptors()
        self._last_sent = self._wall()
        async with asyncio.TaskGroup() as tasks:
            descriptors = tasks.create_task(self._describe_stream())
            tasks.create_task(self._produce(capture, free, ready))
            await self._consume(capture, free, ready)
            descriptors.cancel()

    async def _describe_stream(self) -> None:
        while True:
            await asyncio.sleep(DESCRIPTOR_INTERVAL)
            await self._sender.send_descriptors()

    async def _produce(
        self,
        capture: _Capture,
        free: asyncio.Queue[DumpBuffer],
        ready: asyncio.Queue[tuple[int, DumpBuffer] | None],
    ) -> None:
        """Compute dumps until the block or the recording ends; then put None."""
        dump, end = capture.first_dump, self.source.n_dumps
        while end is None or dump < end:
            buffer = await free.get()
            if capture.stop.is_set():
                break
            target = self._target_of(dump)
            if target != self._recorded_target:
                await self._record_target(dump, target)
            await self._fill(dump, katpoint.Target(target), buffer)
            ready.put_nowait((dump, buffer))
            dump += 1
        ready.put_nowait(None)

    async def _record_target(self, dump: int, target: str) -> None:
        """Record that the array was turned: its first dump on the new target counts as slewing.

        Without a slew katdal would not begin a new scan, and give the dumps to one of the targets.
        """
        start = self._start_of(dump, EDGE)
        await ts.add_sample(self._telstate, "obs_activity", "slew", start)
        await ts.add_sample(self._telstate, "cbf_target", target, start)
        await ts.add_sample(self._telstate, "obs_activity", "track", self._start_of(dump + 1, EDGE))
        self._recorded_target = target

    async def _fill(self, dump: int, target: katpoint.Target, buffer: DumpBuffer) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self.source.fill, dump, target, buffer.counts)

    async def _consume(
        self,
        capture: _Capture,
        free: asyncio.Queue[DumpBuffer],
        ready: asyncio.Queue[tuple[int, DumpBuffer] | None],
    ) -> None:
        """Send dumps when they are due; once the block is to end, only hand their memory back."""
        while (item := await ready.get()) is not None:
            dump, buffer = item
            if await self._due(dump, capture.stop):
                await self._send(dump, buffer)
            free.put_nowait(buffer)
        self._count(await self._sender.send_late())
        if not capture.stop.is_set():
            self._report(finished=True)
            logger.info("the recording is over")

    async def _due(self, dump: int, stop: asyncio.Event) -> bool:
        """Wait until a dump is due; false when the block ends before."""
        wait = self._clock.due(dump) - self._wall()
        if wait > 0 and not stop.is_set():
            try:
                async with asyncio.timeout(wait):
                    await stop.wait()
            except TimeoutError:
                return True
        return not stop.is_set()

    async def _send(self, dump: int, buffer: DumpBuffer) -> None:
        """Send a dump, or let it pass while transmission is switched off."""
        begin = self._wall()
        behind = max(0.0, begin - self._clock.due(dump)) if self._clock.ratio > 0 else 0.0
        self._next_dump = dump + 1 if self.source.n_dumps is not None else dump + 2
        if not self.transmitting:
            return
        sent = await self._sender.send(buffer, dump)
        rate = sent.bytes * 8 / max(self._wall() - self._last_sent, 1e-9)
        self._count(sent, dumps=self.progress.dumps + 1, behind=behind, rate=rate)
        self._last_sent = self._wall()

    def _count(self, sent: Sent, **changes: Any) -> None:
        progress = self.progress
        self._report(
            heaps=progress.heaps + sent.heaps,
            bytes=progress.bytes + sent.bytes,
            fates=Counter(progress.fates) + Counter(sent.fates),
            **changes,
        )

    def _report(self, **changes: Any) -> None:
        self.progress = dataclasses.replace(self.progress, **changes)
        self._on_progress(self.progress)


def _cause(exc: BaseException | None) -> BaseException | None:
    """Return the first real exception of groups of them."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def parse_target(description: str) -> katpoint.Target:
    """Read a katpoint description of a target.

    Raises
    ------
    CorrelatorError
        It is none.
    """
    try:
        return katpoint.Target(description)
    except (ValueError, TypeError) as exc:
        raise CorrelatorError(f"{description!r:.100} is no katpoint target: {exc}") from exc
