"""The capture blocks of one product, from their begin to the end of their postprocessing."""

from __future__ import annotations

import dataclasses
import logging
import time
from contextlib import AbstractAsyncContextManager
from typing import Final

from scheduler.crash_points import CrashPoint
from scheduler.threads import compute
from sdpcontroller.config import ProductConfig
from sdpcontroller.config.document import load
from sdpcontroller.control import CaptureBlockState, ProductState
from sdpcontroller.errors import CommandError, ControllerError, FencedError, StoreError
from sdpcontroller.products import captures, evidence, machine
from sdpcontroller.products.keeper import Keeper
from sdpcontroller.products.postprocessing import Postprocessing
from sdpcontroller.products.record import Block, KeptProduct
from sdpcontroller.products.running import RunningGraph
from sdpcontroller.products.services import Services
from sdpcontroller.telstate import ProductTelstate
from sdpcontroller.workflows import admission

logger = logging.getLogger(__name__)

_NUMBERED: Final = CrashPoint("capture-init.numbered", "a block id is taken, nothing recorded")
_RECORDED: Final = CrashPoint("capture-init.recorded", "the block is recorded, no task told")
_READY: Final = CrashPoint("capture-init.ready", "all tasks have begun, the block is initialising")
_CAPTURING: Final = CrashPoint("capture-init.capturing", "the block captures, no reply was given")
_BURNDOWN: Final = CrashPoint("capture-done.recorded", "burndown is recorded, no task told")
_DRAINED: Final = CrashPoint(
    "capture-done.drained", "all tasks have drained, the block is in burndown"
)
_CAPTURED: Final = CrashPoint("capture-done.captured", "postprocessing is recorded, not begun")

_AHEAD: Final = 86400.0
"""Seconds that the number of a block may be ahead of the clock: many were begun in one, or it was set."""

Asked = dict[str, str]
"""Capture block by task, as tasks tell."""


