"""The cluster in a process of its own, and tasks that are light enough for thousands in it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing.connection
import os
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import aiokatcp

from scheduler import labels as carried
from scheduler.collector import calm
from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.executors import Container, Launch, Outcome, Running
from scheduler.quantities import Ranges, Resources
from scheduler.topology import Nic, NumaNode, Topology, Volume
from sdpcontroller.interface_mode.programs import StandInProgram
from sdpcontroller.workflows.resources import CBF_NETWORK, DATA_VOLUME, SDP_NETWORK


def own_address() -> str:
    """Return a loopback address of this process: what others listen on does not concern its tasks' ports."""
    low, middle, high = (os.getpid() >> shift & 0xFF for shift in (0, 8, 16))
    return f"127.{1 + high % 254}.{middle}.{low}"


HOST: Final = own_address()
CORES: Final = 128
_TERMINATED: Final = Outcome(False, "Command terminated with signal Terminated")


class Program(StandInProgram):
    """A stand-in with as many sensors more as are asked for."""

    def __init__(self, kind: str, port: int, sensors: int) -> None:
        super().__init__(kind, HOST, port)
        self.extra = [
            aiokatcp.Sensor(
                float,
                f"figure-{n:03d}",
                "A figure that changes all the time",
                initial_status=aiokatcp.Sensor.Status.NOMINAL,
            )
            for n in range(sensors)
        ]
        for sensor in self.extra:
            self.sensors.add(sensor)

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def update(self) -> None:
        """Let every sensor have a new value."""
        for sensor in self.extra:
            sensor.value = random.random()


