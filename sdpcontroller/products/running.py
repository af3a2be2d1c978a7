"""A product's graph in the cluster, and the links to its tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from scheduler.errors import SchedulerError
from scheduler.views import TaskView
from sdpcontroller.errors import CommandError
from sdpcontroller.products.connections import TaskConnection
from sdpcontroller.products.services import Services
from sdpcontroller.workflows.plan import Roles


class RunningGraph:
    """The graph of one product, from when it is recorded until all of it is dead."""

    def __init__(self, product: str, graph_id: str, roles: Roles, services: Services) -> None:
        self.graph_id = graph_id
        self.roles = roles
        self.connections: dict[str, TaskConnection] = {}
        """By task; of those that can be asked."""
        self._product = product
        self._services = services

    def tasks(self) -> Mapping[str, TaskView]:
        """Return what is known of its tasks, by name."""
        return self._services.scheduler.tasks(self.graph_id)

    def port(self, task: str, name: str) -> tuple[str, int]:
        """Return where a task listens.

        Raises
        ------
        CommandError
            If it has no place yet.
        """
        return self._port(self.tasks().get(task), task, name)

    def _port(self, view: TaskView | None, task: str, name: str) -> tuple[str, int]:
        if view is None or name not in view.ports:
            raise CommandError(f"{task} of product {self._product} has no port {name} yet")
        return view.ports[name]

    async def connect(self) -> None:
        """Open the links to all tasks that speak KATCP and live; the loop goes on in between."""
        views = self.tasks()
        for task in self.roles.katcp_tasks:
            view = views.get(task)
            if view is not None and view.death is None:
                await self.disconnect(task)
                self._link(task, self._port(view, task, "katcp"))
                await asyncio.sleep(0)

    async def connect_task(self, task: str) -> None:
        """Open the link to one task, in the place of an older one.

        Raises
        ------
        CommandError
            If it has no place yet.
        """
        await self.disconnect(task)
        self._link(task, self.port(task, "katcp"))

    def _link(self, task: str, endpoint: tuple[str, int]) -> None:
        services = self._services
        host, port = endpoint
        self.connections[task] = TaskConnection(
            self._product, task, host, port, services.sensor_changed, services.may_act
        )

    async def disconnect(self, task: str) -> None:
        """Close the link to one task, if there is one; who waits for its answer need not wait longer."""
        connection = self.connections.pop(task, None)
        if connection is not None:
            await connection.close()

    async def disconnect_all(self) -> None:
        """Close all links."""
        while self.connections:
            await self.disconnect(next(iter(self.connections)))

    def stages(self) -> list[list[str]]:
        """Tasks that take part in captures and are connected, in the order of the data's flow."""
        order = self.roles.capture_order()
        return [[task for task in stage if task in self.connections] for stage in order]

    async def take_down(self) -> None:
        """Close the links and kill all tasks, in order; return when they are dead.

        Raises
        ------
        CommandError
            If the scheduler cannot.
        """
        await self.disconnect_all()
        try:
            await self._services.scheduler.stop(self.graph_id)
        except SchedulerError as exc:
            raise CommandError(f"product {self._product} cannot be taken down: {exc}") from exc
