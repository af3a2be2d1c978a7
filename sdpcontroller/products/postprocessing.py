"""What happens to the data of a capture block when it has ended: batch graphs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from scheduler.crash_points import CrashPoint
from scheduler.errors import SchedulerError
from scheduler.graph import LogicalGraph, PhysicalGraph, instantiate
from scheduler.threads import compute
from scheduler.views import BatchResult
from sdpcontroller.config import ProductConfig, Vis
from sdpcontroller.errors import CommandError, ControllerError, StoreError
from sdpcontroller.products.record import BATCHES, KeptBatch
from sdpcontroller.products.services import Services
from sdpcontroller.queues import Work
from sdpcontroller.store.records import Table
from sdpcontroller.store.redis_store import take_graph_number
from sdpcontroller.telstate import ProductTelstate
from sdpcontroller.workflows import imaging
from sdpcontroller.workflows.containers import in_containers

logger = logging.getLogger(__name__)

Ended = Callable[[str, str], Awaitable[None]]
"""Is told the capture block and, if something failed, the reason for people."""

_KEPT: Final = CrashPoint("postprocessing.kept", "the batch graph is kept, its block is not told")
_STARTED: Final = CrashPoint("postprocessing.started", "the batch graph is told to run")
_RAN: Final = CrashPoint("postprocessing.ran", "the batch graph has ended, its block has not")
_CONCLUDED: Final = CrashPoint("postprocessing.concluded", "the block is dead, its graph is kept")


class Postprocessing:
    """The batch graphs of one product's capture blocks; they may outlive the product's own graph."""

    def __init__(self, product: str, services: Services, ended: Ended) -> None:
        self._product = product
        self._services = services
        self._ended = ended
        self._batches: Table[KeptBatch] = Table(services.store, BATCHES)
        self._running: dict[asyncio.Task[None], str] = {}
        self._ending = False

    @property
    def running(self) -> bool:
        """Whether any block is still being processed."""
        return bool(self._running)

    @property
    def graph_ids(self) -> frozenset[str]:
        """Ids of the batch graphs that run."""
        return frozenset(self._running.values())

    async def wait(self) -> None:
        """Wait until all that runs now has ended."""
        if self._running:
            await asyncio.wait(self._running)

    async def end(self) -> None:
        """Take all batch graphs down; their blocks end as failed."""
        self._ending = True
        for graph_id in self.graph_ids:
            await self._services.scheduler.stop(graph_id)
        await self.wait()

    async def plan(self, cbid: str, config: ProductConfig, telstate: tuple[str, int]) -> str:
        """Make the batch graph of a block, from what was observed, and keep it.

        Returns
        -------
        str
            Id of the graph; empty when there is nothing to do.

        Raises
        ------
        ControllerError
            If that cannot be found out, or kept.
        """
        observed = await _observed(cbid, config, telstate)
        # of a spectral product there are thousands of nodes
        plan = await compute(imaging.build, config, self._product, cbid, observed, telstate)
        for line in plan.skipped:
            logger.info("%s %s: %s", self._product, cbid, line)
        if not plan.images:
            return ""
        number = await take_graph_number(self._services.store)
        graph = await compute(_graph, plan.graph, number, config, self._services.image)
        queue = self._services.queues.to(Work.POSTPROCESSING, self._product)
        batch = KeptBatch(self._product, cbid, graph, queue)
        event = f"postprocessing of {cbid} waits in queue {queue}"
        await self._batches.put(graph.graph_id, batch, event=event)
        _KEPT.reached()
        return graph.graph_id

    def start(self, cbid: str, graph_id: str) -> None:
        """Begin, or go on with, the batch graph of a block; without one, the block ends at once."""
        task = self._services.background.create_task(self._run(cbid, graph_id))
        self._running[task] = graph_id
        task.add_done_callback(self._running.pop)

    async def _run(self, cbid: str, graph_id: str) -> None:
        if not graph_id:
            await self._conclude(cbid, "")
            return
        try:
            await self._run_graph(cbid, graph_id)
        except (SchedulerError, ControllerError) as exc:
            # Taken from us, it runs on: another controller will tell how it ended.
            if self._services.leaving.is_set():
                return
            await self._conclude(cbid, str(exc))
        await self._forget(graph_id)

    async def _run_graph(self, cbid: str, graph_id: str) -> None:
        row = await self._batches.get(graph_id)
        if row is None:
            raise CommandError(f"batch graph {graph_id} is not in the database")
        if self._ending:
            raise CommandError("the controller ends")

        async def concluded(result: BatchResult) -> None:
            await self._conclude(cbid, failure(result))

        queue = self._services.queues.still(row.value.queue, Work.POSTPROCESSING, self._product)
        _STARTED.reached()
        await self._services.scheduler.run_batch(
            row.value.graph,
            timeout=self._services.timeouts.batch,
            queue=queue.name,
            concluded=concluded,
            retries=self._services.may_repair,
        )

    async def _conclude(self, cbid: str, reason: str) -> None:
        if reason:
            reason = f"postprocessing of {cbid}: {reason}"
            logger.error("%s: %s", self._product, reason)
        _RAN.reached()
        await self._ended(cbid, reason)
        _CONCLUDED.reached()

    async def _forget(self, graph_id: str) -> None:
        try:
            await self._batches.delete(graph_id, event="ended")
        except StoreError as exc:  # a successor finds that no block needs it
            logger.warning("%s: %s", self._product, exc)


def _graph(
    logical: LogicalGraph, number: int, config: ProductConfig, image: str | None
) -> PhysicalGraph:
    return instantiate(in_containers(logical, config.config, image), f"{logical.name}-{number}")


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


def failure(result: BatchResult) -> str:
    """Say which nodes of a batch graph failed, and why; empty if none did."""
    lines = []
    for name in result.failed:
        node = result.nodes[name]
        tried = f"after {node.attempts} attempts: {node.death or node.left}"
        line = f"{name} {f'was not run: {node.skipped}' if node.skipped else tried}"
        lines.append(" | ".join((line, *node.log_tail[-5:])))
    return "; ".join(lines)
