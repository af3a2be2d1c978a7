"""What happens to the data of a capture block when it has ended: batch graphs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from scheduler.errors import SchedulerError
from scheduler.graph import instantiate
from scheduler.views import BatchResult
from sdpcontroller.config import ProductConfig, Vis
from sdpcontroller.errors import CommandError, ControllerError
from sdpcontroller.products.services import Services
from sdpcontroller.telstate import ProductTelstate
from sdpcontroller.workflows import imaging
from sdpcontroller.workflows.imaging import ImagingPlan

logger = logging.getLogger(__name__)

Ended = Callable[[str, str], Awaitable[None]]
"""Is told the capture block and, if something failed, the reason for people."""


class Postprocessing:
    """The batch graphs of one product's capture blocks; they may outlive the product's own graph."""

    def __init__(self, product: str, services: Services, ended: Ended) -> None:
        self._product = product
        self._services = services
        self._ended = ended
        self._running: dict[asyncio.Task[None], str] = {}
        self._ending = False
        self.graph_ids: set[str] = set()
        """Ids of the batch graphs that run."""

    @property
    def running(self) -> bool:
        """Whether any block is still being processed."""
        return bool(self._running)

    async def wait(self) -> None:
        """Wait until all that runs now has ended."""
        if self._running:
            await asyncio.wait(self._running)

    async def end(self) -> None:
        """Take all batch graphs down; their blocks end as failed."""
        self._ending = True
        for graph_id in tuple(self.graph_ids):
            await self._services.scheduler.stop(graph_id)
        await self.wait()

    async def start(self, cbid: str, config: ProductConfig, telstate: tuple[str, int]) -> None:
        """Begin the postprocessing of a block; what was observed is read before this returns."""
        try:
            observed = await _observed(cbid, config, telstate)
            plan = imaging.build(config, self._product, cbid, observed)
        except ControllerError as exc:
            logger.error("%s %s: no postprocessing: %s", self._product, cbid, exc)
            await self._ended(cbid, f"no postprocessing of {cbid}: {exc}")
            return
        for line in plan.skipped:
            logger.info("%s %s: %s", self._product, cbid, line)
        task = self._services.background.create_task(self._run(cbid, plan))
        self._running[task] = cbid
        task.add_done_callback(self._running.pop)

    async def _run(self, cbid: str, plan: ImagingPlan) -> None:
        reason = ""
        if plan.images:
            try:
                reason = _failure(await self._run_graph(plan))
            except (SchedulerError, ControllerError) as exc:
                reason = str(exc)
        if reason:
            reason = f"postprocessing of {cbid}: {reason}"
            logger.error("%s: %s", self._product, reason)
        await self._ended(cbid, reason)

    async def _run_graph(self, plan: ImagingPlan) -> BatchResult:
        number = await self._services.store.take_numbers("graph", at_least=1)
        if self._ending:
            raise CommandError("the controller ends")
        graph = instantiate(plan.graph, f"{plan.graph.name}-{number}")
        self.graph_ids.add(graph.graph_id)
        try:
            return await self._services.scheduler.run_batch(
                graph, timeout=self._services.timeouts.batch
            )
        finally:
            self.graph_ids.discard(graph.graph_id)


async def _observed(
    cbid: str, config: ProductConfig, endpoint: tuple[str, int]
) -> dict[str, list[imaging.ObservedTarget]]:
    """Return the targets of each visibility stream that has a data set."""
    async with ProductTelstate.connect(*endpoint) as telstate:
        return {
            vis: await telstate.observed(cbid, vis)
            for vis, stream in config.outputs_of(Vis).items()
            if stream.archive
        }


def _failure(result: BatchResult) -> str:
    """Say which nodes of a batch graph failed, and why; empty if none did."""
    lines = []
    for name in result.failed:
        node = result.nodes[name]
        line = f"{name} after {node.attempts} attempts: {node.death}"
        lines.append(" | ".join((line, *node.log_tail[-5:])))
    return "; ".join(lines)
