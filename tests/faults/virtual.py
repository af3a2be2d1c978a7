"""A whole cluster in virtual time: the embedded master, its agents, simulated programs.

Only two things are not the real ones: the wire between pymesos and the master (calls and events go from
hand to hand, after their way through JSON, and can be lost there), and what tasks run. Time jumps to the next
moment at which something happens: an hour of waiting costs nothing, and every run of a test is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self
from unittest import mock

import aiohttp
import aiohttp.connector
import async_solipsism
import orjson
from aiohttp import web

from scheduler import pymesos_driver
from scheduler.calls import Call, Caller, Calls
from scheduler.embedded import AgentSpec
from scheduler.embedded.agent import Agent
from scheduler.embedded.agents import Agents
from scheduler.embedded.calls import CallRefusedError, SchedulerCalls
from scheduler.embedded.clock import LoopClock
from scheduler.embedded.convert import parse
from scheduler.embedded.executors import Container, ContainerLaunchError, Launch, Outcome, Running
from scheduler.embedded.http import make_application
from scheduler.embedded.master import Master, Settings
from scheduler.embedded.membership import Membership
from scheduler.embedded.model import AgentInfo
from scheduler.embedded.operations import Operations
from scheduler.embedded.recordio import Decoder
from scheduler.embedded.registry import Registry
from scheduler.embedded.scheduler_api import SchedulerApi
from scheduler.embedded.stream import EventStream
from scheduler.embedded.validation import validate_call
from scheduler.figures import Figures
from scheduler.framework import Framework, FrameworkSettings
from scheduler.journal import Journal, MemoryJournal
from scheduler.pymesos_driver import CallRefused, CallUncertain
from scheduler.quantities import Ranges, Resources
from scheduler.service import Scheduler
from scheduler.subscription import Timing
from tests.scheduler.programs import has_not_died

P = ParamSpec("P")
MASTERS = ("127.0.0.1", range(5050, 5060))
"""Where one master after the other is."""
CONTROLLERS = range(8000, 8010)
"""Ports at which one controller after the other answers waiting tasks."""
NEVER = 1e9


def in_virtual_time(
    test: Callable[P, Coroutine[Any, Any, None]], *, debug: bool = True
) -> Callable[P, None]:
    """Run a test on a loop of its own whose time is virtual; without `debug` several times as fast."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with (
            mock.patch.object(
                aiohttp.connector.aiohappyeyeballs,
                "start_connection",
                async_solipsism.aiohappyeyeballs_start_connection,
            ),
            asyncio.Runner(debug=debug, loop_factory=async_solipsism.EventLoop) as runner,
        ):
            runner.get_loop().slow_callback_duration = 10.0  # other people compute here too
            runner.run(test(*args, **kwargs))

    return run


@dataclass
class Program:
    """What a task does; times in seconds."""

    start: float = 0.2
    """Until its container runs."""
    up: float = 0.5
    """From the go-ahead until its ports accept connections."""
    runs: float = NEVER
    """From the go-ahead until it exits."""
    status: int = 0
    """With which it does."""
    end: float = 0.1
    """From being killed to its end."""
    refused: str = ""
    """Why its container cannot be made."""
    lines: str = ""
    """What it writes."""


