"""One subarray product: its graph, its state, its capture blocks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from scheduler.errors import LaunchError, SchedulerError
from scheduler.graph import LogicalGraph, PhysicalGraph, instantiate
from scheduler.task import TaskState
from scheduler.views import TaskView
from sdpcontroller.config import ProductConfig
from sdpcontroller.config.document import load
from sdpcontroller.control import CaptureBlockState, ProductRecord, ProductState
from sdpcontroller.errors import CommandError, ControllerError, StoreError
from sdpcontroller.products import captures, machine
from sdpcontroller.products.connections import TaskConnection
from sdpcontroller.products.postprocessing import Postprocessing
from sdpcontroller.products.services import Services
from sdpcontroller.products.tasks import task_record
from sdpcontroller.telstate import ProductTelstate
from sdpcontroller.workflows import realtime
from sdpcontroller.workflows.plan import Workflow

logger = logging.getLogger(__name__)

TABLE: Final = "product"
"""Table of the products' records in the store."""

_LIVE: Final = frozenset({ProductState.IDLE, ProductState.CAPTURING})

_STORE_PAUSE: Final = 1.0
"""Seconds between two tries to write what nobody waits for."""
_STORE_TRIES: Final = 300


class Product:
    """A subarray product, from the moment it is recorded until it is dead.

    One command at a time; another is refused while one runs. Every change is written to the store before
    anybody is told of it.
    """

    def __init__(self, name: str, config: ProductConfig, document: str, services: Services) -> None:
        self.config = config
        self._services = services
        self._record = ProductRecord(name=name, state=ProductState.CONFIGURING, config=document)
        self._version = 0
        self._unanswered: Mapping[str, Any] | None = None
        """A document that may or may not have been written: the store did not say."""
        self._block_config = config
        self._commanding = asyncio.Lock()
        self._busy = ""
        self._configuring: asyncio.Task[Any] | None = None
        self._recording = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._workflow: Workflow | None = None
        self._graph: PhysicalGraph | None = None
        self._connections: dict[str, TaskConnection] = {}
        self._postprocessing = Postprocessing(name, services, self._block_processed)
        self._culprit = ""
        """Id of the task whose death has put the product in error."""

    @property
    def name(self) -> str:
        """The product's name."""
        return self._record.name

    @property
    def record(self) -> ProductRecord:
        """What everybody may know of the product."""
        return self._record

    @property
    def workflow(self) -> Workflow | None:
        """Its graph and what belongs to it; None until it was made."""
        return self._workflow

    @property
    def graph_ids(self) -> frozenset[str]:
        """Ids of the product's physical graphs: its own, and those of its postprocessing."""
        own = () if self._graph is None else (self._graph.graph_id,)
        return frozenset((*own, *self._postprocessing.graph_ids))

    # Bringing up and taking down

    async def configure(self) -> None:
        """Place and launch the graph; return when every task is ready.

        Raises
        ------
        ControllerError
            If that is not to be; everything was undone and the product is dead.
        """
        async with self._command("configure"):
            started = time.monotonic()
            self._configuring = asyncio.current_task()
            try:
                await self._launch()
            except (Exception, asyncio.CancelledError) as exc:
                self._configuring = None  # what undoes it is not to be cancelled
                reason = str(exc) or "deconfigured before it was ready"
                await asyncio.shield(self._unwind(reason))
                if isinstance(exc, SchedulerError | asyncio.CancelledError):
                    raise CommandError(reason) from exc
                raise
            self._configuring = None
            elapsed = time.monotonic() - started
            await self._set_state(ProductState.IDLE, f"all tasks ready after {elapsed:.1f} s")
            for view in self._own_tasks().values():  # one may have died while that was written
                self._judge(view)

    async def _launch(self) -> None:
        needs = realtime.multicast_needs(self.config)
        groups = {
            stream: await self._services.multicast.take(self.name, count)
            for stream, count in needs.items()
        }
        self._workflow = workflow = realtime.build(self.config, self.name, groups)
        self._graph = await self._instantiate(workflow.graph)
        await self._change(f"configure, graph {self._graph.graph_id}")
        await self._services.scheduler.launch(
            self._graph,
            timeout=self._services.timeouts.fit,
            late_values=self._before_go_ahead,
        )
        await self._connect()

    async def _instantiate(self, logical: LogicalGraph) -> PhysicalGraph:
        number = await self._services.store.take_numbers("graph", at_least=1)
        return instantiate(logical, f"{logical.name}-{number}")

    async def _before_go_ahead(self, task: str) -> Mapping[str, str]:
        """See that telescope state holds what a program reads when it starts, before it is let through.

        Every program needs the telescope state to be ready, so it is by now.
        """
        async with self._publishing:
            if self._record.telstate is None:
                try:
                    await self._publish_telstate()
                except ControllerError as exc:
                    raise LaunchError(str(exc)) from exc
        return {}

    async def _publish_telstate(self) -> None:
        assert self._workflow is not None  # noqa: S101 - it is launched
        host, port = self._own_tasks()[self._workflow.telstate_task].ports["telstate"]
        async with ProductTelstate.connect(host, port) as telstate:
            await telstate.publish(self._workflow.telstate)
        await self._change(
            f"telescope state at {host}:{port}",
            lambda record: dataclasses.replace(record, telstate=(host, port)),
        )

    async def _connect(self) -> None:
        assert self._workflow is not None  # noqa: S101 - as above
        for task in self._workflow.katcp_tasks:
            host, port = self._record.tasks[task].ports["katcp"]
            self._connections[task] = TaskConnection(
                self.name, task, host, port, self._services.sensor_changed
            )

    async def deconfigure(self, *, force: bool) -> None:
        """Take everything down in order; return when no task of the graph is left.

        With `force`, a configure that goes on is cancelled, any other command is waited for, and a capture is
        ended. Postprocessing that still runs goes on, and the product lives until it has ended.

        Raises
        ------
        CommandError
            If the product captures and `force` is not set.
        """
        if self._record.state is ProductState.CAPTURING and not force:
            raise CommandError(
                f"product {self.name} is capturing {self._record.current_block}: "
                "end the capture first, or force"
            )
        if force and self._configuring is not None:
            self._configuring.cancel()
        async with self._command("deconfigure", wait=force):
            if self._record.state is ProductState.DEAD:
                return
            if self._record.state is not ProductState.DECONFIGURING:  # an earlier try got this far
                machine.check_product(self.name, self._record.state, ProductState.DECONFIGURING)
                if self._record.current_block is not None:
                    await self._end_capture()
                await self._set_state(ProductState.DECONFIGURING, "deconfigure")
            await asyncio.sleep(0 if force else self.config.config.shutdown_delay)
            await self._take_down()
            if self._postprocessing.running:
                await self._set_state(
                    ProductState.POSTPROCESSING, "graph gone, postprocessing goes on"
                )
                self._services.background.create_task(self._die_after_postprocessing())
            else:
                await self._die("deconfigured")

    async def shut_down(self) -> None:
        """Take everything down, whatever goes on, and end the postprocessing."""
        try:
            if self._record.state is not ProductState.POSTPROCESSING:
                await self.deconfigure(force=True)
        finally:
            await self._postprocessing.end()

    async def _unwind(self, reason: str) -> None:
        """Undo a configure that failed."""
        logger.warning("%s: configure failed: %s", self.name, reason)
        await self._take_down()
        await self._die(f"configure failed: {reason}", reason)

    async def _take_down(self) -> None:
        while self._connections:
            _, connection = self._connections.popitem()
            await connection.close()
        if self._graph is not None:
            try:
                await self._services.scheduler.stop(self._graph.graph_id)
            except SchedulerError as exc:
                raise CommandError(f"product {self.name} cannot be taken down: {exc}") from exc
        self._services.multicast.release(self.name)

    async def _die_after_postprocessing(self) -> None:
        await self._postprocessing.wait()
        await self._insist(lambda: self._die("postprocessing has ended"))

    async def _die(self, event: str, reason: str = "") -> None:
        async with self._recording:
            if self._version or self._unanswered:  # or the record, if there is one, is not ours
                await self._services.store.delete(TABLE, self.name, event=f"dead: {event}")
            self._record = dataclasses.replace(
                self._record, state=ProductState.DEAD, reason=reason or self._record.reason
            )
        logger.info("%s: dead: %s", self.name, event)
        self._services.product_changed(self._record)

    # Captures

    async def capture_init(self, override: str | None) -> str:
        """Begin a capture block; return its id when everything is ready for data.

        Raises
        ------
        CommandError
            If the product is not idle, or a task refused; nothing captures then.
        """
        async with self._command("capture-init"):
            machine.check_product(self.name, self._record.state, ProductState.CAPTURING)
            config = self.config if override is None else self.config.merged(load(override))
            cbid = str(
                await self._services.store.take_numbers("capture-block", at_least=int(time.time()))
            )
            await self._set_block(cbid, CaptureBlockState.INITIALISING, current_block=cbid)
            timeouts = self._services.timeouts
            try:
                await captures.begin(self._stages(), self._connections, cbid, timeouts.capture_init)
                # A task that died meanwhile has put the product in error: then this raises.
                await self._change(
                    f"capturing {cbid}",
                    lambda record: _with_block(
                        _in_state(record, ProductState.CAPTURING), cbid, CaptureBlockState.CAPTURING
                    ),
                )
            except ControllerError:
                await captures.end(self._stages(), self._connections, timeouts.capture_done)
                await self._set_block(cbid, CaptureBlockState.DEAD, current_block=None)
                raise
            self._block_config = config
            return cbid

    async def capture_done(self) -> str:
        """End the capture block; return its id when its data is drained.

        Raises
        ------
        CommandError
            If the product does not capture, or a task did not drain: the block is closed all the same.
        """
        async with self._command("capture-done"):
            if self._record.state is not ProductState.CAPTURING:
                raise CommandError(
                    f"product {self.name} is {self._record.state.value}, not capturing"
                )
            cbid, failures = await self._end_capture()
            if failures:
                raise CommandError(f"capture block {cbid} was closed, but: {'; '.join(failures)}")
            return cbid

    async def _end_capture(self) -> tuple[str, list[str]]:
        cbid = self._record.current_block
        assert cbid is not None  # noqa: S101 - the product captures
        # An earlier try may have got that far.
        if self._record.capture_blocks[cbid] is not CaptureBlockState.BURNDOWN:
            await self._set_block(cbid, CaptureBlockState.BURNDOWN)
        failures = await captures.end(
            self._stages(), self._connections, self._services.timeouts.capture_done
        )

        def captured(record: ProductRecord) -> ProductRecord:
            if record.state is ProductState.CAPTURING:
                record = _in_state(record, ProductState.IDLE)
            return _with_block(record, cbid, CaptureBlockState.POSTPROCESSING, current_block=None)

        await self._change(f"captured {cbid}", captured)
        assert self._record.telstate is not None  # noqa: S101 - programs that capture need it
        await self._postprocessing.start(cbid, self._block_config, self._record.telstate)
        return cbid, failures

    async def set_transmission(self, stream: str, *, on: bool) -> None:
        """Start or stop the data of one simulated correlator stream.

        Raises
        ------
        CommandError
            If the stream is not one of this product's, or its simulator refuses.
        """
        assert self._workflow is not None  # noqa: S101 - only asked when the stream is known
        task = next(s.task for s in self._workflow.simulated if s.name == stream)
        connection = self._connections.get(task)
        if connection is None:
            raise CommandError(f"{task} of product {self.name} is not up")
        request = "capture-start" if on else "capture-stop"
        await connection.request(request, stream, timeout=self._services.timeouts.capture_init)

    def _stages(self) -> list[list[str]]:
        """Tasks that take part in captures and are connected, in the order of the data's flow."""
        assert self._workflow is not None  # noqa: S101 - the product is up
        stages = self._workflow.capture_order()
        return [[task for task in stage if task in self._connections] for stage in stages]

    async def _block_processed(self, cbid: str, reason: str) -> None:
        changes = {"reason": reason} if reason else {}
        await self._insist(lambda: self._set_block(cbid, CaptureBlockState.DEAD, **changes))

    # What happens to the tasks

    def task_changed(self, view: TaskView) -> None:
        """Take note of a task of the product's graph."""
        own = self._graph is not None and view.graph_id == self._graph.graph_id
        tasks = {**self._record.tasks, view.name: task_record(view)}
        if view.state is TaskState.DEAD and not own:
            del tasks[view.name]  # postprocessing judges its own tasks, and each block has new ones
        self._record = dataclasses.replace(self._record, tasks=tasks)
        self._services.product_changed(self._record)
        if own:
            self._judge(view)

    def _own_tasks(self) -> Mapping[str, TaskView]:
        assert self._graph is not None  # noqa: S101 - only asked when it is launched
        return self._services.scheduler.tasks(self._graph.graph_id)

    def _judge(self, view: TaskView) -> None:
        """See whether a task of the product's graph ended that should not have."""
        if view.state is TaskState.DEAD and not view.expected_death:
            self._services.background.create_task(self._lost(view))

    async def _lost(self, view: TaskView) -> None:
        """A task died by itself: nobody waits for it any more, and without a critical one there is an error."""
        connection = self._connections.pop(view.name, None)
        if connection is not None:
            await connection.close()
        if not self._culprit and view.critical and self._record.state in _LIVE:
            self._culprit = view.task_id
        if self._culprit == view.task_id:
            await self._insist(lambda: self._fail(view))
            await self._close_capture()

    async def _fail(self, view: TaskView) -> None:
        """Put the product in error; or, when it is, tell more: the last lines of a log come later."""
        reason = f"{view.name} on {view.host} died: {view.death}"
        if view.log_tail:
            reason += "; its last words: " + " | ".join(view.log_tail[-5:])

        def failed(record: ProductRecord) -> ProductRecord:
            if record.state in _LIVE:
                record = _in_state(record, ProductState.ERROR)
            return dataclasses.replace(record, reason=reason)

        if self._record.reason != reason:
            await self._change(reason, failed)

    async def _close_capture(self) -> None:
        """Close what is left of the capture of a product in error."""
        if self._record.current_block is None:
            return
        async with self._command("closing the capture", wait=True):
            if self._record.state is ProductState.ERROR and self._record.current_block is not None:
                try:
                    await self._end_capture()
                except ControllerError as exc:  # a deconfigure tries again
                    logger.error("%s: the capture could not be closed: %s", self.name, exc)

    # Records

    @asynccontextmanager
    async def _command(self, what: str, *, wait: bool = False) -> AsyncIterator[None]:
        """Hold off other commands; unless it may wait, a second one is refused at once, with the reason."""
        if self._commanding.locked() and not wait:
            raise CommandError(f"product {self.name} is busy with {self._busy}: try again later")
        async with self._commanding:
            self._busy = what
            yield

    async def _set_state(self, state: ProductState, event: str) -> None:
        await self._change(event, lambda record: _in_state(record, state))

    async def _set_block(self, cbid: str, state: CaptureBlockState, **changes: Any) -> None:
        await self._change(
            f"capture block {cbid} {state.value}",
            lambda record: _with_block(record, cbid, state, **changes),
        )

    async def _insist(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do what nobody waits for, and record it; try again for a while when the store cannot be written."""
        for _ in range(_STORE_TRIES):
            if self._record.state is ProductState.DEAD:
                return
            try:
                await act()
            except StoreError as exc:
                logger.error("%s: %s", self.name, exc)
                await asyncio.sleep(_STORE_PAUSE)
            else:
                return
        logger.critical("%s: its record is not what it should be", self.name)

    async def _change(
        self, event: str, update: Callable[[ProductRecord], ProductRecord] = lambda record: record
    ) -> None:
        """Change the record: in the store first, then for everybody to see."""
        async with self._recording:
            await self._find_out()
            document = self._document(update(self._record))
            self._unanswered = document
            self._version = await self._services.store.put(
                TABLE, self.name, document, event=event, expected_version=self._version
            )
            self._unanswered = None
            # Tasks may have changed while the store wrote: they are not part of the document.
            self._record = update(self._record)
        logger.info("%s: %s", self.name, event)
        self._services.product_changed(self._record)

    async def _find_out(self) -> None:
        """Look whether a document was written of which the store did not say."""
        if self._unanswered is not None:
            stored = await self._services.store.get(TABLE, self.name)
            if stored is not None and stored.value == self._unanswered:
                self._version = stored.version
            self._unanswered = None

    def _document(self, record: ProductRecord) -> Mapping[str, Any]:
        """The record without what the scheduler's journal keeps."""
        return {
            "name": record.name,
            "state": record.state.value,
            "config": json.loads(record.config),
            "capture_blocks": {key: block.value for key, block in record.capture_blocks.items()},
            "current_block": record.current_block,
            "reason": record.reason,
            "graph_id": None if self._graph is None else self._graph.graph_id,
        }


def _in_state(record: ProductRecord, state: ProductState) -> ProductRecord:
    """Return the record in another state, or raise ``CommandError``: the only place that sets the state."""
    machine.check_product(record.name, record.state, state)
    return dataclasses.replace(record, state=state)


def _with_block(
    record: ProductRecord, cbid: str, state: CaptureBlockState, **changes: Any
) -> ProductRecord:
    """Return the record with a capture block in a state, or raise ``CommandError``; a dead one is dropped."""
    blocks = dict(record.capture_blocks)
    if cbid in blocks:
        machine.check_capture_block(cbid, blocks[cbid], state)
    blocks[cbid] = state
    if state is CaptureBlockState.DEAD:
        del blocks[cbid]
    return dataclasses.replace(record, capture_blocks=blocks, **changes)