class Task:
    """One task: a container of the executor."""

    pid = None

    def __init__(self, launch: Launch, executor: Tasks) -> None:
        self._launch = launch
        self._executor = executor
        variables = launch.command.get("environment", {}).get("variables", [])
        self._environment = {entry["name"]: entry["value"] for entry in variables}
        labels = {entry["key"]: entry["value"] for entry in launch.task.labels}
        self.kind = labels.get(carried.KIND, "")
        ports = launch.task.document.get("discovery", {}).get("ports", {}).get("ports", [])
        self._ports = {port["name"]: port["number"] for port in ports}
        self._end: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None

    async def started(self) -> Running | None:
        """Begin."""
        self._life = asyncio.create_task(self._live())
        return Running()

    async def _live(self) -> None:
        try:
            if "SDP_GO_AHEAD_TOKEN" in self._environment:
                await self._ask()
            async with contextlib.AsyncExitStack() as stack:
                for name, port in self._ports.items():
                    stack.enter_context(self._executor.held(port, self._launch.task.id))
                    await self._serve(stack, name, port)
                await asyncio.Event().wait()
        except Exception as exc:
            self._finish(Outcome(False, f"Command exited with status 1: {exc!r}"))

    async def _ask(self) -> None:
        """Ask for the go-ahead, as the wrapper does."""
        head = {"Authorization": f"Bearer {self._environment['SDP_GO_AHEAD_TOKEN']}"}
        while True:
            for url in self._environment["SDP_GO_AHEAD_URLS"].split():
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with self._executor.http.get(url, headers=head) as response:
                        if response.status == 200:
                            return
            await asyncio.sleep(0.1)

    async def _serve(self, stack: contextlib.AsyncExitStack, name: str, port: int) -> None:
        if name == "katcp":
            program = Program(self.kind, port, self._executor.sensors)
            await program.start()
            stack.push_async_callback(program.stop)
            self._executor.programs.add(program)
            stack.callback(self._executor.programs.discard, program)
        elif name == "telstate":
            command = ["--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
            process = await asyncio.create_subprocess_exec(
                "redis-server", *command, stdout=asyncio.subprocess.DEVNULL
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
        else:
            server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, port)
            stack.callback(server.close)

    def kill(self, grace: float) -> None:
        """End at once."""
        self._finish(_TERMINATED)

    def _finish(self, outcome: Outcome) -> None:
        if not self._end.done():
            self._end.set_result(outcome)

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        """There are no checks."""
        return 0

    async def wait(self) -> Outcome:
        """Return how it has ended, when nothing of it is left."""
        outcome = await asyncio.shield(self._end)
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        return outcome


class Tasks:
    """The executor.

    Parameters
    ----------
    sensors
        How many each task has besides its usual ones.
    """

    def __init__(self, sensors: int = 0) -> None:
        self.sensors = sensors
        self.programs: set[Program] = set()
        self._ports: dict[int, str] = {}
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        self.http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._updating: asyncio.Task[None] | None = None

    async def launch(self, launch: Launch) -> Task:
        """Start a task."""
        return Task(launch, self)

    async def recover(self, launches: Sequence[Launch]) -> Mapping[str, Container]:
        """There is nothing that could have been left."""
        return {}

    async def close(self) -> None:
        """End what is held."""
        self.update_every(0)
        await self.http.close()

    @contextlib.contextmanager
    def held(self, port: int, task_id: str) -> Iterator[None]:
        """Note whose a port is; no two tasks may have the same."""
        if other := self._ports.get(port):
            raise RuntimeError(f"port {port} of {task_id} is that of {other}")
        self._ports[port] = task_id
        try:
            yield
        finally:
            del self._ports[port]

    def linked(self) -> int:
        """How many programs have a client."""
        return sum(program.clients > 0 for program in self.programs)

    def update_every(self, seconds: float) -> None:
        """Let each program update all its sensors together, that often; 0: not any more."""
        if self._updating is not None:
            self._updating.cancel()
            self._updating = None
        if seconds:
            self._updating = asyncio.create_task(self._update(seconds))

    async def _update(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            programs = list(self.programs)
            for program in programs:  # one after the other, spread over the period
                program.update()
                due += seconds / len(programs)
                await asyncio.sleep(max(0.0, due - loop.time()))


def agents(count: int, ports: tuple[int, int]) -> list[AgentSpec]:
    """Describe agents with two interfaces and a volume each, which share a range of ports."""
    first, last = ports
    share = (last - first + 1) // count
    topology = Topology(
        numa=(NumaNode(Ranges(((0, CORES - 1),))),),
        nics=(
            Nic(name="e0", networks=(CBF_NETWORK,), address=HOST, numa=0, speed_mbps=400_000),
            Nic(name="e1", networks=(SDP_NETWORK,), address=HOST, numa=0, speed_mbps=400_000),
        ),
        volumes=(Volume(name=DATA_VOLUME, path=tempfile.gettempdir()),),
    )
    shared = Resources({"cpus": CORES * 1000, "mem": 2 * 1024 * 1024 * 1000, "disk": 10**9})
    shared = shared + topology.resources()
    return [
        AgentSpec(
            f"agent-{n:03d}",
            replace_ports(shared, first + n * share, first + (n + 1) * share - 1),
            topology.to_attributes(),
        )
        for n in range(count)
    ]


def replace_ports(resources: Resources, first: int, last: int) -> Resources:
    """Return resources with these ports."""
    return replace(resources, ranges={**resources.ranges, "ports": Ranges(((first, last),))})


def serve(
    pipe: multiprocessing.connection.Connection, count: int, sensors: int, ports: tuple[int, int]
) -> None:
    """Serve a cluster, and answer questions about it, until told to end: a process' whole life."""
    asyncio.run(_serve(pipe, count, sensors, ports))


async def _serve(
    pipe: multiprocessing.connection.Connection, count: int, sensors: int, ports: tuple[int, int]
) -> None:
    executor = Tasks(sensors)
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    loop.add_reader(pipe.fileno(), lambda: told.put_nowait(_read(pipe)))
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(
            agents(count, ports),
            work_dir=Path(folder),
            host=HOST,
            port=0,
            executor=executor,
            checkpoint=False,
        )
        async with cluster:
            calm()
            pipe.send("{}:{}".format(*cluster.address))
            while (question := await told.get())[0] != "end":
                pipe.send(_answer(executor, *question))
    loop.remove_reader(pipe.fileno())


def _read(pipe: multiprocessing.connection.Connection) -> tuple[str, Any]:
    """Return the next question; whoever asks may have been killed."""
    try:
        question: tuple[str, Any] = pipe.recv()
    except EOFError:
        return "end", None
    return question


def _answer(executor: Tasks, question: str, argument: Any) -> Any:
    if question == "update":
        executor.update_every(argument)
        return None
    assert question == "linked"
    return executor.linked()