class SimulatedContainer:
    """One run of a program."""

    pid = None

    def __init__(self, world: World, launch: Launch, program: Program) -> None:
        self.task_id = launch.task.id
        self.name = launch.task.name
        self.agent = launch.agent.spec.hostname
        self.resources = launch.task.resources
        self.program = program
        self.answers: list[dict[str, str]] = []
        """Values of the go-aheads that it got."""
        self._world = world
        variables = launch.command.get("environment", {}).get("variables", [])
        self.environment = {entry["name"]: entry["value"] for entry in variables}
        ports = launch.task.document.get("discovery", {}).get("ports", {}).get("ports", [])
        self._ports = [port["number"] for port in ports]
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return not self._outcome.done()

    async def started(self) -> Running | None:
        """Begin to run, unless it is killed before."""
        await asyncio.wait((self._outcome,), timeout=self.program.start)
        if not self.alive:
            return None
        self._life = asyncio.create_task(self._live())
        return Running()

    def kill(self, grace: float) -> None:
        delay = min(self.program.end, grace) if self.program.end < NEVER else NEVER
        text = "Command terminated with signal Terminated"
        asyncio.get_running_loop().call_later(delay, self.finish, Outcome(False, text))

    def finish(self, outcome: Outcome) -> None:
        """End, in whatever way."""
        if self.alive:
            self._outcome.set_result(outcome)
            if self._life is not None:
                self._life.cancel()

    def exit(self, status: int) -> None:
        """End by itself."""
        self.finish(Outcome(status == 0, f"Command exited with status {status}"))

    async def wait(self) -> Outcome:
        outcome = await self._outcome
        if self._life is not None:
            await asyncio.gather(self._life, return_exceptions=True)
        return outcome

    async def _live(self) -> None:
        if "SDP_GO_AHEAD_TOKEN" in self.environment:
            self.answers.append(await self._ask())
        asyncio.get_running_loop().call_later(self.program.runs, self.exit, self.program.status)
        await asyncio.sleep(self.program.up)
        async with contextlib.AsyncExitStack() as stack:
            for port in self._ports:
                server = await asyncio.start_server(_hang_up, "127.0.0.1", port)
                stack.callback(server.close)
            await asyncio.sleep(NEVER)

    async def _ask(self) -> dict[str, str]:
        """Ask for the go-ahead as the wrapper does."""
        head = {"Authorization": f"Bearer {self.environment['SDP_GO_AHEAD_TOKEN']}"}
        async with aiohttp.ClientSession(headers=head) as session:
            while True:
                for url in self.environment["SDP_GO_AHEAD_URLS"].split():
                    with contextlib.suppress(aiohttp.ClientError, OSError):
                        async with session.get(url) as response:
                            if response.status == 200:
                                values: dict[str, str] = (await response.json())["values"]
                                return values
                            if response.status in (403, 410):
                                self.exit(126)
                                await asyncio.sleep(NEVER)
                await asyncio.sleep(1)


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def small_agent(number: int, *, cpus: int = 2) -> AgentSpec:
    """Return an agent with so many CPUs, 1 GiB and ten ports of its own."""
    first = 20000 + 10 * number
    amounts = {"cpus": 1000 * cpus, "mem": 1024_000, "disk": 1000_000}
    resources = Resources(amounts, {"ports": Ranges.of([(first, first + 9)])})
    return AgentSpec(f"agent{number}", resources)


