"""From a product's configuration to its graph, running."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from scheduler.crash_points import CrashPoint
from scheduler.errors import LaunchError
from scheduler.graph import PhysicalGraph, instantiate
from scheduler.journal import GraphPhase
from scheduler.threads import compute
from sdpcontroller.config import ProductConfig
from sdpcontroller.errors import CommandError, ControllerError
from sdpcontroller.products.keeper import Keeper
from sdpcontroller.products.running import RunningGraph
from sdpcontroller.products.services import Services
from sdpcontroller.queues import Work
from sdpcontroller.store.redis_store import take_graph_number
from sdpcontroller.telstate import ProductTelstate
from sdpcontroller.workflows import admission, realtime
from sdpcontroller.workflows.containers import in_containers
from sdpcontroller.workflows.plan import Roles, Workflow

logger = logging.getLogger(__name__)

_RECORDED: Final = CrashPoint("configure.recorded", "the product is recorded, it has no graph")
_GRAPH: Final = CrashPoint("configure.graph-recorded", "its graph is chosen, not launched")
_TELSTATE: Final = CrashPoint("configure.telstate", "telescope state is written, not recorded")
_READY: Final = CrashPoint("configure.ready", "all tasks are ready, the product is configuring")

Chosen = Callable[[RunningGraph], None]
"""Is told of the graph once it is recorded, before anything of it is launched."""


class Launching:
    """Brings the graph of one product up."""

    def __init__(self, keeper: Keeper, config: ProductConfig, services: Services) -> None:
        self._keeper = keeper
        self._config = config
        self._services = services
        self._publishing = asyncio.Lock()

    async def launch(self, chosen: Chosen) -> RunningGraph:
        """Record the product, make its graph, and launch it; return when every task is ready.

        Raises
        ------
        ControllerError, SchedulerError
            If that is not to be. What was begun must be taken down.
        """
        needs = realtime.multicast_needs(self._config)
        await self._keeper.change("configure")
        _RECORDED.reached()
        groups = {
            stream: await self._services.multicast.take(self._keeper.name, count)
            for stream, count in needs.items()
        }
        number = await take_graph_number(self._services.store)
        workflow, physical = await compute(self._build, groups, number)
        for note in admission.without_effect(self._config, workflow):
            logger.warning("product %s: %s", self._keeper.name, note)
        graph = await self._choose(physical, workflow.roles, groups)
        chosen(graph)
        _GRAPH.reached()
        await self._services.scheduler.launch(
            physical,
            timeout=self._services.timeouts.fit,
            queue=self._keeper.kept.queue,
            late_values=self._late_values(graph, workflow.telstate),
        )
        _READY.reached()
        await graph.connect()
        return graph

    def _build(self, groups: Mapping[str, str], number: int) -> tuple[Workflow, PhysicalGraph]:
        """Make the graph; of hundreds of tasks that is nothing for the event loop."""
        workflow = realtime.build(self._config, self._keeper.name, groups)
        logical = in_containers(workflow.graph, self._config.config, self._services.image)
        return workflow, instantiate(logical, f"{workflow.graph.name}-{number}")

    async def _choose(
        self, physical: PhysicalGraph, roles: Roles, groups: Mapping[str, str]
    ) -> RunningGraph:
        """Record which graph is going to be launched, and where it waits for its place."""
        graph_id = physical.graph_id
        queue = self._services.queues.to(Work.PRODUCTS, self._keeper.name)
        await self._keeper.change(
            f"graph {graph_id} waits in queue {queue}",
            lambda kept: dataclasses.replace(
                kept, graph_id=graph_id, roles=roles, multicast=groups, queue=queue
            ),
        )
        return RunningGraph(self._keeper.name, graph_id, roles, self._services)

    async def resume(self, graph: RunningGraph | None) -> RunningGraph:
        """Go on with a launch of an earlier controller; as :meth:`launch` else."""
        scheduler = self._services.scheduler
        if graph is None or graph.graph_id not in scheduler.graphs():
            raise CommandError("the controller was restarted before anything was launched")
        workflow = await compute(
            realtime.build, self._config, self._keeper.name, self._keeper.kept.multicast
        )
        values = workflow.telstate
        queue = await self._queue_again()
        match scheduler.phase(graph.graph_id):
            case GraphPhase.LAUNCHING:
                await scheduler.resume(
                    graph.graph_id,
                    timeout=self._services.timeouts.fit,
                    queue=queue,
                    late_values=self._late_values(graph, values),
                )
            case GraphPhase.UP:
                pass
            case _:
                raise CommandError(
                    "its launch had failed, and was being undone when the controller was restarted: "
                    "the log of the controller before says why"
                )
        await graph.connect()
        return graph

    async def adopt(self, graph: RunningGraph) -> None:
        """Take over a graph that was up under an earlier controller, if it still is."""
        queue = await self._queue_again()
        if self._services.scheduler.phase(graph.graph_id) is GraphPhase.UP:
            self._services.scheduler.adopt(graph.graph_id, queue=queue)

    async def _queue_again(self) -> str:
        """Return the queue of a graph of an earlier controller; another, recorded, where that is gone."""
        found = self._services.queues.still(
            self._keeper.kept.queue, Work.PRODUCTS, self._keeper.name
        )
        if found.name != self._keeper.kept.queue:
            await self._keeper.change(
                found.note or f"it waits in queue {found.name}",
                lambda kept: dataclasses.replace(kept, queue=found.name),
            )
        return found.name

    def _late_values(
        self, graph: RunningGraph, values: Mapping[str, Any]
    ) -> Callable[[str], Awaitable[Mapping[str, str]]]:
        """See that telescope state holds what a program reads when it starts, before it is let through."""

        async def before_go_ahead(task: str) -> Mapping[str, str]:
            """Publish, before the first program but the telescope state itself is let through; add no values.

            Raises
            ------
            LaunchError
                They cannot be published.
            """
            # Every program needs the telescope state to be ready, so it is by now.
            if task == graph.roles.telstate_task:
                return {}
            async with self._publishing:
                if self._keeper.kept.telstate is None:
                    try:
                        # The store may be away for a while: programs wait, as launches do.
                        await self._keeper.insist(lambda: self._publish(graph, values))
                    except ControllerError as exc:
                        raise LaunchError(str(exc)) from exc
            return {}

        return before_go_ahead

    async def _publish(self, graph: RunningGraph, values: Mapping[str, Any]) -> None:
        host, port = graph.port(graph.roles.telstate_task, "telstate")
        async with ProductTelstate.connect(host, port) as telstate:
            await telstate.publish(values)
        _TELSTATE.reached()
        await self._keeper.change(
            f"telescope state at {host}:{port}",
            lambda kept: dataclasses.replace(kept, telstate=(host, port)),
        )
