"""A scheduler at its protocol's edge, whose tasks are KATCP servers in this process."""

# No annotations as text: aiokatcp reads those of requests.

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import aiokatcp

from scheduler.errors import LaunchError, RestartError
from scheduler.graph import PhysicalGraph
from scheduler.journal import GraphPhase
from scheduler.listening import stop_accepting
from scheduler.packing import Explanation
from scheduler.permission import Permission, granted
from scheduler.placement import Assignment, Placement
from scheduler.restart import RestartPlan
from scheduler.task import Death, Outcome, TaskState
from scheduler.views import (
    AgentsChanged,
    AgentView,
    BatchResult,
    Change,
    LinkChanged,
    LinkState,
    NodeResult,
    TaskChanged,
    TaskView,
)
from sdpcontroller.control import ProductRecord, TaskSensor
from sdpcontroller.master import Master
from sdpcontroller.products.services import Timeouts
from sdpcontroller.queues import BUILT_IN, QueuesConfig
from sdpcontroller.store import Store
from tests.conftest import PATIENCE

LateValues = Callable[[str], Awaitable[Mapping[str, str]]]


@dataclass
class Behaviour:
    """How the programs answer; by task name, or ``*``."""

    refuse: dict[str, str] = field(default_factory=dict)
    """Request that is refused, by task."""
    hang: dict[str, str] = field(default_factory=dict)
    """Request that is never answered, by task."""
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    """What a task waits for before it answers anything."""


class TaskServer(aiokatcp.DeviceServer):
    """A program of the pipeline: writes down what it is asked."""

    VERSION = "fake-1.0"
    BUILD_STATE = "fake-1.0"

    def __init__(self, name: str, journal: list[tuple[str, ...]], behaviour: Behaviour) -> None:
        super().__init__("127.0.0.1", 0)
        self._name = name
        self._journal = journal
        self._behaviour = behaviour
        self.asked = asyncio.Event()
        self.sensors.add(aiokatcp.Sensor(int, "heaps", "heaps seen", "heaps"))
        self.block = aiokatcp.Sensor(str, "capture-block-id", "block in progress")
        self.sensors.add(self.block)
        self.status = aiokatcp.Sensor(
            aiokatcp.DeviceStatus, "device-status", "how it is", default=aiokatcp.DeviceStatus.OK
        )
        self.sensors.add(self.status)

    async def stop(self, cancel: bool = True) -> None:
        await stop_accepting(self.sockets)
        await super().stop(cancel)

    async def _answer(self, request: str, *args: str) -> None:
        self._journal.append((self._name, request, *args))
        self.asked.set()
        if self._behaviour.hang.get(self._name) == request:
            await asyncio.Event().wait()
        if self._behaviour.refuse.get(self._name) == request:
            raise aiokatcp.FailReply(f"no {request} today")
        await asyncio.sleep(0)
        if (event := self._behaviour.slow.get(self._name)) is not None:
            await event.wait()
        if request in ("capture-init", "capture-done"):
            self.block.value = args[0] if args else ""
        self._journal.append((self._name, f"{request} done", *args))
        self.asked.set()

    async def request_capture_init(self, ctx: aiokatcp.RequestContext, cbid: str) -> None:
        """Begin."""
        await self._answer("capture-init", cbid)

    async def request_capture_done(self, ctx: aiokatcp.RequestContext) -> None:
        """End."""
        await self._answer("capture-done")

    async def request_capture_start(self, ctx: aiokatcp.RequestContext, stream: str) -> None:
        """Send."""
        await self._answer("capture-start", stream)

    async def request_capture_stop(self, ctx: aiokatcp.RequestContext, stream: str) -> None:
        """Do not send."""
        await self._answer("capture-stop", stream)


async def _nothing() -> None:
    pass