class World:
    """A cluster in virtual time; an async context manager.

    Parameters
    ----------
    folder
        For sandboxes.
    agents
        Number of agents, or what they are.
    """

    def __init__(self, folder: Path, agents: int | Iterable[AgentSpec] = 3) -> None:
        self._folder = folder
        specs = map(small_agent, range(agents)) if isinstance(agents, int) else agents
        self._specs = tuple(specs)
        self.programs: dict[str, Program] = {}
        """By task name; others behave well."""
        self.containers: list[SimulatedContainer] = []
        """All that ever ran, in order."""
        self.master_up = True
        self.intercept: Callable[[Mapping[str, Any]], str | None] = lambda call: None
        """What happens to a call on its way: None: it arrives; ``lost``: it does not, and no answer comes;
        ``unanswered``: it arrives, and no answer comes; ``dropped``: it is answered, and does nothing;
        ``refused``: it is answered with an error."""
        self.filter: Callable[[Mapping[str, Any]], int] = lambda event: 1
        """How often an event arrives."""
        self.calls: list[Mapping[str, Any]] = []
        """All calls that were made."""
        self.drivers: list[VirtualDriver] = []
        self._masters = 0
        self._running: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        self._clock = LoopClock(self._failures.append)
        self.agents = Agents(self._make_agent, lambda spec: self.address)
        await self.start_master()
        for spec in self._specs:
            self.agents.start(spec)
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Where the present master is."""
        return self.master.address

    async def start_master(self, *, registry: Registry | None = None) -> None:
        """Let a master lead: the first, or the next one, with what the registry still knows."""
        address = MASTERS[0], MASTERS[1][self._masters]
        self._masters += 1
        self.master = Master(self._clock, address=address, settings=Settings(), registry=registry)
        self._calls = SchedulerCalls(self.master)
        application = make_application(self.master, SchedulerApi(self.master))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, *address).start()
        self.master.start()
        self.agents.attach(self.master)
        self.master_up = True

    async def lose_master(self) -> Registry:
        """Let the master die; return what its registry knows."""
        self.master_up = False
        self.cut()
        self.agents.detach()
        self.master.stop()
        await self._runner.cleanup()
        return self.master.registry.inherited()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for driver in self.drivers:
            await driver.end()
        for container in self.containers:
            container.program = Program()
        for agent in self.agents:
            agent.kill_everything(grace=0.0)
        while self._running:
            await asyncio.wait(self._running)
        self.master.stop()
        await self._runner.cleanup()
        if error is None and self._failures:
            raise self._failures[0]

    def _make_agent(self, info: AgentInfo) -> Agent:
        return Agent(info, self, self.master, self._clock, work_dir=self._folder, spawn=self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    # ------------------------------------------------------------------ what runs tasks

    async def launch(self, launch: Launch) -> SimulatedContainer:
        """Start a program."""
        program = self.programs.get(launch.task.name, Program())
        launch.sandbox.mkdir(parents=True)
        (launch.sandbox / "stderr").write_text(program.lines)
        if program.refused:
            raise ContainerLaunchError(program.refused)
        container = SimulatedContainer(self, launch, program)
        self.containers.append(container)
        self._nothing_is_used_twice()
        return container

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """Nothing is ever left."""
        return {}

    def _nothing_is_used_twice(self) -> None:
        used: dict[str, list[int]] = {}
        for container in self.running().values():
            for name, ranges in container.resources.ranges.items():
                used.setdefault(f"{container.agent}:{name}", []).extend(ranges)
        for name, numbers in used.items():
            assert len(numbers) == len(set(numbers)), f"{name} is used twice: {numbers}"

    # ------------------------------------------------------------------ what can be seen

    def running(self) -> dict[str, SimulatedContainer]:
        """Return the programs that run, by task id."""
        return {c.task_id: c for c in self.containers if c.alive}

    def program(self, name: str) -> SimulatedContainer:
        """Return the only running program of that name."""
        (found,) = (c for c in self.running().values() if c.name == name)
        return found

    def called(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the bodies of all calls of a type."""
        return [call.get(kind.lower(), {}) for call in self.calls if call["type"] == kind]

    # ------------------------------------------------------------------ faults

    @property
    def operations(self) -> Operations:
        """What operators can order."""
        return Operations(self.master)

    def cut(self) -> None:
        """Break the connections of all frameworks."""
        for driver in self.drivers:
            driver.cut()

    def disconnect(self, host: str) -> None:
        """Cut an agent off from the master."""
        Membership(self.master).disconnect(self.agents[host].info.id)

    def reconnect(self, host: str) -> None:
        """Let an agent be there again."""
        Membership(self.master).reconnect(self.agents[host].info.id)

    # ------------------------------------------------------------------ the way to the master

    def subscribe(self, info: Mapping[str, Any]) -> EventStream:
        """Make a SUBSCRIBE."""
        call: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": dict(info)}}
        if "id" in info:
            call["framework_id"] = info["id"]
        return self.master.subscribe(self._parsed(call))

    def _parsed(self, call: Mapping[str, Any]) -> Any:
        document = parse(json.dumps(call).encode(), "Call")
        assert (problem := validate_call(document)) is None, problem
        return document

    def call(self, call: Mapping[str, Any], stream_id: str) -> None:
        """Make another call."""
        call = orjson.loads(pymesos_driver.written(call))
        self.calls.append(call)
        fate = self.intercept(call)
        if fate == "refused":
            raise CallRefused(f"{call['type']} was refused with 503")
        if fate not in ("lost", "dropped"):
            try:
                self._calls.call(self._parsed(call), stream_id)
            except CallRefusedError as exc:
                raise CallRefused(exc.text) from exc
        if fate in ("lost", "unanswered"):
            raise CallUncertain("no answer")

    # ------------------------------------------------------------------ the scheduler

    @contextlib.asynccontextmanager
    async def scheduler(
        self, journal: Journal | None = None, *, teardown: bool = False, **changes: Any
    ) -> AsyncIterator[Scheduler]:
        """Return a scheduler on this cluster; with the timing of every day, unless told otherwise."""
        urls = tuple(f"http://127.0.0.1:{port}" for port in CONTROLLERS)
        settings: dict[str, Any] = {"timing": Timing(), "user": "root", "goahead_urls": urls}
        settings |= changes
        scheduler = Scheduler(
            master=f"{self.address[0]}:{self.address[1]}",
            journal=MemoryJournal() if journal is None else journal,
            framework_name="test",
            goahead_port=CONTROLLERS[len(self.drivers)],
            **settings,
        )
        with mock.patch("scheduler.service.Framework", functools.partial(VirtualFramework, self)):
            await scheduler.start()
        try:
            yield scheduler
        finally:
            await scheduler.close(teardown=teardown)
        has_not_died(scheduler)


class VirtualFramework(Framework):
    """The real thing, but for the driver's and the calls' threads."""

    def __init__(
        self,
        world: World,
        settings: FrameworkSettings,
        framework_id: str | None = None,
        figures: Figures | None = None,
    ) -> None:
        driver = functools.partial(VirtualDriver, world)
        with mock.patch.object(pymesos_driver, "MendedDriver", driver):
            super().__init__(settings, framework_id, figures)
        self._calls = self._pumped = VirtualCalls(self._driver, self.may_subscribe)

    async def start(self) -> None:
        self._driver.start()
        self._pumped.start()

    async def stop(self, *, teardown: bool) -> None:
        try:
            if teardown:
                await self._call("TEARDOWN", self._driver.send_teardown)
        finally:
            self._stopping = True
            self._arrived.set()
            await self._driver.end()
            await self._pumped.end()


