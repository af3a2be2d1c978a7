"""A product's graph in the cluster, and the links to its tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

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
        self._left = False
        self._going_on: set[asyncio.Task[None]] = set()

    @property
    def expendable(self) -> frozenset[str]:
        """Names of the tasks without which an observation is whole."""
        return frozenset(name for name, view in self.tasks().items() if not view.critical)

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
        return self._port(self._task(task), task, name)

    def _task(self, name: str) -> TaskView | None:
        return self._services.scheduler.task(self.graph_id, name)

    def _port(self, view: TaskView | None, task: str, name: str) -> tuple[str, int]:
        if view is None or name not in view.ports:
            raise CommandError(f"{task} of product {self._product} has no port {name} yet")
        return view.ports[name]

    async def connect(self) -> None:
        """Open the links to all tasks that speak KATCP and live; the loop goes on in between.

        One without a place is passed over: the controller died while it was started again. Of all products
        together, some are opened at a time: with each come the list of a task's sensors and their readings,
        which would else all come at once.

        Raises
        ------
        CommandError
            If the links were closed for good.
        """
        for task in self.roles.katcp_tasks:
            await self._services.linking.acquire()
            try:
                # Much can have happened since the turn before: it may be dead, or linked anew elsewhere.
                view = self._task(task)
                wanted = view is not None and view.death is None and "katcp" in view.ports
                if wanted and task not in self.connections:
                    self._link(task, self._port(view, task, "katcp"))
            finally:
                self._spawn(self._make_room(self.connections.get(task)))
            await asyncio.sleep(0)

    async def _make_room(self, opened: TaskConnection | None) -> None:
        """Let another link be opened, once this one needs no attention any more."""
        try:
            if opened is not None:
                await opened.settled()
        finally:
            self._services.linking.release()

    def connect_task(self, task: str) -> None:
        """Open the link to one task, in the place of an older one.

        Raises
        ------
        CommandError
            If it has no place yet, or the links were closed for good.
        """
        self._link(task, self.port(task, "katcp"))

    def _link(self, task: str, endpoint: tuple[str, int]) -> None:
        if self._left:
            raise CommandError(f"{task} of product {self._product}: its links are closed")
        self.disconnect(task)
        services = self._services
        host, port = endpoint
        self.connections[task] = TaskConnection(
            self._product,
            task,
            host,
            port,
            services.sensor_changed,
            services.may_act,
            services.reading,
        )

    def disconnect(self, task: str) -> None:
        """Close the link to one task, if there is one; who waits for its answer need not wait longer."""
        connection = self.connections.pop(task, None)
        if connection is not None:
            connection.close()
            self._spawn(connection.wait_closed())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let the beginning or the end of a link go on by itself."""
        task = asyncio.create_task(work)
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)

    async def disconnect_all(self) -> None:
        """Close all links, for good: none is opened any more."""
        self._left = True
        for task in tuple(self.connections):
            self.disconnect(task)
        if self._going_on:
            await asyncio.wait(self._going_on)

    def stages(self) -> list[list[str]]:
        """Tasks that take part in captures and are connected, in the order of the data's flow."""
        order = self.roles.capture_order()
        return [[task for task in stage if task in self.connections] for stage in order]

    async def take_down(self, *, force: bool = False) -> None:
        """Close the links and kill all tasks, in order; with `force`, all at once; return when they are dead.

        Raises
        ------
        CommandError
            If the scheduler cannot.
        """
        await self.disconnect_all()
        try:
            await self._services.scheduler.stop(self.graph_id, force=force)
        except SchedulerError as exc:
            raise CommandError(f"product {self._product} cannot be taken down: {exc}") from exc