class Capturing:
    """The capture blocks of one product.

    Its methods are not made for several callers at once: the product lets one command run at a time.
    """

    def __init__(self, keeper: Keeper, config: ProductConfig, services: Services) -> None:
        self._keeper = keeper
        self._config = config
        self._services = services
        self.postprocessing = Postprocessing(keeper.name, services, self._processed)

    async def begin(self, graph: RunningGraph, override: str | None) -> str:
        """Begin a block; return its id when everything is ready for data.

        Raises
        ------
        ControllerError
            If the product is not idle, or a task refused; nothing captures then.
        """
        name, kept = self._keeper.name, self._keeper.kept
        machine.check_product(name, kept.state, ProductState.CAPTURING)
        if override is not None:
            await compute(self._of_block, override)  # refused before anything has happened
        if kept.current_block is not None:  # of an earlier try, which could not be recorded
            await self._call_off(graph, kept.current_block)
        now = int(time.time())
        cbid = str(await self._services.store.take_numbers("capture-block", at_least=now))
        _NUMBERED.reached()
        block = Block(state=CaptureBlockState.INITIALISING, override=override)
        await self._set_block(cbid, block, current=cbid)
        _RECORDED.reached()
        timeout, expendable = self._services.timeouts.capture_init, graph.expendable
        try:
            if override is not None:
                async with self._telstate() as telstate:
                    await telstate.publish_override(cbid, override)
            told = await captures.begin(
                graph.stages(), graph.connections, cbid, timeout, expendable
            )
            _READY.reached()
            # A task that died meanwhile has put the product in error: then this raises.
            await self._captures(cbid)
        except FencedError:
            raise
        except ControllerError:
            await self._call_off(graph, cbid)
            raise
        self._catch_up(graph, told, cbid)
        _CAPTURING.reached()
        return cbid

    def _catch_up(self, graph: RunningGraph, told: captures.Told, cbid: str) -> None:
        """Tell those of a block that began without them, because they were started anew; wait for none."""
        tasks = {task for stage in graph.stages() for task in stage} & graph.expendable
        late = {t: graph.connections[t] for t in tasks if graph.connections[t] is not told.get(t)}
        self._services.background.create_task(self._tell_late(late, cbid))

    async def _tell_late(self, late: captures.Connections, cbid: str) -> None:
        timeouts = self._services.timeouts
        failures = await captures.catch_up(
            late, cbid, timeout=timeouts.capture_init, ask=timeouts.ask
        )
        for failure in failures.values():
            logger.warning("%s: %s goes on without it: %s", self._keeper.name, cbid, failure)

    async def _captures(self, cbid: str) -> None:
        def capturing(kept: KeptProduct) -> KeptProduct:
            block = dataclasses.replace(kept.block(cbid), state=CaptureBlockState.CAPTURING)
            return kept.in_state(ProductState.CAPTURING).with_block(cbid, block)

        await self._keeper.change(f"capturing {cbid}", capturing)

    async def _call_off(self, graph: RunningGraph, cbid: str) -> None:
        """End a block that has not begun everywhere."""
        timeouts = self._services.timeouts
        await captures.end(graph.stages(), graph.connections, timeouts.capture_done)
        dead = Block(state=CaptureBlockState.DEAD)
        await self._keeper.insist(lambda: self._set_block(cbid, dead, current=None))

    async def end(self, graph: RunningGraph) -> tuple[str, list[str]]:
        """End the current block: drain, and hand it on to postprocessing.

        Returns
        -------
        cbid, failures
            The block, and what went wrong, for people: it is closed all the same.

        Raises
        ------
        ControllerError
            If there is no current block, or what happened cannot be recorded.
        """
        cbid = self.current()
        block = self._keeper.kept.block(cbid)
        again = block.state is CaptureBlockState.BURNDOWN  # an earlier try got that far
        if not again:
            block = dataclasses.replace(block, state=CaptureBlockState.BURNDOWN)
            await self._set_block(cbid, block, current=cbid)
        _BURNDOWN.reached()
        timeouts = self._services.timeouts
        if again:
            failures = await captures.end_again(
                graph.stages(),
                graph.connections,
                cbid,
                timeout=timeouts.capture_done,
                ask=timeouts.ask,
                expendable=graph.expendable,
            )
        else:
            failures = await captures.end(
                graph.stages(), graph.connections, timeouts.capture_done, graph.expendable
            )
        _DRAINED.reached()
        await self._keeper.insist(lambda: self._hand_on(cbid, block))
        return cbid, failures

    def current(self) -> str:
        """Return the block that is begun, captures or drains; raise ``CommandError`` if none is."""
        cbid = self._keeper.kept.current_block
        if cbid is None:
            raise CommandError(f"product {self._keeper.name} has no capture block to end")
        return cbid

    async def _hand_on(self, cbid: str, block: Block) -> None:
        """Give a block that has drained to postprocessing."""
        try:
            batch = await self._plan(cbid, block)
            trouble = ""
        except StoreError:
            raise
        except ControllerError as exc:
            batch, trouble = "", f"no postprocessing of {cbid}: {exc}"
            logger.error("%s: %s", self._keeper.name, trouble)
        processing = dataclasses.replace(block, state=CaptureBlockState.POSTPROCESSING, batch=batch)

        def captured(kept: KeptProduct) -> KeptProduct:
            if kept.state is ProductState.CAPTURING:
                kept = kept.in_state(ProductState.IDLE)
            kept = _with_trouble(kept, trouble)
            return kept.with_block(cbid, processing, current_block=None)

        await self._keeper.change(f"captured {cbid}", captured)
        _CAPTURED.reached()
        self.postprocessing.start(cbid, batch)

    def _of_block(self, override: str) -> ProductConfig:
        """Return the configuration of a block; made of hundreds of tasks, it is nothing for the event loop."""
        return admission.of_block(self._config, load(override))

    def _telstate(self) -> AbstractAsyncContextManager[ProductTelstate]:
        return ProductTelstate.connect(*self._telstate_endpoint())

    def _telstate_endpoint(self) -> tuple[str, int]:
        telstate = self._keeper.kept.telstate
        if telstate is None:
            raise CommandError("the product has no telescope state")
        return telstate

    async def _plan(self, cbid: str, block: Block) -> str:
        telstate = self._telstate_endpoint()
        config = self._config
        if block.override is not None:
            config = config.merged(load(block.override))
        return await self.postprocessing.plan(cbid, config, telstate)

    async def _processed(self, cbid: str, reason: str) -> None:
        """Take note that a block's postprocessing has ended."""

        async def die() -> None:
            """Record the block as dead, with what its postprocessing came to."""
            await self._keeper.change(
                f"capture block {cbid} dead",
                lambda kept: _with_trouble(kept, reason).with_block(
                    cbid, Block(state=CaptureBlockState.DEAD)
                ),
            )

        await self._keeper.insist(die)

    async def _set_block(self, cbid: str, block: Block, *, current: str | None) -> None:
        await self._keeper.change(
            f"capture block {cbid} {block.state.value}",
            lambda kept: kept.with_block(cbid, block, current_block=current),
        )

    # After a restart of the controller

    def resume_postprocessing(self) -> None:
        """Go on with the postprocessing of every block that was at it."""
        for cbid, block in self._keeper.kept.blocks.items():
            if block.state is CaptureBlockState.POSTPROCESSING:
                self.postprocessing.start(cbid, block.batch)

    async def resume(self, graph: RunningGraph) -> None:
        """Bring the current block into the state that its tasks tell.

        One that had begun everywhere captures; one that had not is called off; one that drained, or whose
        product is in error, is drained to the end. So is one that is recorded as capturing and that its sources
        have left. One that is not recorded, and that all are at, is put back.

        Raises
        ------
        ControllerError
            If what is found cannot be recorded.
        """
        cbid = self._keeper.kept.current_block
        if cbid is None:
            await self._resume_unrecorded(graph)
            return
        match self._keeper.kept.block(cbid).state:
            case CaptureBlockState.INITIALISING:
                await self._resume_begin(graph, cbid)
            case CaptureBlockState.CAPTURING if self._keeper.kept.state is ProductState.CAPTURING:
                told = await self._ask(graph)
                if evidence.has_ended(told, cbid, graph.stages(), graph.expendable):
                    await self._resume_end(graph, cbid)
                    return
                others = sorted(task for task, block in told.items() if block != cbid)
                if others:
                    logger.error("%s: not at %s: %s", self._keeper.name, cbid, ", ".join(others))
                self._catch_up(graph, _at(cbid, told, graph), cbid)
            case _:
                await self.end(graph)

    async def _resume_end(self, graph: RunningGraph, cbid: str) -> None:
        """End a block that was told to end, of which the database has lost the record."""
        self._services.note_loss(f"{self._keeper.name}: capture block {cbid} ends, as asked before")
        block = dataclasses.replace(self._keeper.kept.block(cbid), state=CaptureBlockState.BURNDOWN)
        await self._set_block(cbid, block, current=cbid)
        await self.end(graph)

    async def _resume_unrecorded(self, graph: RunningGraph) -> None:
        """Look whether tasks are at a block that is not recorded: put it back, or call it off."""
        told = await self._ask(graph)
        blocks = evidence.blocks(told, time.time() + _AHEAD)
        found = [cbid for cbid in blocks if cbid not in self._keeper.kept.blocks]
        if not found:
            return
        # Numbers follow the clock, and those that were given in the lost moment are not given again.
        await self._services.store.take_numbers("capture-block", at_least=int(found[-1]) + 1)
        needed = {task for stage in graph.stages() for task in stage} - graph.expendable
        cbid = found[-1]
        idle = self._keeper.kept.state is ProductState.IDLE
        if not (idle and evidence.captures(told, cbid, needed)):
            for cbid in found:
                await self._call_off_unrecorded(graph, told, cbid)
            return

        override, words = await self._lost_override(cbid)

        def capturing(kept: KeptProduct) -> KeptProduct:
            block = Block(state=CaptureBlockState.CAPTURING, override=override)
            return kept.in_state(ProductState.CAPTURING).with_block(cbid, block, current_block=cbid)

        await self._keeper.change(f"capturing {cbid}, as its tasks tell: put back", capturing)
        self._catch_up(graph, _at(cbid, told, graph), cbid)
        self._services.note_loss(f"{self._keeper.name}: capture block {cbid} goes on, {words}")

    async def _lost_override(self, cbid: str) -> tuple[str | None, str]:
        """Find what a block that is not recorded changes of the configuration, and say so in words."""
        try:
            async with self._telstate() as telstate:
                override = await telstate.override(cbid)
            if override is None:
                return None, "as it had begun"
            await compute(self._of_block, override)
        except ControllerError as exc:
            return None, f"without its override, if it had one: {exc}"
        return override, "with the override that it had begun with"

    async def _call_off_unrecorded(self, graph: RunningGraph, told: Asked, cbid: str) -> None:
        await self._end_where(graph, told, cbid)
        await self._keeper.change(f"capture block {cbid}, which was not recorded, called off")
        self._services.note_loss(f"{self._keeper.name}: capture block {cbid} was called off")

    async def _end_where(self, graph: RunningGraph, told: Asked, cbid: str) -> None:
        """Tell those tasks to end that are, or may be, at a block."""
        begun = [
            [task for task in stage if told.get(task, cbid) == cbid] for stage in graph.stages()
        ]
        timeouts = self._services.timeouts
        await captures.end_again(
            begun, graph.connections, cbid, timeout=timeouts.capture_done, ask=timeouts.ask
        )

    async def _resume_begin(self, graph: RunningGraph, cbid: str) -> None:
        told = await self._ask(graph)
        tasks = {task for stage in graph.stages() for task in stage}
        if self._keeper.kept.state is ProductState.IDLE and all(
            told.get(task) == cbid for task in tasks - graph.expendable
        ):
            await self._captures(cbid)
            self._catch_up(graph, _at(cbid, told, graph), cbid)
            return
        await self._end_where(graph, told, cbid)
        await self._keeper.change(
            f"capture block {cbid} called off: the controller was restarted",
            lambda kept: kept.with_block(
                cbid, Block(state=CaptureBlockState.DEAD), current_block=None
            ),
        )

    async def _ask(self, graph: RunningGraph) -> Asked:
        tasks = [task for stage in graph.stages() for task in stage]
        return await captures.ask(tasks, graph.connections, self._services.timeouts.ask)


def _with_trouble(kept: KeptProduct, trouble: str) -> KeptProduct:
    """Tell what is wrong with a block; why a product is in error stays in front of it."""
    if not trouble:
        return kept
    broken = kept.state is ProductState.ERROR and kept.reason
    return dataclasses.replace(kept, reason=f"{kept.reason}; {trouble}" if broken else trouble)


def _at(cbid: str, told: Asked, graph: RunningGraph) -> captures.Told:
    """Return the links of the tasks that are at a block."""
    return {task: link for task, link in graph.connections.items() if told.get(task) == cbid}
