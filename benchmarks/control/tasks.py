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

import aiokatcp

from benchmarks.control.in_process import InProcessTask, session
from scheduler import labels as carried
from scheduler.collector import calm
from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.executors import Container, Launch
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


class Task(InProcessTask):
    """One task."""

    def __init__(self, launch: Launch, executor: Tasks) -> None:
        super().__init__(launch, HOST, executor.http)
        self._id = launch.task.id
        self._executor = executor
        labels = {entry["key"]: entry["value"] for entry in launch.task.labels}
        self.kind = labels.get(carried.KIND, "")

    async def run(self, stack: contextlib.AsyncExitStack) -> None:
        """Listen for ever."""
        for port in self.ports.values():
            stack.enter_context(self._executor.held(port, self._id))
        await self.listen(stack)
        await asyncio.Event().wait()

    def made_server(self, port: int) -> Program:
        """Return a program that the executor knows."""
        program = Program(self.kind, port, self._executor.sensors)
        self._executor.programs[port] = program
        return program


class Tasks:
    """The executor.

    Parameters
    ----------
    sensors
        How many each task has besides its usual ones.
    """

    def __init__(self, sensors: int = 0) -> None:
        self.sensors = sensors
        self.programs: dict[int, Program] = {}
        """By port."""
        self._ports: dict[int, str] = {}
        self.http = session()
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
            self.programs.pop(port, None)

    def linked(self) -> int:
        """How many programs have a client."""
        return sum(program.clients > 0 for program in self.programs.values())

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
            programs = list(self.programs.values())
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
