"""A cluster without sockets, whose tasks are simulated: for virtual time, and thousands of agents.

It has the same master and agents as :class:`~scheduler.embedded.cluster.Cluster`. Only the HTTP server is
missing: a framework speaks through a :class:`Link`. On a :mod:`~scheduler.embedded.virtual_loop` an hour of it
takes seconds, and two runs with the same seed are the same to the last event.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from scheduler.embedded.agent import Agent
from scheduler.embedded.agents import Agents
from scheduler.embedded.calls import CallRefusedError, SchedulerCalls
from scheduler.embedded.clock import LoopClock
from scheduler.embedded.convert import parse
from scheduler.embedded.executors import Launch
from scheduler.embedded.executors.simulated import Script, SimulatedExecutor, script_of_label
from scheduler.embedded.faults import Faults
from scheduler.embedded.identifiers import seeded
from scheduler.embedded.master import Master, Settings
from scheduler.embedded.model import AgentInfo, AgentSpec
from scheduler.embedded.recordio import Decoder
from scheduler.embedded.registry import Registry, RegistryKind
from scheduler.embedded.stream import EventStream
from scheduler.embedded.validation import validate_call
from scheduler.errors import ClusterError

logger = logging.getLogger(__name__)

EPOCH: Final = 1_700_000_000.0
"""Unix time at which simulations begin, s."""
_ADDRESS: Final = ("127.0.0.1", 5050)


class Simulation:
    """A simulated cluster; an async context manager.

    Parameters
    ----------
    agents
        The agents to start.
    seed
        Of all identifiers; None: they are random.
    script
        What each task does.
    settings
        Times of the master.
    registry
        What of the master survives its exchange.
    epoch
        Unix time at the beginning, s; None: now, for a loop in real time.
    """

    def __init__(
        self,
        agents: Sequence[AgentSpec],
        *,
        seed: int | None = 0,
        script: Callable[[Launch], Script] = script_of_label,
        settings: Settings | None = None,
        registry: RegistryKind = RegistryKind.IN_MEMORY,
        epoch: float | None = EPOCH,
    ) -> None:
        self._specs = agents
        self._seed = seed
        self._script = script
        self._settings = settings
        self._registry = Registry(registry)
        self._epoch = epoch
        self._context = ExitStack()
        self._running: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._clock: LoopClock | None = None
        self._executor: SimulatedExecutor | None = None
        self._master: Master | None = None
        self._links: list[Link] = []
        self.agents = Agents(self._make_agent, lambda _: _ADDRESS)
        """The agents, which can be killed, frozen, started again …"""
        self.faults = Faults(self)
        """What can be made go wrong."""

    @property
    def master(self) -> Master:
        """The master.

        Raises
        ------
        ClusterError
            If it has not been started.
        """
        if self._master is None:
            raise ClusterError("there is no master")
        return self._master

    @property
    def executor(self) -> SimulatedExecutor:
        """What pretends to run tasks."""
        if self._executor is None:
            raise ClusterError("the simulation has not been started")
        return self._executor

    async def __aenter__(self) -> Self:
        if self._seed is not None:
            self._context.enter_context(seeded(self._seed))
        self._clock = LoopClock(self._fail, self._epoch)
        self._executor = SimulatedExecutor(self._clock, self._script)
        await self.start_master(agents=False)
        self.agents.attach(self.master)
        for spec in self._specs:
            self.agents.start(spec)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._master is not None:
            await self.stop_master()
        for container in list(self.executor.containers.values()):
            container.discard()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        self._context.close()
        if error is None and self._failure is not None:
            raise self._failure

    def connect(self) -> Link:
        """Return a framework's end of a connection."""
        link = Link(self)
        self._links.append(link)
        return link

    async def stop_master(self) -> None:
        """Let the master die: connections break; agents and tasks go on."""
        master = self.master
        self.agents.detach()
        master.stop()
        for link in self._links:
            link.cut()
        self._registry = master.registry.inherited()
        self._master = None

    async def start_master(self, recovery: float = 0.0, *, agents: bool = True) -> None:
        """Start another master; see :meth:`scheduler.embedded.cluster.Cluster.start_master`."""
        if self._clock is None:
            raise ClusterError("the simulation has not been started")
        self._master = Master(
            self._clock, address=_ADDRESS, settings=self._settings, registry=self._registry
        )
        self._master.ready_at = self._clock.monotonic() + recovery
        self.faults.befall(self._master)
        self._master.start()
        if agents:
            self.agents.attach(self._master)

    def _make_agent(self, info: AgentInfo) -> Agent:
        return Agent(
            info,
            self.executor,
            self.master,
            self.master.clock,
            work_dir=Path("/simulated"),
            spawn=self._spawn,
        )

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        logger.critical("internal fault of the simulation", exc_info=error)
        self._failure = self._failure or error


class CallError(ClusterError):
    """A call that was answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Link:
    """A framework's connection to a simulated master: what is SUBSCRIBE and the other calls over HTTP.

    Parameters
    ----------
    simulation
        Whose master is spoken to, whichever that is at the moment.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._stream: EventStream | None = None
        self._calls: SchedulerCalls | None = None
        self.framework_id = ""

    async def subscribe(self, **info: Any) -> AsyncIterator[dict[str, Any]]:
        """Subscribe, again with the id of before, and yield events until the stream ends.

        Parameters
        ----------
        info
            Fields of the ``FrameworkInfo``.

        Raises
        ------
        CallError
            If there is no master, or it refuses.
        """
        document: dict[str, Any] = {"user": "", "name": "simulated", **info}
        call: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": document}}
        if self.framework_id:
            document["id"] = call["framework_id"] = {"value": self.framework_id}
        parsed = await self._checked(call)
        if parsed is None:
            return
        master = self._simulation.master
        self._calls = SchedulerCalls(master)
        self._stream = stream = master.subscribe(parsed)
        try:
            async for event in _events(stream):
                if event["type"] == "SUBSCRIBED":
                    self.framework_id = event["subscribed"]["framework_id"]["value"]
                yield event
        finally:
            master.disconnected(stream)

    async def call(self, kind: str, **body: Any) -> None:
        """Make another call.

        Raises
        ------
        CallError
            If it is refused, as a master would over HTTP.
        """
        call: dict[str, Any] = {"type": kind, "framework_id": {"value": self.framework_id}}
        if body:
            call[kind.lower()] = body
        parsed = await self._checked(call)
        if self._calls is None or self._stream is None:
            raise CallError(403, "Framework is not subscribed")
        if parsed is None:
            return
        try:
            self._calls.call(parsed, self._stream.id)
        except CallRefusedError as exc:
            raise CallError(exc.status, exc.text) from exc

    def cut(self) -> None:
        """Break the connection."""
        if self._stream is not None:
            self._stream.cut()

    async def _checked(self, call: Mapping[str, Any]) -> dict[str, Any] | None:
        """Do what the HTTP server does before the master sees a call; None: it shall not see it."""
        parsed = parse(json.dumps(call).encode(), "Call")
        if (problem := validate_call(parsed, None)) is not None:
            raise CallError(400, problem)
        if (answer := await self._simulation.faults.before_call(parsed)) is not None:
            if answer[0] >= 300:
                raise CallError(*answer)
            return None
        master = self._simulation.master
        if master.clock.monotonic() < master.ready_at:
            raise CallError(503, "Master has not finished recovery")
        return parsed


async def _events(stream: EventStream) -> AsyncIterator[dict[str, Any]]:
    decoder = Decoder()
    async for record in stream:
        for text in decoder.feed(record):
            yield json.loads(text)
