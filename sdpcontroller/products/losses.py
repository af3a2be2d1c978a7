"""What becomes of a product when its tasks die by themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from scheduler.errors import SchedulerError
from scheduler.task import TaskState
from scheduler.views import TaskView
from sdpcontroller.control import CaptureBlockState, ProductState
from sdpcontroller.errors import CommandError
from sdpcontroller.logs import about
from sdpcontroller.products import captures
from sdpcontroller.products.keeper import Keeper
from sdpcontroller.products.record import KeptProduct
from sdpcontroller.products.restarts import POLICIES, RestartPolicy, Row
from sdpcontroller.products.running import RunningGraph
from sdpcontroller.products.services import Services

logger = logging.getLogger(__name__)

_LIVE: Final = frozenset({ProductState.IDLE, ProductState.CAPTURING})


class Losses:
    """Judges the deaths of one product's tasks.

    Parameters
    ----------
    close_capture
        Closes what is left of the capture of a product in error.
    """

    def __init__(
        self, keeper: Keeper, services: Services, close_capture: Callable[[], Awaitable[None]]
    ) -> None:
        self._keeper = keeper
        self._services = services
        self._close_capture = close_capture
        self._culprit = ""
        """Id of the task whose death has put the product in error."""
        self._counted: set[str] = set()
        """Ids of the tasks whose death was counted: each is told several times."""
        self._rows: dict[str, Row] = {}
        self._restarting: set[str] = set()

    def judge(self, graph: RunningGraph, view: TaskView) -> None:
        """See whether a task of the product's graph ended that should not have."""
        if view.state is TaskState.DEAD and not view.expected_death:
            self._note(graph, view)

    def take_stock(self, graph: RunningGraph) -> None:
        """Look at all tasks of a graph that is up and that nobody takes down: none should be dead.

        Also one that was told to end: for a restart, which its controller or its place did not live to see.
        """
        for view in graph.tasks().values():
            if view.state is TaskState.DEAD:
                self._note(graph, view)

    def _note(self, graph: RunningGraph, view: TaskView) -> None:
        if view.task_id not in self._counted:
            self._counted.add(view.task_id)
            outcome = "" if view.death is None else view.death.outcome.value
            self._services.figures.died(view.kind, outcome)
        with about(product=self._keeper.name, task=view.name):
            self._services.background.create_task(self._lost(graph, view))

    async def _lost(self, graph: RunningGraph, view: TaskView) -> None:
        """A task died by itself: nobody waits for it any more; without a critical one there is an error."""
        graph.disconnect(view.name)
        if not view.critical:
            await self._restart(graph, view)
            return
        if not self._culprit and self._keeper.kept.state in _LIVE:
            self._culprit = view.task_id
        if self._culprit == view.task_id:
            await self._keeper.insist(lambda: self._fail(view))
            await self._close_capture()

    async def _fail(self, view: TaskView) -> None:
        """Put the product in error; or, when it is, tell more: the last lines of a log come later."""
        reason = _obituary(view)

        def failed(kept: KeptProduct) -> KeptProduct:
            if kept.state in _LIVE:
                return kept.in_state(ProductState.ERROR, reason=reason)
            return dataclasses.replace(kept, reason=reason)

        if self._keeper.kept.reason != reason:
            await self._keeper.change(reason, failed)

    # Tasks that are not critical

    async def _restart(self, graph: RunningGraph, view: TaskView) -> None:
        """Start a task again, after a pause, unless that was tried too often."""
        name, left = view.name, view.task_id
        if name in self._restarting:  # one death is told several times: its log comes later
            return
        self._restarting.add(name)
        try:
            while self._keeper.kept.state in _LIVE:
                pause = self._next_pause(view)
                if pause is None:
                    self._services.figures.restarted(view.kind, "given_up")
                    await self._tell(view, "it died too often to be started again")
                    return
                lost = view.death is not None and view.death.with_its_agent
                await asyncio.sleep(pause)
                await self._services.may_repair(
                    lost=lost, refused=lambda why: self._tell_soon(view, why)
                )
                if self._keeper.kept.state not in _LIVE or _alive(graph, name, after=left):
                    return  # an operator was faster
                restarted = await self._try_restart(graph, name)
                self._services.figures.restarted(view.kind, "ok" if restarted else "failed")
                if restarted and _alive(graph, name):  # it may have died since
                    return
                now = graph.tasks().get(name)
                left = left if now is None else now.task_id
        finally:
            self._restarting.discard(name)

    def _next_pause(self, view: TaskView) -> float | None:
        policy = POLICIES.get(view.kind, RestartPolicy())
        now = asyncio.get_running_loop().time()
        self._rows[view.name], pause = self._rows.get(view.name, Row()).after_death(policy, now)
        return pause

    async def _try_restart(self, graph: RunningGraph, name: str) -> bool:
        """Start a task again, with what has to come along; whether it worked."""
        try:
            plan = await self._services.scheduler.restart_task(
                graph.graph_id, name, timeout=self._services.timeouts.fit
            )
            await asyncio.gather(*(self.rejoin(graph, task) for task in plan.names))
        except (SchedulerError, CommandError) as exc:
            logger.warning("%s: %s was not restarted: %s", self._keeper.name, name, exc)
            return False
        logger.warning("%s: %s was restarted", self._keeper.name, name)
        await self._keeper.insist(lambda: self._forgive(plan.names))
        return True

    async def rejoin(self, graph: RunningGraph, task: str) -> None:
        """Connect to a task that was started again, and tell it of the capture that goes on.

        Raises
        ------
        CommandError
            If it does not take part.
        """
        if task not in graph.roles.katcp_tasks:
            return
        graph.connect_task(task)
        kept = self._keeper.kept
        cbid = kept.current_block
        takes_part = any(task == capture.name for capture in graph.roles.captures)
        if cbid and takes_part and kept.block(cbid).state is CaptureBlockState.CAPTURING:
            timeouts = self._services.timeouts
            late = {task: graph.connections[task]}
            failures = await captures.catch_up(
                late, cbid, timeout=timeouts.capture_init, ask=timeouts.ask
            )
            if failures:
                raise CommandError(failures[task])

    async def restarted(self, names: Collection[str]) -> None:
        """Take note that an operator has started tasks again: what was said of their deaths is over.

        Raises
        ------
        StoreError
            If it cannot be recorded.
        """
        for name in names:
            self._rows.pop(name, None)
        await self._forgive(names)

    async def _forgive(self, names: Collection[str]) -> None:
        """Take back what was said of the deaths of tasks that live again."""
        if any(self._keeper.kept.reason.startswith(f"{name} on ") for name in names):
            await self._keeper.change(
                f"{', '.join(names)} restarted", lambda kept: dataclasses.replace(kept, reason="")
            )

    def _tell_soon(self, view: TaskView, why: str) -> None:
        self._services.background.create_task(self._tell(view, why))

    async def _tell(self, view: TaskView, why: str) -> None:
        """Say why a task stays dead."""
        reason = f"{_obituary(view)}; {why}"
        logger.error("%s: %s", self._keeper.name, reason)

        async def tell() -> None:
            await self._keeper.change(reason, lambda kept: dataclasses.replace(kept, reason=reason))

        await self._keeper.insist(tell)


def _alive(graph: RunningGraph, name: str, *, after: str = "") -> bool:
    """Whether a task lives; `after` is the id of an attempt that does not count."""
    view = graph.tasks().get(name)
    return view is not None and view.state is not TaskState.DEAD and view.task_id != after


def _obituary(view: TaskView) -> str:
    words = f"{view.name} on {view.host} died: {view.death}"
    if view.log_tail:
        words += "; its last words: " + " | ".join(view.log_tail[-5:])
    return words
