"""A control plane whose records live in memory, and a server with clients on loopback against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiokatcp
import pytest

from katcp_iface import KatcpServer, Limits
from sdpcontroller.control import (
    AgentRecord,
    CaptureBlockState,
    CaptureDone,
    CaptureInit,
    Command,
    ConfigureProduct,
    DeconfigureProduct,
    DrainAgent,
    ExplainProduct,
    Listener,
    LookUpImage,
    MulticastGroups,
    PlanProduct,
    ProductAddress,
    ProductEvent,
    ProductEvents,
    ProductRecord,
    ProductState,
    QueueRecord,
    RestartTask,
    SetTransmission,
    ShutDown,
    StreamRecord,
    SystemRecord,
    TaskLog,
    TaskRecord,
    TaskSensor,
    UndrainAgent,
)
from sdpcontroller.draining import tasks_on
from sdpcontroller.errors import CommandError


def task(name: str, **changes: Any) -> TaskRecord:
    record = TaskRecord(
        name=name,
        kind="ingest",
        task_id=f"id-{name}",
        state="ready",
        mesos_state="TASK_RUNNING",
        host="host-1",
        resources="cpus:1.5; mem:512",
        ports={"spead": ("10.1.2.3", 7148), "http": ("host-1", 8080)},
    )
    return replace(record, **changes)


def product(name: str, **changes: Any) -> ProductRecord:
    tasks = {t.name: t for t in (task("ingest.sdp_l0.0"), task("telstate", ports={}))}
    record = ProductRecord(
        name=name, state=ProductState.IDLE, config="{}", telstate=("10.0.0.1", 6379), tasks=tasks
    )
    return replace(record, **changes)


_SYSTEM = SystemRecord("ON", "ON", "connected", "127.0.0.1:5050")


@dataclass
class FakeControl:
    """Does at once what commands say; `gate` holds configures up, `fault` breaks them."""

    records: dict[str, ProductRecord] = field(default_factory=dict)
    agent_records: list[AgentRecord] = field(default_factory=list)
    stream_records: list[StreamRecord] = field(default_factory=list)
    queue_records: Sequence[QueueRecord] = (
        QueueRecord("realtime", 100, 0, 0.0, "for products; preempts"),
        QueueRecord("batch", 0, 3, 12.5, "for postprocessing; preemptible"),
    )
    system_record: SystemRecord = _SYSTEM
    listeners: list[Listener] = field(default_factory=list)
    executed: list[Command[Any]] = field(default_factory=list)
    task = staticmethod(task)
    product = staticmethod(product)
    gate: asyncio.Event | None = None
    fault: Exception | None = None

    async def execute(self, command: Command[Any]) -> Any:
        self.executed.append(command)
        if self.fault is not None:
            raise self.fault
        match command:
            case ConfigureProduct(name, config):
                if self.gate is not None:
                    await self.gate.wait()
                name = name.replace("*", "0")
                self.put(product(name, config=config))
                return ProductAddress(name, "127.0.0.1", 5001)
            case DeconfigureProduct(name, force):
                if self.find(name).current_block is not None and not force:
                    raise CommandError(
                        f"product {name} is capturing:\nend the capture or use force"
                    )
                self.drop(name)
            case CaptureInit(name):
                blocks = {"1700000000": CaptureBlockState.CAPTURING}
                self.put(
                    replace(self.find(name), capture_blocks=blocks, current_block="1700000000")
                )
                return "1700000000"
            case CaptureDone(name):
                self.put(replace(self.find(name), capture_blocks={}, current_block=None))
                return "1700000000"
            case SetTransmission(_, stream, on):
                state = "up" if on else "down"
                self.stream_records = [
                    replace(r, state=state) if r.name == stream else r for r in self.stream_records
                ]
            case MulticastGroups(_, count):
                return f"239.192.0.8+{count - 1}"
            case DrainAgent(host, reason):
                self.set_agent(host, "draining", reason)
                return tuple(tasks_on(host, self.records))
            case UndrainAgent(host):
                self.set_agent(host, "up", "")
            case TaskLog(name, task) | RestartTask(name, task):
                self.find(name)
                return (f"{task} of {name}",)
            case ProductEvents(name, count):
                return tuple(
                    ProductEvent(1764109200.25 + n, f"event {n} of {name}") for n in range(count)
                )
            case LookUpImage(repository, tag):
                return f"{repository}@sha256:{tag}"
            case ShutDown():
                return ("host-1", "host-2")
            case PlanProduct() | ExplainProduct():
                return "fits\ningest.0 on host-1"
        return None

    def set_agent(self, host: str, state: str, reason: str) -> None:
        self.agent_records = [
            replace(r, state=state, reason=reason) if r.host == host else r
            for r in self.agent_records
        ]

    def find(self, name: str) -> ProductRecord:
        if name not in self.records:
            raise CommandError(f"there is no product {name}")
        return self.records[name]

    def put(self, record: ProductRecord) -> None:
        self.records[record.name] = record
        for listener in self.listeners:
            listener.product_changed(record)

    def drop(self, name: str) -> None:
        del self.records[name]
        for listener in self.listeners:
            listener.product_gone(name)

    def sense(self, sensor: TaskSensor) -> None:
        for listener in self.listeners:
            listener.sensor_changed(sensor)

    def set_system(self, record: SystemRecord) -> None:
        self.system_record = record
        for listener in self.listeners:
            listener.system_changed()

    def products(self) -> Mapping[str, ProductRecord]:
        return self.records

    def agents(self) -> Sequence[AgentRecord]:
        return self.agent_records

    def queues(self) -> Sequence[QueueRecord]:
        return self.queue_records

    def streams(self) -> Sequence[StreamRecord]:
        return self.stream_records

    def system(self) -> SystemRecord:
        return self.system_record

    def limits(self) -> Mapping[type[Command[Any]], float]:
        return {ConfigureProduct: 440.0, SetTransmission: 60.0}

    def listen(self, listener: Listener) -> Callable[[], None]:
        self.listeners.append(listener)
        for record in self.records.values():
            listener.product_changed(record)
        return lambda: self.listeners.remove(listener)


@pytest.fixture
def control() -> FakeControl:
    """A control plane without products, with two agents and one simulated stream."""
    return FakeControl(
        agent_records=[
            AgentRecord("host-1", "S1", "up", "cpus:4"),
            AgentRecord("host-2", "S2", "up", "cpus:8"),
        ],
        stream_records=[StreamRecord("array_1", "bcp", "239.1.1.1+3:7148", "down")],
    )


@pytest.fixture
async def server(control: FakeControl) -> AsyncIterator[KatcpServer]:
    limits = Limits(clients=8, requests=4, backlog=1 << 20)
    server = KatcpServer(control, port=0, gui_urls=[{"title": "Dashboard"}], limits=limits)
    await server.start()
    yield server
    await server.stop()


Connect = Callable[[], Awaitable[aiokatcp.Client]]


@pytest.fixture
async def connect(server: KatcpServer) -> AsyncIterator[Connect]:
    clients: list[aiokatcp.Client] = []

    async def make() -> aiokatcp.Client:
        client = await aiokatcp.Client.connect(*server.address)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
        await client.wait_closed()


@pytest.fixture
async def client(connect: Connect) -> aiokatcp.Client:
    return await connect()
