"""What stands in for the scheduler: it launches graphs of stand-in programs within this process.

It has the part of :class:`scheduler.service.Scheduler` that the controller uses, with the same meaning; nothing
is placed, and nothing survives the process.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Self

from pipelines import catalogue
from scheduler.errors import LaunchError, RestartError
from scheduler.graph import PhysicalGraph, PhysicalTask
from scheduler.journal import GraphPhase
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
from sdpcontroller.interface_mode.programs import StandInProgram
from sdpcontroller.interface_mode.redis import private_redis

HOST: Final = "localhost"
_TICK: Final = 1.0
_KILLED: Final = Death(Outcome.KILLED, "it is taken down")
_FINISHED: Final = Death(
    Outcome.FINISHED, "there is nothing to do in interface mode", exit_status=0
)

LateValues = Callable[[str], Awaitable[Mapping[str, str]]]


class _Graph:
    """A graph of stand-ins."""

    def __init__(self) -> None:
        self.views: dict[str, TaskView] = {}
        self.programs: dict[str, StandInProgram] = {}
        self.resources = AsyncExitStack()
        """The telescope state."""
        self.stopping = False
        self.ending = asyncio.Lock()


class StandInScheduler:
    """Launches stand-ins; an asynchronous context manager, as the scheduler is."""

    def __init__(self) -> None:
        self._graphs: dict[str, _Graph] = {}
        self._subscribers: list[Callable[[Change], None]] = []
        self._drained: dict[str, str] = {}
        self._ticking: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] | None = None
        """As the scheduler's: never done here."""

    async def __aenter__(self) -> Self:
        self.failed = asyncio.get_running_loop().create_future()
        self._ticking = asyncio.create_task(self._tick())
        self._tell(LinkChanged(LinkState.CONNECTED, "interface mode"))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for graph_id in tuple(self._graphs):
            await self.stop(graph_id)
        if self.failed is not None:
            self.failed.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            for graph in self._graphs.values():
                for program in graph.programs.values():
                    program.tick()

    # What is told

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back on every change; the returned function ends it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def _tell(self, change: Change) -> None:
        for callback in tuple(self._subscribers):
            callback(change)

    def agents(self) -> tuple[AgentView, ...]:
        """Return one agent, which takes everything."""
        drained = self._drained.get(HOST)
        return (AgentView(agent_id="interface-mode", host=HOST, drained=drained),)

    def waiting(self) -> Mapping[str, Sequence[float]]:
        """Return who waits for a place: nobody."""
        return {}

    def adopt(
        self, graph_id: str, *, queue: str = "", late_values: LateValues | None = None
    ) -> None:
        """Take care of a graph of a predecessor: there is none."""

    def awaited_hosts(self) -> frozenset[str] | None:
        """Return the hosts that are still to come: none."""
        return frozenset()

    def graphs(self) -> tuple[str, ...]:
        """Return the ids of the graphs that are not dead."""
        return tuple(self._graphs)

    def phase(self, graph_id: str) -> GraphPhase | None:
        """Return what is being done with a graph."""
        graph = self._graphs.get(graph_id)
        if graph is None:
            return None
        if graph.stopping:
            return GraphPhase.STOPPING
        up = all(view.state is TaskState.READY for view in graph.views.values())
        return GraphPhase.UP if up else GraphPhase.LAUNCHING

    def tasks(self, graph_id: str) -> Mapping[str, TaskView]:
        """Return the tasks of a graph by name."""
        graph = self._graphs.get(graph_id)
        return dict(graph.views) if graph is not None else {}

    def task(self, graph_id: str, name: str) -> TaskView | None:
        """Return one task of a graph."""
        return self.tasks(graph_id).get(name)

    def explain(self, graph_id: str) -> str:
        """Say what a graph waits for: nothing, here."""
        return ""

    async def plan(self, graph: PhysicalGraph, *, queue: str = "") -> Placement:
        """Say where a graph would go: here."""
        return Placement({name: Assignment(name, "interface-mode", HOST) for name in graph.tasks})

    async def homeless(self, graph: PhysicalGraph) -> Mapping[str, Explanation] | None:
        """Say which tasks could never run: none, here."""
        return {}

    async def task_log(self, task_id: str) -> tuple[str, ...]:
        """Return what a task has written."""
        return (f"{task_id} stands in for a program: it writes nothing",)

    async def drain(self, host: str, reason: str = "") -> None:
        """Note that a host gets no new tasks."""
        self._drained[host] = reason
        self._tell(AgentsChanged())

    async def undrain(self, host: str) -> None:
        """Note that a host gets new tasks again."""
        self._drained.pop(host, None)
        self._tell(AgentsChanged())

    # What is done

    async def launch(
        self,
        graph: PhysicalGraph,
        *,
        timeout: float,
        late_values: LateValues,
        priority: int = 0,
        queue: str = "",
    ) -> None:
        """Bring a graph up; see the scheduler."""
        known = self._graphs[graph.graph_id] = _Graph()
        try:
            async with asyncio.timeout(timeout):
                for name, task in sorted(graph.tasks.items(), key=_telstate_first):
                    await self._start(graph.graph_id, known, task)
                    if name != catalogue.TELSTATE.kind:
                        await late_values(name)
                    if known.stopping:
                        raise LaunchError(f"graph {graph.graph_id}: it is taken down")
                    self._become(known, name, state=TaskState.READY)
        except BaseException as exc:
            await self._end(graph.graph_id, known)
            if isinstance(exc, TimeoutError):
                raise LaunchError(f"{graph.graph_id} was not up in {timeout:g} s") from exc
            raise

    async def resume(
        self,
        graph_id: str,
        *,
        timeout: float,
        late_values: LateValues,
        priority: int = 0,
        queue: str = "",
    ) -> None:
        """Refuse: no graph survives a controller in interface mode."""
        raise LaunchError(f"there is no graph {graph_id}")

    async def _start(self, graph_id: str, graph: _Graph, task: PhysicalTask) -> None:
        ports: dict[str, tuple[str, int]] = {}
        if task.template.kind == catalogue.TELSTATE.kind:
            ports["telstate"] = await graph.resources.enter_async_context(private_redis())
        elif "katcp" in task.template.request.ports:
            ports["katcp"] = await self._serve(graph, task.name, task.template.kind)
        graph.views[task.name] = TaskView(
            graph_id=graph_id,
            name=task.name,
            kind=task.template.kind,
            task_id=task.task_id,
            state=TaskState.STARTING,
            host=HOST,
            ports=ports,
            critical=task.template.critical,
        )
        self._tell(TaskChanged(graph.views[task.name]))

    async def _serve(self, graph: _Graph, name: str, kind: str) -> tuple[str, int]:
        program = StandInProgram(kind)
        await program.start()
        graph.programs[name] = program
        host, port = program.sockets[0].getsockname()[:2]
        return str(host), int(port)

    def _become(self, graph: _Graph, name: str, **changes: Any) -> None:
        graph.views[name] = dataclasses.replace(graph.views[name], **changes)
        self._tell(TaskChanged(graph.views[name]))

    async def restart_task(self, graph_id: str, name: str, *, timeout: float) -> RestartPlan:
        """Start a stand-in anew, under a new id."""
        graph = self._graphs.get(graph_id)
        if graph is None or name not in graph.programs:
            raise RestartError(f"graph {graph_id} has no task {name} that can be restarted")
        await graph.programs.pop(name).stop()
        view = graph.views[name]
        stem, _, attempt = view.task_id.rpartition(".")
        port = await self._serve(graph, name, view.kind)
        self._become(graph, name, task_id=f"{stem}.{int(attempt) + 1}", ports={"katcp": port})
        return RestartPlan((name,), (), {})

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
        """Say of every node that it has finished."""
        nodes = {name: NodeResult(name=name, attempts=1, death=_FINISHED) for name in graph.tasks}
        result = BatchResult(graph.graph_id, nodes, ())
        if concluded is not None:
            await concluded(result)
        return result

    async def stop(self, graph_id: str, *, force: bool = False) -> None:
        """Take a graph down; returns when all its tasks are dead. They all obey at once."""
        graph = self._graphs.get(graph_id)
        if graph is not None:
            await self._end(graph_id, graph)

    async def _end(self, graph_id: str, graph: _Graph) -> None:
        """End what there is of a graph; several may ask at once, also the launch that brings it up still."""
        graph.stopping = True
        async with graph.ending:
            while graph.programs:
                _, program = graph.programs.popitem()
                await program.stop()
            await graph.resources.aclose()
        for name, view in graph.views.items():
            if view.state is not TaskState.DEAD:
                self._become(graph, name, state=TaskState.DEAD, death=_KILLED, expected_death=True)
        self._graphs.pop(graph_id, None)


def _telstate_first(item: tuple[str, PhysicalTask]) -> bool:
    """Order tasks: all others need the telescope state."""
    return item[1].template.kind != catalogue.TELSTATE.kind
