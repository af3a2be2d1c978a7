"""From offers to calls, once: ``python -m benchmarks.cycle meerkat-workloads.json``.

For each product of the file, on 60 agents: offers are read from the bytes in which Mesos sends them, become
snapshots, the graph is packed (in a thread), its offers are claimed, templates are filled in, and the ACCEPT
calls are written as JSON. Everything but the sending. Printed are CPU time by stage and in all, and the longest
that the event loop was kept busy without a break, in CPU time of its thread between two ticks of a ticker (in
cycles of their own: a ticker takes CPU time too). The agents were seen before, as they are in a scheduler that
runs; what snapshots of agents take that never were is printed beside. Yardsticks: reading and writing the same
bytes with :mod:`json` alone, and first fit in plain Python.

The file says what kinds of tasks there are, how many, and what they ask for together::

    {"products": [{"product", "tasks": [{"kind", "count", "total_cpus", "total_mem", "total_disk",
     "total_cores", "total_ports", "total_gpu.n", "total_gpu.compute", "total_gpu.mem",
     "total_NETWORK.in_Gbps", …}]}]}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import orjson

from benchmarks.packing_scale import plain_first_fit
from scheduler.claims import Choice, Claim, claimed
from scheduler.collector import calm
from scheduler.equipment import Equipment
from scheduler.graph import Edge, EdgeKind, LogicalGraph, TaskTemplate, instantiate
from scheduler.offers import OfferPool
from scheduler.packing import pack, warm_up
from scheduler.placement import Placement
from scheduler.pymesos_driver import written
from scheduler.quantities import Ranges, Resources
from scheduler.queues import AT_ONCE
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.runs import GraphRun
from scheduler.starting import _bind, _task_infos  # what a launch does between its journal's writes
from scheduler.tls import GoAheadTls
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology
from scheduler.topology.model import _parsed  # the memory of what agents advertise

AGENTS: Final = 60
FEEDS: Final = {"f": "sim", "xb": "f", "ingest": "xb", "cal": "ingest", "vis_writer": "cal"}
"""Whose output a kind of task takes: it names the other's endpoint, and waits until that is ready."""
TICK: Final = 0.001


def offers(n_agents: int) -> bytes:
    """Return an OFFERS event of agents with two sockets, four GPUs and four interfaces."""
    return json.dumps(
        {"offers": {"offers": [_offer(number) for number in range(n_agents)]}}
    ).encode()


