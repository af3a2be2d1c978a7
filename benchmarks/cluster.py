"""How fast the embedded cluster is: ``python -m benchmarks.cluster``.

Figures have a yardstick beside them, measured in the same minute. Times are CPU seconds, as other programs may
run on the machine.

* launch: a framework launches tasks on thousands of simulated agents, and sees and acknowledges every update.
  The cluster is a process of its own and spoken to over HTTP; its CPU time counts, and its memory at the end.
  Yardstick: as many of the same requests to an HTTP server that parses their JSON and answers 202, and the
  events made into JSON.
* offers: one allocation run that offers a thousand agents, up to the event that is ready to be sent. Yardstick:
  making JSON of that event.
* idle: a cluster with a subscribed framework that has declined everything, for a while; in percent of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import multiprocessing.connection
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from scheduler.collector import calm
from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.executors.simulated import SimulatedExecutor
from scheduler.embedded.recordio import Decoder
from scheduler.embedded.simulation import Simulation
from scheduler.embedded.virtual_loop import run
from scheduler.quantities import Ranges, Resources

CAPABILITIES = ("MULTI_ROLE", "PARTITION_AWARE", "RESERVATION_REFINEMENT", "TASK_KILLING_STATE")
MIB = 1 << 20


def make_agents(count: int) -> list[AgentSpec]:
    """Describe agents with what a heterogeneous node advertises."""
    resources = Resources(
        {"cpus": 32_000, "mem": 131_072_000, "gpu.0.compute": 1000, "gpu.0.mem": 24_576_000},
        {"cores": Ranges.parse("[0-31]"), "ports": Ranges.parse("[20000-31999]")},
    )
    attributes = {"sdp.schema": "1", "sdp.numa.0.cores": "[0-15]", "sdp.numa.1.cores": "[16-31]"}
    return [AgentSpec(f"node-{number}", resources, attributes) for number in range(count)]


# The framework


class Framework:
    """The least that launches tasks over HTTP: a few connections, requests written by hand.

    Parameters
    ----------
    port
        The cluster's.
    connections
        Calls that are on their way at the same time.
    share
        Tasks that an agent gets; 0: all agents get as many.
    """

    def __init__(self, port: int, connections: int = 8, share: int = 0) -> None:
        self._share = share
        self._port = port
        self._connections = connections
        self.calls: asyncio.PriorityQueue[tuple[bool, int, bytes]] = asyncio.PriorityQueue()
        self._count = 0
        self._workers: list[asyncio.Task[None]] = []
        self._id = ""
        self._stream_id = ""
        self.offers: list[dict[str, Any]] = []
        self.running: set[str] = set()
        self.acknowledged = 0
        self.declines = False

    async def run(self, tasks: int) -> None:
        """Launch that many tasks and return when all run and everything is acknowledged."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=64 * MIB)
        info = {
            "user": "",
            "name": "benchmark",
            "roles": ["sdp"],
            "capabilities": [{"type": name} for name in CAPABILITIES],
        }
        writer.write(self._request({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}))
        events = _events(reader)
        head = await reader.readuntil(b"\r\n\r\n")
        self._stream_id = _header(head, "Mesos-Stream-Id")
        self._workers = [asyncio.create_task(self.send_calls()) for _ in range(self._connections)]
        launched = 0
        async for event in events:
            if event["type"] == "SUBSCRIBED":
                self._id = event["subscribed"]["framework_id"]["value"]
            elif event["type"] == "OFFERS" and self.declines:
                offer_ids = [offer["id"] for offer in event["offers"]["offers"]]
                self.call("DECLINE", {"offer_ids": offer_ids, "filters": {"refuse_seconds": 1e6}})
            elif event["type"] == "OFFERS" and not launched:
                launched = self._launch(event["offers"]["offers"], tasks)
            elif event["type"] == "UPDATE":
                self._acknowledge(event["update"]["status"])
            if len(self.running) == tasks and self.acknowledged == 2 * tasks:
                break
        await self.calls.join()
        for worker in self._workers:
            worker.cancel()
        writer.close()

    def _launch(self, offers: list[dict[str, Any]], tasks: int) -> int:
        """Spread tasks over the offers."""
        share = self._share or -(-tasks // len(offers))
        launched = 0
        for offer in offers:
            count = min(share, tasks - launched)
            if count == 0:
                break
            infos = [make_task(f"t{launched + n}", offer) for n in range(count)]
            launched += count
            operation = {"type": "LAUNCH", "launch": {"task_infos": infos}}
            body = {"offer_ids": [offer["id"]], "operations": [operation]}
            self.call("ACCEPT", {**body, "filters": {"refuse_seconds": 1e6}})
        return launched

    def _acknowledge(self, status: dict[str, Any]) -> None:
        if status["state"] == "TASK_RUNNING":
            self.running.add(status["task_id"]["value"])
        self.call("ACKNOWLEDGE", {name: status[name] for name in ("agent_id", "task_id", "uuid")})
        self.acknowledged += 1

    def call(self, kind: str, body: dict[str, Any]) -> None:
        """Queue a call."""
        call = {"type": kind, "framework_id": {"value": self._id}, kind.lower(): body}
        self._count += 1  # acknowledgements go first, or updates come again after 10 s
        self.calls.put_nowait((kind != "ACKNOWLEDGE", self._count, self._request(call)))

    def _request(self, call: dict[str, Any]) -> bytes:
        body = json.dumps(call, separators=(",", ":")).encode()
        stream = f"Mesos-Stream-Id: {self._stream_id}\r\n" if self._stream_id else ""
        head = (
            f"POST /api/v1/scheduler HTTP/1.1\r\nHost: localhost\r\n{stream}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def send_calls(self) -> None:
        """Send what is queued over a connection of its own, for ever."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                _, _, request = await self.calls.get()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 202"), head
                self.calls.task_done()
        finally:
            writer.close()


def make_task(task_id: str, offer: dict[str, Any]) -> dict[str, Any]:
    """Describe a task of a usual size: some resources, an environment, labels."""
    variables = [{"name": f"SDP_VARIABLE_{n}", "value": f"value {n}"} for n in range(8)]
    return {
        "task_id": {"value": task_id},
        "name": task_id,
        "agent_id": offer["agent_id"],
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 512.0}},
        ],
        "command": {"value": "true", "environment": {"variables": variables}},
        "labels": {"labels": [{"key": "product", "value": "array_1"}]},
    }


async def _events(reader: asyncio.StreamReader) -> Any:
    """Yield the events of a chunked stream."""
    decoder = Decoder()
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        if size == 0:
            return
        chunk = await reader.readexactly(size + 2)
        for record in decoder.feed(chunk[:-2]):
            yield json.loads(record)


def _header(head: bytes, name: str) -> str:
    for line in head.decode().split("\r\n"):
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    raise ValueError(f"no {name} in {head!r}")


# Servers in processes of their own


def serve_cluster(pipe: multiprocessing.connection.Connection, agents: int) -> None:
    """Serve a simulated cluster until told to end."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            cluster = Cluster(
                make_agents(agents),
                work_dir=Path(folder),
                port=0,
                executor=SimulatedExecutor(),
                checkpoint=False,
            )
            async with cluster:
                calm()
                pipe.send(cluster.address[1])
                await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


def serve_nothing(pipe: multiprocessing.connection.Connection) -> None:
    """Parse the JSON of every request, and answer 202."""

    async def handle(request: web.Request) -> web.Response:
        json.loads(await request.read())
        return web.Response(status=202)

    async def main() -> None:
        application = web.Application()
        application.router.add_post("/api/v1/scheduler", handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.to_thread(pipe.recv)
        await runner.cleanup()

    asyncio.run(main())


class Server:
    """A server in a process of its own."""

    def __init__(self, target: Any, *arguments: Any) -> None:
        self._pipe, other = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=target, args=(other, *arguments))
        self._process.start()
        self.port: int = self._pipe.recv()
        self._seen = psutil.Process(self._process.pid)

    def cpu(self) -> float:
        """Return the CPU time that it has used, s."""
        times = self._seen.cpu_times()
        return times.user + times.system

    def resident(self) -> float:
        """Return its memory, MiB."""
        return self._seen.memory_info().rss / MIB

    def close(self) -> None:
        """End it."""
        self._pipe.send(None)
        self._process.join()


# What is measured


def measure_launch(agents: int, tasks: int, share: int) -> None:
    """Print how many tasks a second one core launches; `share` of them on an agent, 0: spread over all."""
    server = Server(serve_cluster, agents)
    try:
        before = server.cpu()
        asyncio.run(Framework(server.port, share=share).run(tasks))
        used, resident = server.cpu() - before, server.resident()
    finally:
        server.close()
    share = share or -(-tasks // agents)
    yard = measure_requests(tasks, share)
    print(f"launch: {tasks} tasks on {agents} agents, {share} at a time, running and acknowledged")
    print(
        f"  cluster   {tasks / used:8.0f} tasks/s   {used:6.2f} s CPU   {resident:.0f} MiB resident"
    )
    print(f"  yardstick {tasks / yard:8.0f} tasks/s   {yard:6.2f} s CPU   ratio {used / yard:.2f}")


def measure_requests(tasks: int, share: int) -> float:
    """Return the CPU time of the same requests without a cluster, and of the events' JSON."""
    offer = {"agent_id": {"value": "a" * 40}, "id": {"value": "o" * 40}}
    server = Server(serve_nothing)
    try:
        framework = Framework(server.port)
        for first in range(0, tasks, share):
            infos = [make_task(f"t{n}", offer) for n in range(first, min(first + share, tasks))]
            operation = {"type": "LAUNCH", "launch": {"task_infos": infos}}
            framework.call("ACCEPT", {"offer_ids": [offer["id"]], "operations": [operation]})
        uuid = {"value": "t" * 8}
        for _ in range(2 * tasks):
            framework.call("ACKNOWLEDGE", {**offer, "task_id": uuid, "uuid": "u" * 24})
        before = server.cpu()
        asyncio.run(_send_all(framework))
        used = server.cpu() - before
    finally:
        server.close()
    status = {
        "task_id": uuid,
        "state": "TASK_RUNNING",
        "agent_id": offer["agent_id"],
        "uuid": "u" * 24,
    }
    status |= {
        "container_status": {"network_infos": [{"ip_addresses": [{"ip_address": "x" * 12}]}]}
    }
    begin = time.process_time()
    for _ in range(2 * tasks):
        json.dumps({"type": "UPDATE", "update": {"status": status}})
    return used + time.process_time() - begin


async def _send_all(framework: Framework) -> None:
    workers = [asyncio.create_task(framework.send_calls()) for _ in range(8)]
    await framework.calls.join()
    for worker in workers:
        worker.cancel()


async def offer_all(agents: int) -> tuple[float, float, int]:
    """Return the CPU time of offering all agents at once, that of the event's JSON, and its bytes."""
    async with Simulation(make_agents(agents)) as cluster:
        capabilities = [{"type": name} for name in CAPABILITIES]
        info = {"user": "", "name": "b", "roles": ["sdp"], "capabilities": capabilities}
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        begin = time.process_time()
        records = cluster.master.subscribe(call).take()
        used = time.process_time() - begin
        events = [json.loads(record) for record in Decoder().feed(b"".join(records))]
        begin = time.process_time()
        text = json.dumps(events, separators=(",", ":"))
        yard = time.process_time() - begin
        assert len(events[-1]["offers"]["offers"]) == agents
        return used, yard, len(text)


def measure_offers(agents: int) -> None:
    """Print how long it takes to offer many agents."""
    used, yard, size = min(run(offer_all(agents)) for _ in range(5))
    print(f"offers: {agents} agents in one event of {size / 1e6:.1f} MB")
    print(f"  cluster   {1000 * used:8.1f} ms")
    print(f"  yardstick {1000 * yard:8.1f} ms   ratio {used / yard:.2f}")


async def stay(port: int, seconds: float) -> None:
    """Subscribe, decline everything for good, and wait."""
    framework = Framework(port, connections=1)
    framework.declines = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await framework.run(1)


def measure_idle(agents: int, seconds: float = 20.0) -> None:
    """Print what a cluster uses when nothing happens."""
    server = Server(serve_cluster, agents)
    try:
        asyncio.run(asyncio.wait_for(settle(server, seconds), 3 * seconds))
    finally:
        server.close()


async def settle(server: Server, seconds: float) -> None:
    """Let offers be declined, and measure what follows."""
    staying = asyncio.create_task(stay(server.port, 2 * seconds))
    await asyncio.sleep(seconds / 2)
    before = server.cpu()
    await asyncio.sleep(seconds)
    used = server.cpu() - before
    staying.cancel()
    await asyncio.wait([staying])
    print(f"idle: {100 * used / seconds:.2f} % of a core, with all offers of all agents declined")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description="How fast the embedded cluster is.")
    parser.add_argument("--agents", type=int, default=5000)
    parser.add_argument("--tasks", type=int, default=10_000)
    options = parser.parse_args()
    measure_offers(1000)
    for share in (0, 16):
        measure_launch(options.agents, options.tasks, share)
    measure_idle(options.agents)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