class VirtualCalls(Calls):
    """The real thing, with a task in place of the thread."""

    def __init__(self, caller: Caller, may_act: Callable[[], bool]) -> None:
        super().__init__(caller, may_act)
        self._called = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._pump = asyncio.create_task(self._pump_calls())

    async def end(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    def allow(self, number: int) -> None:
        super().allow(number)
        self._called.set()

    def enqueue(self, call: Call) -> None:
        super().enqueue(call)
        self._called.set()

    async def _pump_calls(self) -> None:
        while True:
            await self._called.wait()
            self._called.clear()
            while self._waiting and self._may_call():
                self._make(self._take())
                await asyncio.sleep(0.001)


class VirtualDriver:
    """What pymesos and its mends do, without a wire."""

    def __init__(
        self, world: World, listener: Any, info: dict[str, Any], master: str, **_: Any
    ) -> None:
        self._world = world
        self._listener = listener
        self._info = dict(info)
        self._stream: EventStream | None = None
        self._sends = 0
        self._ended = False
        self._reader: asyncio.Task[None] | None = None
        world.drivers.append(self)

    @property
    def master(self) -> str:
        """Where the leading master is."""
        return "{}:{}".format(*self._world.address)

    def start(self) -> None:
        self._reader = asyncio.create_task(self._keep_up())

    async def end(self) -> None:
        self._ended = True
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._close()

    def cut(self) -> None:
        """Lose the connection."""
        self._close()

    def hear(self, kind: str, **body: Any) -> None:
        """Take an event that no master sent."""
        self._take({"type": kind, kind.lower(): body})

    def _close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.take()
            self._world.master.disconnected(stream)

    async def _keep_up(self) -> None:
        failures = 0
        while not self._ended:
            if self._world.master_up and self._listener.may_subscribe():
                self._stream = stream = self._world.subscribe(self._info)
                decoder = Decoder()
                async for chunk in stream:
                    failures = 0
                    for event in map(json.loads, decoder.feed(chunk)):
                        for _ in range(self._world.filter(event)):
                            self._take(event)
            self._close()
            self._listener.closed("the connection was closed")
            await asyncio.sleep(min(15.0, 0.5 * 2**failures))
            failures += 1

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["type"].lower()
        body = event.get(kind, {})
        if kind == "subscribed":
            self._info["id"] = body["framework_id"]
        self._listener.event(kind, body)
        self._ended = self._ended or self._listener.over

    # The methods of pymesos' driver that the framework calls.

    def make(self, call: Callable[[], object]) -> None:
        before = self._sends
        call()
        if self._sends == before:
            raise CallRefused("there is no subscription")

    def _send(self, kind: str, **body: Any) -> None:
        if self._stream is None:
            return
        self._sends += 1
        call = {"type": kind, "framework_id": self._info["id"]}
        if body:
            call[kind.lower()] = body
        self._world.call(call, self._stream.id)

    def acceptOffers(self, offer_ids: Any, operations: Any, filters: Any) -> None:
        self._send("ACCEPT", offer_ids=offer_ids, operations=operations, filters=filters)

    def declineOffer(self, offer_ids: Any, filters: Any) -> None:
        self._send("DECLINE", offer_ids=offer_ids, filters=filters)

    def answer_inverse_offers(self, offer_ids: Any, filters: Any, *, accept: bool) -> None:
        kind = "ACCEPT_INVERSE_OFFERS" if accept else "DECLINE_INVERSE_OFFERS"
        self._send(kind, inverse_offer_ids=offer_ids, filters=filters)

    def reviveOffers(self, roles: Sequence[str] = ()) -> None:
        self._send("REVIVE", **({"roles": list(roles)} if roles else {}))

    def suppressOffers(self, roles: Sequence[str] = ()) -> None:
        self._send("SUPPRESS", **({"roles": list(roles)} if roles else {}))

    def killTask(self, task_id: Any) -> None:
        self._send("KILL", task_id=task_id)

    def kill_at_once(self, task_id: Any) -> None:
        policy = {"grace_period": {"nanoseconds": 0}}
        self._send("KILL", task_id=task_id, kill_policy=policy)

    def acknowledgeStatusUpdate(self, update: Any) -> None:
        self._send("ACKNOWLEDGE", **update)

    def reconcileTasks(self, tasks: Any) -> None:
        self._send("RECONCILE", tasks=tasks)

    def send_teardown(self) -> None:
        self._send("TEARDOWN")


async def until(holds: Callable[[], bool], seconds: float = 600.0) -> None:
    """Wait until something holds, looked at ten times a second."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is outside does not tell
            await asyncio.sleep(0.1)


def launched_on(scheduler: Scheduler, graph_id: str) -> dict[str, str]:
    """Return the hosts of a graph's tasks, by name."""
    return {name: view.host for name, view in scheduler.tasks(graph_id).items()}


@dataclass
class Clockwork:
    """Reads the loop's time from a beginning."""

    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self.began