class FakeScheduler:
    """What the controller uses of :class:`scheduler.service.Scheduler`.

    `telstate` is called before each launch and returns host and port of an empty Redis.
    """

    def __init__(self, telstate: Callable[[], Awaitable[tuple[str, int]]]) -> None:
        self._telstate = telstate
        self._subscribers: list[Callable[[Change], None]] = []
        self._views: dict[str, dict[str, TaskView]] = {}
        self._stopping: dict[str, asyncio.Event] = {}
        self.servers: dict[str, TaskServer] = {}
        """By task id."""
        self._starting: dict[TaskServer, asyncio.Future[None]] = {}
        self.undone: set[str] = set()
        """Ids of graphs that are being taken down, because their launch has failed."""
        self.launched: list[PhysicalGraph] = []
        """All that were launched."""
        self.waited_in: dict[str, str] = {}
        """The queue of each graph."""
        self.waits: dict[str, list[float]] = {}
        self.batches: list[PhysicalGraph] = []
        self.retries: list[Permission] = []
        """What batches ask before they try again."""
        self.stopped: list[str] = []
        self.forced: list[str] = []
        self.journal: list[tuple[str, ...]] = []
        """What the tasks were asked: (task, request, arguments …)."""
        self.behaviour = Behaviour()
        self.gate = asyncio.Event()
        """Launches and batches wait for it."""
        self.gate.set()
        self.stops = asyncio.Event()
        """Stops wait for it."""
        self.stops.set()
        self.steps = asyncio.Event()
        """The go-aheads of a launch wait for it."""
        self.steps.set()
        self.launch_error: Exception | None = None
        self.resumed: list[str] = []
        """Ids of graphs whose launch was gone on with."""
        self.restarts: list[str] = []
        """Names of the tasks that were restarted."""
        self.restart_error: Exception | None = None
        self.homeless_tasks: Mapping[str, Explanation] | None = {}
        self.batch_failures: tuple[str, ...] = ()
        self.agent_views = (
            AgentView(agent_id="S1", host="sdp-2"), AgentView(agent_id="S0", host="sdp-1")
        )  # fmt: skip
        self.awaited: frozenset[str] | None = frozenset()
        """Hosts of agents that have not come to the present master yet; None before it has told."""
        self.failed: asyncio.Future[None] | None = None
        self.closing: Callable[[], Awaitable[object]] = _nothing
        """Is called when it is closed, before anything else."""
        self.survives = False
        """Whether the tasks run on when the link to the scheduler ends, as they do on a cluster."""

    async def __aenter__(self) -> Self:
        self.failed = asyncio.get_running_loop().create_future()
        self.tell(LinkChanged(LinkState.CONNECTED, "127.0.0.1:5050"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.closing()
        self._subscribers.clear()
        await asyncio.gather(*self._starting.values())
        if self.survives:
            return
        for server in tuple(self.servers.values()):
            await server.stop()
        assert self.failed is not None
        self.failed.cancel()

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def tell(self, change: Change) -> None:
        for callback in tuple(self._subscribers):
            callback(change)

    def agents(self) -> tuple[AgentView, ...]:
        return self.agent_views

    def awaited_hosts(self) -> frozenset[str] | None:
        return self.awaited

    def tasks(self, graph_id: str) -> Mapping[str, TaskView]:
        return dict(self._views.get(graph_id, {}))

    def task(self, graph_id: str, name: str) -> TaskView | None:
        return self._views.get(graph_id, {}).get(name)

    def waiting(self) -> Mapping[str, Sequence[float]]:
        return self.waits

    def adopt(
        self, graph_id: str, *, queue: str = "", late_values: LateValues | None = None
    ) -> None:
        self.waited_in[graph_id] = queue

    def graphs(self) -> tuple[str, ...]:
        return tuple(self._views)

    def phase(self, graph_id: str) -> GraphPhase | None:
        if graph_id in self.undone:
            return GraphPhase.STOPPING
        views = self._views.get(graph_id, {}).values()
        up = views and all(v.state in (TaskState.READY, TaskState.DEAD) for v in views)
        return GraphPhase.UP if up else GraphPhase.LAUNCHING

    async def resume(
        self,
        graph_id: str,
        *,
        timeout: float,
        late_values: LateValues,
        priority: int = 0,
        queue: str = "",
    ) -> None:
        """Go on where :meth:`launch` was left."""
        self.waited_in[graph_id] = queue
        self.resumed.append(graph_id)
        graph = next(graph for graph in self.launched if graph.graph_id == graph_id)
        if len(self._views[graph_id]) < len(graph.tasks):
            await self._start_tasks(graph, await self._telstate())
        await self._bring_up(graph, late_values)

    async def restart_task(self, graph_id: str, name: str, *, timeout: float) -> RestartPlan:
        self.restarts.append(name)
        if self.restart_error is not None:
            raise self.restart_error
        if graph_id not in self._views:
            raise RestartError(f"there is no graph {graph_id}")
        view = self._views[graph_id][name]
        stem, _, attempt = view.task_id.rpartition(".")
        task_id = f"{stem}.{int(attempt) + 1}"
        if task_id in self.servers:
            raise RestartError(f"{name} is being restarted")
        server = await self._serve(name, task_id)
        changes: dict[str, Any] = {"death": None, "log_tail": (), "ports": {"katcp": server}}
        self._become(graph_id, name, task_id=task_id, state=TaskState.READY, **changes)
        return RestartPlan((name,), (), {})

    async def task_log(self, task_id: str) -> tuple[str, ...]:
        return (f"log of {task_id}",)

    def explain(self, graph_id: str) -> str:
        return "" if self.gate.is_set() else f"{graph_id} waits for 2 cores"

    async def homeless(self, graph: PhysicalGraph) -> Mapping[str, Explanation] | None:
        return self.homeless_tasks

    async def plan(self, graph: PhysicalGraph, *, queue: str = "") -> Placement:
        return Placement({name: Assignment(name, "S0", "sdp-1") for name in graph.tasks})

    @property
    def alive(self) -> set[str]:
        """Ids of the tasks that run."""
        return {
            view.task_id
            for views in self._views.values()
            for view in views.values()
            if view.state is not TaskState.DEAD
        }

    async def launch(
        self,
        graph: PhysicalGraph,
        *,
        timeout: float,
        priority: int = 0,
        queue: str = "",
        late_values: LateValues,
    ) -> None:
        self.launched.append(graph)
        self.waited_in[graph.graph_id] = queue
        self.tell(AgentsChanged())
        self._views.setdefault(graph.graph_id, {})
        stop = self._stopping[graph.graph_id] = asyncio.Event()
        telstate = await self._telstate()
        waits = [asyncio.ensure_future(event.wait()) for event in (self.gate, stop)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if stop.is_set():
            raise LaunchError(f"graph {graph.graph_id}: it is taken down")
        await self._start_tasks(graph, telstate)
        await self._bring_up(graph, late_values)

    async def _start_tasks(self, graph: PhysicalGraph, telstate: tuple[str, int]) -> None:
        """Start those that do not run yet."""
        views = self._views[graph.graph_id]
        for name, task in graph.tasks.items():
            if name in views:
                continue
            view = TaskView(
                graph_id=graph.graph_id,
                name=name,
                kind=task.template.kind,
                task_id=task.task_id,
                state=TaskState.WAITING,
                host="sdp-1",
                critical=task.template.critical,
            )
            if name == "telstate":
                view = replace(view, ports={"telstate": telstate})
            else:
                view = replace(view, ports={"katcp": await self._serve(name, task.task_id)})
            views[name] = view
            self.tell(TaskChanged(view))

    async def _serve(self, name: str, task_id: str) -> tuple[str, int]:
        if (
            server := self.servers.get(task_id)
        ) is None:  # else an earlier controller began with it
            server = self.servers[task_id] = TaskServer(name, self.journal, self.behaviour)
            self._starting[server] = asyncio.ensure_future(server.start())
        # Also when the controller ends meanwhile: it is closed later.
        await asyncio.shield(self._starting[server])
        assert server.server is not None
        return "127.0.0.1", server.server.sockets[0].getsockname()[1]

    async def _bring_up(self, graph: PhysicalGraph, late_values: LateValues) -> None:
        for name in self._views[graph.graph_id]:
            await self.steps.wait()
            if name != "telstate":
                await late_values(name)
            if self.launch_error is not None:
                await self.stop(graph.graph_id)
                raise self.launch_error
            self._become(graph.graph_id, name, state=TaskState.READY)

    def _become(self, graph_id: str, name: str, **changes: Any) -> None:
        view = replace(self._views[graph_id][name], **changes)
        self._views[graph_id][name] = view
        self.tell(TaskChanged(view))

    async def die(
        self, name: str, *, log: tuple[str, ...] = (), outcome: Outcome = Outcome.FAILED
    ) -> None:
        """Let a task of the newest graph die; its last lines are known a little later."""
        graph_id = self.launched[-1].graph_id
        view = self._views[graph_id][name]
        server = self.servers.pop(view.task_id, None)
        if server is not None:
            for conn in tuple(server._connections):
                conn.abort()
            await server.stop()
        death = Death(outcome, "exited with status 3", exit_status=3)
        self._become(graph_id, name, state=TaskState.DEAD, death=death)
        if log:
            await asyncio.sleep(0)
            self._become(graph_id, name, log_tail=log)

    async def stop(self, graph_id: str, *, force: bool = False) -> None:
        if force:
            self.forced.append(graph_id)
        await self.stops.wait()
        self.stopped.append(graph_id)
        if (stop := self._stopping.get(graph_id)) is not None:
            stop.set()
        for name in self.tasks(graph_id):
            view = self.tasks(graph_id).get(
                name
            )  # whoever else stops the graph may have been faster
            if view is None or view.state is TaskState.DEAD:
                continue
            server = self.servers.pop(view.task_id, None)
            if server is not None:
                await server.stop()
            if graph_id not in self._views:
                return
            death = Death(Outcome.KILLED, "it is taken down")
            self._become(graph_id, name, state=TaskState.DEAD, death=death, expected_death=True)
        self._views.pop(graph_id, None)

    async def run_batch(
        self,
        graph: PhysicalGraph,
        *,
        attempts: int = 2,
        timeout: float,
        priority: int = 0,
        queue: str = "",
        concluded: Callable[[BatchResult], Awaitable[None]] | None = None,
        retries: Permission = granted,
    ) -> BatchResult:
        self.batches.append(graph)
        self.waited_in[graph.graph_id] = queue
        self.retries.append(retries)
        stop = self._stopping[graph.graph_id] = asyncio.Event()
        views = self._views.setdefault(graph.graph_id, {})
        for name, task in graph.tasks.items():
            views[name] = TaskView(
                graph_id=graph.graph_id,
                name=name,
                kind=task.template.kind,
                task_id=task.task_id,
                state=TaskState.READY,
            )
            self.tell(TaskChanged(views[name]))
        waits = [asyncio.ensure_future(event.wait()) for event in (self.gate, stop)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        failed = tuple(graph.tasks) if stop.is_set() else self.batch_failures
        nodes = {}
        for name in graph.tasks:
            outcome = Outcome.FAILED if name in failed else Outcome.FINISHED
            death = Death(outcome, "exited with status 4" if name in failed else "done")
            nodes[name] = NodeResult(
                name=name, attempts=attempts, death=death, log_tail=("no space left",)
            )
            if name in self.tasks(graph.graph_id):
                self._become(graph.graph_id, name, state=TaskState.DEAD, death=death)
        result = BatchResult(graph.graph_id, nodes, failed)
        if concluded is not None:
            await concluded(result)
        self._views.pop(graph.graph_id, None)
        return result


class Witness:
    """A listener that keeps everything it is told."""

    def __init__(self) -> None:
        self.records: list[ProductRecord] = []
        self.latest: dict[str, ProductRecord] = {}
        self.gone: list[str] = []
        self.sensors: list[TaskSensor] = []
        self.system = 0
        self._changed = asyncio.Event()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def product_changed(self, record: ProductRecord) -> None:
        self.records.append(record)
        self.latest[record.name] = record
        self._tell()

    def product_gone(self, name: str) -> None:
        self.gone.append(name)
        self.latest.pop(name, None)
        self._tell()

    def sensor_changed(self, sensor: TaskSensor) -> None:
        self.sensors.append(sensor)
        self._tell()

    def system_changed(self) -> None:
        self.system += 1
        self._tell()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; it is looked at after everything that is told."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await self._changed.wait()

    def states(self, name: str) -> list[str]:
        """States of a product in the order they were told, without repetitions."""
        words = [record.state.value for record in self.records if record.name == name]
        return [word for i, word in enumerate(words) if i == 0 or words[i - 1] != word]


PATIENT = Timeouts(PATIENCE, PATIENCE, PATIENCE, PATIENCE, PATIENCE)


class House:
    """A running master, its database, its scheduler, and somebody who listens."""

    def __init__(
        self,
        store: Store,
        scheduler: FakeScheduler,
        *,
        end_products: bool = True,
        queues: QueuesConfig = BUILT_IN,
    ) -> None:
        self.store = store
        self.scheduler = scheduler
        fake: Any = scheduler
        self.master = Master(
            store,
            fake,
            address=("10.0.0.1", 5001),
            multicast="239.192.0.0/24",
            timeouts=PATIENT,
            end_products=end_products,
            figures=self,
            queues=queues,
        )
        self.counted: list[tuple[str, str, str]] = []
        self.reaches: list[str] = []
        """Deaths and restarts, with kind and outcome."""
        self.witness = Witness()
        self.stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self.master.listen(self.witness)
        self._running = asyncio.create_task(self.master.run(ready, self.stop))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    def died(self, kind: str, outcome: str) -> None:
        self.counted.append(("died", kind, outcome))

    def restarted(self, kind: str, outcome: str) -> None:
        self.counted.append(("restarted", kind, outcome))

    def reached(self, what: str) -> None:
        self.reaches.append(what)

    async def crash(self) -> None:
        """End the master in mid-act; the tasks run on."""
        self.scheduler.survives = True
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait({self._running})
        self._running = asyncio.create_task(asyncio.sleep(0))

    async def end(self) -> None:
        """Stop the master and wait until it has ended."""
        self.stop.set()
        assert self._running is not None
        async with asyncio.timeout(PATIENCE):
            await self._running

    async def settle(self) -> None:
        """Wait until nothing is left that products do by themselves."""
        async with asyncio.timeout(PATIENCE):
            while busy := [t for t in asyncio.all_tasks() if _of_product(t)]:
                await asyncio.wait(busy)
        for product in self.master._products.values():
            if product._keeper._telling is not None:  # no need to wait for it
                product._keeper._show()

    async def asked(self, task: str, request: str) -> None:
        """Wait until a task was asked something."""
        server = next(s for i, s in self.scheduler.servers.items() if f".{task}." in i)
        async with asyncio.timeout(PATIENCE):
            while (task, request) not in [entry[:2] for entry in self.scheduler.journal]:
                server.asked.clear()
                await server.asked.wait()

    def product(self, name: str) -> ProductRecord:
        return self.master.products()[name]

    async def stored(self, name: str) -> dict[str, Any] | None:
        """The product's document in the database."""
        found = await self.store.get("product", name)
        return None if found is None else found.value

    async def everything(self) -> list[str]:
        """All keys of the database."""
        return sorted(await self.store.client.keys("*"))


def _of_product(task: asyncio.Task[Any]) -> bool:
    name = getattr(task.get_coro(), "__qualname__", "")
    own = ("Product.", "Ending.", "Losses.", "Postprocessing.", "Capturing.", "Keeper.", "tidy")
    return name.startswith(own)
