"""One subarray product: its graph, its state, its capture blocks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Self

from scheduler.crash_points import CrashPoint
from scheduler.errors import SchedulerError
from scheduler.views import TaskView
from sdpcontroller import config as configuration
from sdpcontroller.config import ProductConfig
from sdpcontroller.config.problems import suggestion
from sdpcontroller.control import ProductRecord, ProductState, TaskRecord
from sdpcontroller.errors import CommandError, ControllerError, FencedError, StoreError
from sdpcontroller.products import machine
from sdpcontroller.products.capturing import Capturing
from sdpcontroller.products.commanding import Commanding
from sdpcontroller.products.ending import Ending
from sdpcontroller.products.keeper import Keeper
from sdpcontroller.products.launching import Launching
from sdpcontroller.products.losses import Losses
from sdpcontroller.products.record import KeptProduct
from sdpcontroller.products.running import RunningGraph
from sdpcontroller.products.services import Services
from sdpcontroller.workflows.plan import SimulatedStream

logger = logging.getLogger(__name__)

_IDLE: Final = CrashPoint("configure.idle", "the product is idle, no reply was given")
_CONNECTED: Final = CrashPoint("recovery.connected", "a product's tasks are linked again")
_RECOVERED: Final = CrashPoint("recovery.done", "a product has gone on, in the state it had")
_DECONFIGURING: Final = CrashPoint("deconfigure.recorded", "deconfiguring, nothing is taken down")


class Product:
    """A subarray product, from the moment it is recorded until it is dead.

    One command at a time; another is refused while one runs. Every change is written to the store before
    anybody is told of it.
    """

    def __init__(
        self,
        kept: KeptProduct,
        services: Services,
        *,
        version: int = 0,
        config: ProductConfig | None = None,
    ) -> None:
        self.config = configuration.parse(kept.config) if config is None else config
        if not self.config.config.mirror_sensors:
            services = dataclasses.replace(services, sensor_changed=None)
        self._services = services
        self._keeper = Keeper(
            services.store,
            kept,
            services.product_changed,
            version=version,
            soon=services.telling.add,
        )
        self._launching = Launching(self._keeper, self.config, services)
        self._capturing = Capturing(self._keeper, self.config, services)
        self._losses = Losses(self._keeper, services, self._close_capture)
        commanding = Commanding(self._keeper)
        self._command = commanding.command
        self._ending = Ending(
            self._keeper,
            services,
            commanding,
            self._capturing.postprocessing,
            self._settle_configure,
        )
        self._configuring: asyncio.Task[Any] | None = None
        self._configured: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._graph: RunningGraph | None = None
        if kept.graph_id and kept.roles is not None:
            self._graph = RunningGraph(kept.name, kept.graph_id, kept.roles, services)

    @classmethod
    def new(
        cls,
        name: str,
        document: str,
        services: Services,
        *,
        given: str = "",
        config: ProductConfig | None = None,
    ) -> Self:
        """Make a product that is to be configured.

        Parameters
        ----------
        document, given
            The configuration, and what was given before an override was merged over it, if one was.
        config
            What `document` says, where that was read already.

        Raises
        ------
        ConfigError
            If the document is none.
        """
        kept = KeptProduct(name=name, state=ProductState.CONFIGURING, config=document, given=given)
        return cls(kept, services, config=config)

    @property
    def name(self) -> str:
        """The product's name."""
        return self._keeper.name

    @property
    def record(self) -> ProductRecord:
        """What everybody may know of the product."""
        return self._keeper.shown

    @property
    def given(self) -> ProductConfig:
        """The configuration as it was asked for: without the override that was merged over it."""
        return configuration.parse(self.given_text) if self._keeper.kept.given else self.config

    @property
    def given_text(self) -> str:
        """The document as it was given."""
        return self._keeper.kept.given or self._keeper.kept.config

    @property
    def simulated(self) -> tuple[SimulatedStream, ...]:
        """Streams that its simulated correlators send; none before it has a graph."""
        return self._graph.roles.simulated if self._graph is not None else ()

    @property
    def graph_ids(self) -> frozenset[str]:
        """Ids of the product's physical graphs: its own, and those of its postprocessing."""
        batches = self._keeper.kept.batches
        return batches if self._graph is None else batches | {self._graph.graph_id}

    @property
    def _state(self) -> ProductState:
        return self._keeper.kept.state

    # Bringing up

    async def configure(self) -> None:
        """Place and launch the graph; return when every task is ready.

        Raises
        ------
        ControllerError
            If that is not to be; everything was undone and the product is dead.
        """
        async with self._command("configure"):
            await self._bring_up(self._launching.launch(self._chosen))

    async def configured(self) -> None:
        """Wait for a configure that goes on.

        Raises
        ------
        CommandError
            If it failed.
        """
        await asyncio.shield(self._configured)

    async def _bring_up(self, launch: Awaitable[RunningGraph]) -> None:
        started = time.monotonic()
        self._configuring = asyncio.current_task()
        try:
            graph = await launch
        except (Exception, asyncio.CancelledError) as exc:
            self._configuring = None  # what undoes it is not to be cancelled
            if self._services.leaving.is_set() or isinstance(exc, FencedError):
                raise  # another controller goes on with it
            reason = str(exc) or "deconfigured before it was ready"
            await asyncio.shield(self._keeper.insist(lambda: self._unwind(reason)))
            if isinstance(exc, SchedulerError | asyncio.CancelledError):
                raise CommandError(reason) from exc
            raise
        self._configuring = None
        elapsed = time.monotonic() - started
        # All run: that the store is away for a while is no reason to take them down, or to leave it at that.
        event = f"all tasks ready after {elapsed:.1f} s"
        await self._keeper.insist(lambda: self._set_state(ProductState.IDLE, event))
        if self._state is not ProductState.IDLE:
            raise CommandError(f"product {self.name} is up, but that could not be recorded")
        _IDLE.reached()
        self._settle_configure()
        self._losses.take_stock(graph)  # one may have died while that was written

    def _settle_configure(self, failure: str = "") -> None:
        """Tell those who wait in :meth:`configured`."""
        if self._configured.done():
            return
        if failure:
            self._configured.set_exception(CommandError(failure))
            self._configured.exception()  # perhaps nobody waits
        else:
            self._configured.set_result(None)

    def _chosen(self, graph: RunningGraph) -> None:
        self._graph = graph

    async def _unwind(self, reason: str) -> None:
        """Undo a configure that failed."""
        logger.warning("%s: configure failed: %s", self.name, reason)
        await self._ending.take_down(self._graph)
        await self._ending.die(f"configure failed: {reason}", reason)

    # Taking down

    async def deconfigure(self, *, force: bool) -> None:
        """Take everything down in order; return when no task of the graph is left.

        With `force`, a configure that goes on is cancelled, any other command is waited for, and a capture is
        ended. Where a deconfigure goes on already, it waits for nothing any more, and all that is left is
        killed at once. Postprocessing that still runs goes on, and the product lives until it has ended.

        Raises
        ------
        CommandError
            If the product captures and `force` is not set.
        """
        if self._state is ProductState.CAPTURING and not force:
            raise CommandError(
                f"product {self.name} is capturing {self._keeper.kept.current_block}: "
                "end the capture first, or force"
            )
        if force:
            self._ending.hurry()
        if force and self._configuring is not None:
            self._configuring.cancel()
        if force and self._state is ProductState.DECONFIGURING and self._graph is not None:
            await self._graph.take_down(force=True)
        async with self._command("deconfigure", wait=force):
            if self._keeper.dead:
                return
            if self._state is not ProductState.DECONFIGURING:  # an earlier try got this far
                machine.check_product(self.name, self._state, ProductState.DECONFIGURING)
                if self._keeper.kept.current_block is not None:
                    await self._capturing.end(self._up())
                await self._set_state(ProductState.DECONFIGURING, "deconfigure")
            _DECONFIGURING.reached()
            await self._ending.linger(self.config.config.shutdown_delay)
            try:
                await self._ending.finish(self._graph)
            except StoreError as exc:
                if not isinstance(exc, FencedError):
                    self._ending.finish_later(self._graph)
                raise

    async def shut_down(self) -> None:
        """Take everything down, whatever goes on, and end the postprocessing."""
        try:
            if self._state is not ProductState.POSTPROCESSING:
                await self.deconfigure(force=True)
        finally:
            await self._ending.end_postprocessing()

    async def leave(self) -> None:
        """Close the links to the tasks, which run on: another controller goes on with them."""
        self._keeper.close()
        if self._graph is not None:
            await self._graph.disconnect_all()

    # Captures

    async def capture_init(self, override: str | None) -> str:
        """Begin a capture block; return its id when everything is ready for data.

        Raises
        ------
        CommandError
            If the product is not idle, or a task refused; nothing captures then.
        """
        async with self._command("capture-init"):
            machine.check_product(self.name, self._state, ProductState.CAPTURING)
            return await self._capturing.begin(self._up(), override)

    async def capture_done(self) -> str:
        """End the capture block; return its id when its data is drained.

        Raises
        ------
        CommandError
            If the product does not capture, or a task did not drain: the block is closed all the same.
        """
        async with self._command("capture-done"):
            if self._state is not ProductState.CAPTURING:
                raise CommandError(f"product {self.name} is {self._state.value}, not capturing")
            cbid, failures = await self._capturing.end(self._up())
            if failures:
                raise CommandError(f"capture block {cbid} was closed, but: {'; '.join(failures)}")
            return cbid

    async def set_transmission(self, stream: str, *, on: bool) -> None:
        """Start or stop the data of one simulated correlator stream.

        Raises
        ------
        CommandError
            If the stream is not one of this product's, or its simulator refuses.
        """
        task = next((s.task for s in self.simulated if s.name == stream), None)
        connection = self._up().connections.get(task or "")
        if connection is None:
            raise CommandError(f"{task or stream} of product {self.name} is not up")
        request = "capture-start" if on else "capture-stop"
        await connection.request(request, stream, timeout=self._services.timeouts.capture_init)

    async def restart_task(self, task: str) -> tuple[str, ...]:
        """Start a task again, with what the graph demands; return the names of all that were.

        Raises
        ------
        CommandError
            If the graph does not allow it, or it did not come up.
        """
        async with self._command(f"the restart of {task}"):
            graph = self._up()
            if self._state not in (ProductState.IDLE, ProductState.CAPTURING):
                raise CommandError(f"product {self.name} is {self._state.value}")
            self._task(task)
            try:
                plan = await self._services.scheduler.restart_task(
                    graph.graph_id, task, timeout=self._services.timeouts.fit
                )
            except SchedulerError as exc:
                self._losses.take_stock(graph)  # what was ended for it is away
                raise CommandError(str(exc)) from exc
            await asyncio.gather(*(self._losses.rejoin(graph, name) for name in plan.names))
            await self._losses.restarted(plan.names)
            return tuple(plan.names)

    async def task_log(self, task: str) -> tuple[str, ...]:
        """Return the last lines that a task has written; none where they cannot be had.

        Raises
        ------
        CommandError
            If the product has no such task.
        """
        return await self._services.scheduler.task_log(self._task(task).task_id)

    def _task(self, name: str) -> TaskRecord:
        """Return what is known of a task, or raise ``CommandError`` with those there are."""
        tasks = self.record.tasks
        if name not in tasks:
            known = ", ".join(sorted(tasks)) or "none"
            raise CommandError(
                f"product {self.name} has no task {name[:80]!r}{suggestion(name, tasks)} (tasks: {known})"
            )
        return tasks[name]

    def _up(self) -> RunningGraph:
        """Return the graph, or raise ``CommandError`` when there is none yet."""
        if self._graph is None:
            raise CommandError(f"product {self.name} is {self._state.value}: it has no tasks yet")
        return self._graph

    # After a restart of the controller

    async def recover(self) -> None:
        """Go on where an earlier controller was interrupted, whatever that was; never raises."""
        self._show_tasks()
        async with self._command("recovery"):
            self._capturing.resume_postprocessing()
            try:
                await self._recover()
            except FencedError:
                return
            except (ControllerError, SchedulerError) as exc:
                logger.error("%s: recovery: %s", self.name, exc)

    async def _recover(self) -> None:
        match self._state:
            case ProductState.CONFIGURING:
                await self._bring_up(self._launching.resume(self._graph))
            case ProductState.DECONFIGURING:
                self._ending.finish_later(self._graph)
            case ProductState.POSTPROCESSING:
                self._ending.die_later()
            case _ if self._graph is None:
                await self._give_up()
            case _:
                graph = self._up()
                await self._launching.adopt(graph)
                self._settle_configure()
                await graph.connect()
                _CONNECTED.reached()
                self._losses.take_stock(graph)
                await self._capturing.resume(graph)
                _RECOVERED.reached()

    async def _give_up(self) -> None:
        """Take down what an earlier version of the controller has recorded too little of to go on with."""
        reason = "an earlier version of the controller recorded too little of it to go on with"
        logger.error("%s: %s", self.name, reason)
        await self._services.scheduler.stop(self._keeper.kept.graph_id)
        await self._services.multicast.release(self.name)
        await self._ending.die(reason, reason)

    def note(self, event: str) -> None:
        """Record something that happened to the product; return at once."""
        self._services.background.create_task(self._note(event))

    async def _note(self, event: str) -> None:
        with contextlib.suppress(FencedError):
            await self._keeper.insist(lambda: self._keeper.change(event))

    def tasks_put_back(self, names: Sequence[str]) -> None:
        """Take tasks in again of which the records were lost; return at once."""
        self._services.background.create_task(self._take_back(tuple(names)))

    async def _take_back(self, names: Sequence[str]) -> None:
        event = f"{', '.join(names)} run on: their records were lost and put back"
        try:
            await self._keeper.insist(lambda: self._keeper.change(event))
        except FencedError:
            return
        if self._graph is not None and self._state in (ProductState.IDLE, ProductState.CAPTURING):
            for name in names:
                try:
                    await self._losses.rejoin(self._graph, name)
                except CommandError as exc:
                    logger.warning("%s: %s", self.name, exc)

    def ends_unasked(self, why: str) -> None:
        """Go on with a deconfigure of which the record was lost; return at once."""
        self._services.background.create_task(self._end_as_begun(why))

    async def _end_as_begun(self, why: str) -> None:
        try:
            await self._keeper.insist(lambda: self._begin_to_end(f"deconfigure goes on: {why}"))
        except FencedError:
            return
        except ControllerError as exc:
            logger.error("%s: deconfigure: %s", self.name, exc)
        else:
            await self._ending.go_on(self._graph)

    async def _begin_to_end(self, event: str) -> None:
        async with self._command("deconfigure", wait=True):
            if self._keeper.dead or self._state is ProductState.DECONFIGURING:
                return
            await self._up().disconnect_all()  # nobody is left to drain
            if self._keeper.kept.current_block is not None:
                await self._capturing.end(self._up())
            await self._set_state(ProductState.DECONFIGURING, event)

    # What happens to the tasks

    def task_changed(self, view: TaskView) -> None:
        """Take note of a task of the product's graph."""
        self._keeper.show_tasks([view])
        if self._graph is not None and view.graph_id == self._graph.graph_id:
            self._losses.judge(self._graph, view)

    def _show_tasks(self) -> None:
        """Show what the scheduler knows of all tasks."""
        tasks = self._services.scheduler.tasks
        self._keeper.show_tasks(
            view for graph_id in self.graph_ids for view in tasks(graph_id).values()
        )

    async def _close_capture(self) -> None:
        """Close what is left of the capture of a product in error."""
        if self._keeper.kept.current_block is None:
            return
        async with self._command("closing the capture", wait=True):
            kept = self._keeper.kept
            if kept.state is ProductState.ERROR and kept.current_block is not None:
                try:
                    await self._capturing.end(self._up())
                except ControllerError as exc:  # a deconfigure tries again
                    logger.error("%s: the capture could not be closed: %s", self.name, exc)

    async def _set_state(self, state: ProductState, event: str) -> None:
        await self._keeper.change(event, lambda kept: kept.in_state(state))