def machine(number: int) -> tuple[Resources, Mapping[str, str]]:
    """Return what an agent with two sockets, four GPUs and four interfaces has, and its attributes."""
    topology = Topology(
        numa=tuple(NumaNode(Ranges(((32 * n, 32 * n + 31),))) for n in range(2)),
        smt=tuple(Ranges(((2 * core, 2 * core + 1),)) for core in range(32)),
        gpus=tuple(
            Gpu(name="A10", uuid=f"GPU-{number}-{n}", numa=n // 2, mem_mib=23028) for n in range(4)
        ),
        nics=tuple(
            Nic(
                name=f"e{n}",
                networks=("cbf", "gpucbf") if n % 2 == 0 else ("sdp_10g",),
                address=f"10.{n}.{number // 256}.{number % 256}",
                numa=n // 2,
                speed_mbps=100_000,
            )
            for n in range(4)
        ),
    )
    shared = Resources(
        {"cpus": 64_000, "mem": 1024 * 1024 * 1000, "disk": 10**9},
        {"ports": Ranges(((31000, 32000),))},
    )
    return shared + topology.resources(), topology.to_attributes()


def _offer(number: int) -> dict[str, Any]:
    resources, attributes = machine(number)
    return {
        "id": {"value": f"offer-{number}"},
        "agent_id": {"value": f"agent-{number}"},
        "hostname": f"host{number}",
        "allocation_info": {"role": "sdp"},
        "url": {
            "scheme": "http",
            "address": {"ip": f"10.9.{number // 256}.{number % 256}", "port": 5051},
        },
        "attributes": [
            {"name": n, "type": "TEXT", "text": {"value": v}} for n, v in attributes.items()
        ],
        "resources": resources.to_mesos(),
    }


def graph(product: Mapping[str, Any]) -> LogicalGraph:
    """Return a graph of the product's tasks, with templates and edges like those that are run."""
    names = {
        entry["kind"]: [f"{entry['kind']}.{n}" for n in range(entry["count"])]
        for entry in product["tasks"]
    }
    tasks = [
        _template(name, entry, names) for entry in product["tasks"] for name in names[entry["kind"]]
    ]
    edges = [
        Edge(name, source, kind)
        for entry in product["tasks"]
        for name in names[entry["kind"]]
        for source in _sources(name, names)
        for kind in (EdgeKind.PORT, EdgeKind.READY)
    ]
    return LogicalGraph("cycle", tuple(tasks), tuple(edges))


def _sources(name: str, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Return up to four tasks whose endpoints a task names."""
    kind, number = name.rsplit(".", 1)
    found = names.get(FEEDS.get(kind, ""), ())
    return [found[(int(number) + n) % len(found)] for n in range(min(len(found), 4))]


def _template(
    name: str, entry: Mapping[str, Any], names: Mapping[str, Sequence[str]]
) -> TaskTemplate:
    request = _request(entry)
    sources = [f"{{endpoint[{source}:port0]}}" for source in _sources(name, names)]
    own = [f"--{port}={{ports[{port}]}}" for port in request.ports]
    nics = [f"--{n.network}={{interface[{n.network}].address}}" for n in request.nics]
    return TaskTemplate(
        name=name,
        kind=entry["kind"],
        command=(entry["kind"], "--name={task.name}", "--cores={cores}", *own, *nics, *sources),
        env={"HOST": "{host}", "SANDBOX": "{sandbox}"},
        image=f"registry/{entry['kind']}@sha256:{'0' * 64}",
        request=request,
    )


def _request(entry: Mapping[str, Any]) -> TaskRequest:
    """Return what one task of a kind asks for."""

    def each(what: str) -> float:
        return float(entry.get(f"total_{what}", 0)) / float(entry["count"])

    networks = [key[6:-8] for key in entry if key.endswith(".in_Gbps")]
    gpus = max(round(each("gpu.n")), math.ceil(each("gpu.compute")))
    cores = round(each("cores"))
    return TaskRequest.of(
        cpus=max(each("cpus") - cores, 0),
        mem_mib=each("mem"),
        disk_mib=each("disk"),
        cores=cores,
        ports=[f"port{n}" for n in range(max(round(each("ports")), 1))],
        gpus=[
            GpuRequest.of(each("gpu.compute") / gpus, each("gpu.mem") / gpus) for _ in range(gpus)
        ],
        nics=[
            NicRequest.of(network, in_mbps=1000 * received, out_mbps=1000 * sent)
            for network in networks
            if (received := each(f"{network}.in_Gbps")) + (sent := each(f"{network}.out_Gbps"))
        ],
    )


@dataclass(frozen=True)
class Cycle:
    """What one took, CPU seconds by stage, and the calls that came of it."""

    stages: Mapping[str, float]
    calls: Sequence[bytes]

    @property
    def cpu(self) -> float:
        """CPU seconds of all stages."""
        return sum(self.stages.values())


async def cycle(event: bytes, run: GraphRun) -> Cycle:
    """Go from an event to calls, with the steps on the loop that are there in a scheduler that runs."""
    stages: dict[str, float] = {}
    begun = time.process_time()

    def stage(name: str) -> None:
        nonlocal begun
        stages[name], begun = time.process_time() - begun, time.process_time()

    document = await asyncio.to_thread(orjson.loads, event)  # as the driver's thread does
    stage("read")
    pool = OfferPool()
    pool.add(document["offers"]["offers"], 0.0)
    while pool.merge_some(AT_ONCE):  # noqa: ASYNC110 - nothing is waited for
        await asyncio.sleep(0)
    agents = pool.merged().agents
    await asyncio.sleep(0)
    stage("snapshots")
    requests = {task.name: task.request for task in run.graph.logical.tasks}
    choice = await asyncio.to_thread(_choice, agents, requests)
    stage("packing")
    claim = claimed(choice, pool)
    assert claim is not None
    await asyncio.sleep(0)
    stage("claim")
    infos = await _infos(run, claim)
    stage("tasks")
    calls = await asyncio.to_thread(
        lambda: [_written(*call) for call in infos]
    )  # as the calls' thread
    stage("written")
    return Cycle(stages, calls)


def _choice(agents: Sequence[AgentSnapshot], requests: Mapping[str, TaskRequest]) -> Choice:
    """Place a graph."""
    placement = pack(agents, requests)
    assert isinstance(placement, Placement), str(placement)
    return Choice.of(placement, agents, requests)


async def longest_busy(event: bytes, run: GraphRun) -> float:
    """Go through a cycle beside a ticker; return the most CPU time of the loop's thread between two ticks."""
    busy: list[float] = []
    ticker = asyncio.create_task(_tick(busy))
    await asyncio.sleep(5 * TICK)
    busy.clear()
    await cycle(event, run)
    ticker.cancel()
    await asyncio.gather(ticker, return_exceptions=True)
    return max(busy)


def unseen(event: bytes) -> float:
    """Return the CPU seconds of making snapshots of agents that were never seen before."""
    _parsed.cache_clear()
    pool = OfferPool()
    pool.add(json.loads(event)["offers"]["offers"], 0.0)
    begun = time.process_time()
    pool.merged()
    return time.process_time() - begun


async def _tick(busy: list[float]) -> None:
    while True:
        before = time.thread_time()
        await asyncio.sleep(TICK)
        busy.append(time.thread_time() - before)


async def _infos(run: GraphRun, claim: Claim) -> list[tuple[list[str], list[orjson.Fragment]]]:
    """Return the offers and the tasks of each call."""
    told = SimpleNamespace(
        controllers=["http://10.9.9.9:5000"], goahead_deadline=300.0, goahead_tls=GoAheadTls()
    )
    bound = await _bind(run, claim, run.entries.values(), gated=True)
    infos = await _task_infos(cast(Equipment, told), run, claim, bound)
    return [
        (list(claim.agents[place].offer_ids), list(written.values()))
        for place, written in infos.items()
    ]


def _written(offer_ids: Sequence[str], infos: Sequence[orjson.Fragment]) -> bytes:
    """Write an ACCEPT call."""
    launch = {"type": "LAUNCH", "launch": {"task_infos": infos}}
    accept = {"offer_ids": [{"value": i} for i in offer_ids], "operations": [launch]}
    return written({"type": "ACCEPT", "accept": accept})


def json_alone(event: bytes, calls: Sequence[bytes]) -> float:
    """Read and write the same bytes and nothing else; return CPU seconds."""
    documents = [json.loads(call) for call in calls]
    begun = time.process_time()
    json.loads(event)
    for document in documents:
        json.dumps(document)
    return time.process_time() - begun


def first_fit(event: bytes, graph: LogicalGraph) -> float:
    """Place the same tasks by cores and memory alone; return CPU seconds."""
    pool = OfferPool()
    pool.add(json.loads(event)["offers"]["offers"], 0.0)
    requests = {task.name: task.request for task in graph.tasks}
    return len(requests) / plain_first_fit(pool.merged().agents, requests, len(requests))


def report(product: str, logical: LogicalGraph, event: bytes, repeats: int) -> None:
    """Print what the cycle of one product takes, the median of some."""
    runs = [GraphRun(instantiate(logical, f"cycle-{n}")) for n in range(2 * repeats)]
    found = [asyncio.run(cycle(event, run)) for run in runs[:repeats]]
    found.sort(key=lambda one: one.cpu)
    median = found[len(found) // 2]
    busy = statistics.median(asyncio.run(longest_busy(event, run)) for run in runs[repeats:])
    alone = json_alone(event, median.calls)
    fit = first_fit(event, logical)
    stages = ", ".join(f"{name} {1000 * cpu:.1f}" for name, cpu in median.stages.items())
    print(
        f"{product}: {len(logical.tasks)} tasks, {1000 * median.cpu:.1f} ms CPU ({stages}); loop"
        f" busy for at most {1000 * busy:.1f} ms; snapshots of unseen agents {1000 * unseen(event):.1f} ms;"
        f" {median.cpu / alone:.1f} x json alone, {median.cpu / fit:.1f} x first fit"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cycle", description=__doc__)
    parser.add_argument("file", type=Path, metavar="meerkat-workloads.json")
    parser.add_argument("--agents", type=int, default=AGENTS)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    warm_up()
    calm()  # as the master controller does
    event = offers(options.agents)
    for product in json.loads(options.file.read_text(encoding="utf-8"))["products"]:
        report(product["product"], graph(product), event, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
