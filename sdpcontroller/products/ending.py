"""The end of a product: its tasks are taken down, its addresses given back, its record removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from scheduler.crash_points import CrashPoint
from scheduler.errors import SchedulerError
from sdpcontroller.control import ProductState
from sdpcontroller.errors import ControllerError, FencedError
from sdpcontroller.products.commanding import Commanding
from sdpcontroller.products.keeper import Keeper
from sdpcontroller.products.postprocessing import Postprocessing
from sdpcontroller.products.running import RunningGraph
from sdpcontroller.products.services import Services

logger = logging.getLogger(__name__)

_DOWN: Final = CrashPoint("deconfigure.down", "all tasks are dead, addresses are taken still")
_RELEASED: Final = CrashPoint("deconfigure.released", "addresses are released, the record exists")
_DEAD: Final = CrashPoint("deconfigure.dead", "the record is gone, no reply was given")


class Ending:
    """Ends one product.

    Parameters
    ----------
    dead
        Is called with the reason when the product is dead.
    """

    def __init__(
        self,
        keeper: Keeper,
        services: Services,
        commanding: Commanding,
        postprocessing: Postprocessing,
        dead: Callable[[str], None],
    ) -> None:
        self._keeper = keeper
        self._services = services
        self._commanding = commanding
        self._postprocessing = postprocessing
        self._dead = dead
        self._hurried = asyncio.Event()
        self._dying: asyncio.Task[None] | None = None

    async def linger(self, seconds: float) -> None:
        """Wait before the tasks are taken down, until :meth:`hurry` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    def hurry(self) -> None:
        """Wait for nothing any more before tasks are taken down."""
        self._hurried.set()

    async def finish(self, graph: RunningGraph | None) -> None:
        """Take down what is left, and let the product die as soon as postprocessing has ended.

        Raises
        ------
        ControllerError
            If tasks cannot be killed, or what happened cannot be recorded.
        """
        await self.take_down(graph)
        if self._postprocessing.running:
            event = "graph gone, postprocessing goes on"
            await self._keeper.change(
                event, lambda kept: kept.in_state(ProductState.POSTPROCESSING)
            )
            self.die_later()
        else:
            await self.die("deconfigured")

    def finish_later(self, graph: RunningGraph | None) -> None:
        """Go on with a deconfigure in the background, and again for a while when the store is away."""
        self._services.background.create_task(self.go_on(graph))

    async def go_on(self, graph: RunningGraph | None) -> None:
        """Go on with a deconfigure that is recorded; never raises."""
        try:
            await self._keeper.insist(lambda: self._finish_what_was_begun(graph))
        except FencedError:
            return
        except (ControllerError, SchedulerError) as exc:
            logger.error("%s: deconfigure: %s", self._keeper.name, exc)

    async def _finish_what_was_begun(self, graph: RunningGraph | None) -> None:
        async with self._commanding.command("deconfigure", wait=True):
            if self._keeper.kept.state is ProductState.DECONFIGURING:  # nobody was faster
                await self.finish(graph)

    async def take_down(self, graph: RunningGraph | None) -> None:
        """Take the tasks down in order, and give the product's addresses back; raises as :meth:`finish`."""
        if graph is not None:
            await graph.take_down()
        _DOWN.reached()
        await self._services.multicast.release(self._keeper.name)
        _RELEASED.reached()

    def die_later(self) -> None:
        """Let the product die when its postprocessing has ended."""
        self._dying = self._services.background.create_task(self._die_after_postprocessing())

    async def _die_after_postprocessing(self) -> None:
        await self._postprocessing.wait()
        if not self._services.leaving.is_set():
            await self._keeper.insist(lambda: self.die("postprocessing has ended"))

    async def die(self, event: str, reason: str = "") -> None:
        """Remove the record.

        Parameters
        ----------
        event
            For the record's events.
        reason
            Why it had to be, if nobody had asked for it.

        Raises
        ------
        StoreError
            If that cannot be recorded.
        """
        await self._keeper.delete(event, reason)
        self._dead(reason or event)
        _DEAD.reached()

    async def end_postprocessing(self) -> None:
        """End what is made of capture blocks; return when a product that waited for it is dead."""
        await self._postprocessing.end()
        if self._dying is not None:
            await asyncio.wait({self._dying})
