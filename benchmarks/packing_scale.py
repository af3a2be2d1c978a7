"""How many tasks are placed a second on large clusters: ``python -m benchmarks.packing_scale``.

A cluster of agents with two NUMA nodes of 16 cores, every second one with a GPU and an interface on each node,
and a graph of two tasks for each agent, no two alike. The load is the part of all cores that they take. It is
the CPU time of the whole of :func:`scheduler.packing.pack` that is measured, from snapshots and requests to
assignments of every task: layout, search, answer, and the garbage collections that fall into it. Reading offers
is not in it.

What follows from what an agent advertises is kept from call to call, so both are shown: the *first* time that
these agents are seen, and *again*, the second time. Of each the best of some runs counts, every one on agents
of its own, begun with nothing left to collect. Every answer is verified.

Beside it runs first fit, which knows cores and memory only and makes no assignments: once as one would write it
with numpy, and once in plain Python.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from scheduler.packing import missing, pack, violations, warm_up
from scheduler.placement import Placement
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology

NODE_CORES: Final = 16
MEM: Final = 512 * 1024 * 1000


def topology(*, devices: bool) -> Topology:
    """Return a machine of the cluster, with devices or without."""
    nodes = [Ranges(((n * NODE_CORES, (n + 1) * NODE_CORES - 1),)) for n in range(2)]
    return Topology(
        numa=tuple(map(NumaNode, nodes)),
        gpus=tuple(Gpu(name="gpu", numa=n) for n in range(2)) if devices else (),
        nics=tuple(
            Nic(name=f"nic{n}", networks=("data",), address="127.0.0.1", numa=n) for n in range(2)
        )
        if devices
        else (),
    )


def cluster(n_agents: int) -> list[AgentSnapshot]:
    """Return agents as they would be read from offers: each with its own objects."""
    found = []
    for number in range(n_agents):
        parts = topology(devices=number % 2 == 0)
        scalars = {"cpus": 1000 * 2 * NODE_CORES, "mem": MEM, "disk": MEM}
        for n in range(len(parts.gpus)):
            scalars |= {f"gpu.{n}.compute": 1000, f"gpu.{n}.mem": 80 * 1024 * 1000}
            scalars |= {f"nic.{n}.in": 100_000_000, f"nic.{n}.out": 100_000_000}
        free = Resources(scalars, {"cores": parts.cores, "ports": Ranges(((31000, 32000),))})
        host = f"agent{number}"
        found.append(
            AgentSnapshot(agent_id=host, host=host, topology=parts, free=free, address="127.0.0.1")
        )
    return found


def graph(agents: Sequence[AgentSnapshot], load: float, n_tasks: int) -> dict[str, TaskRequest]:
    """Return that many tasks, each unlike the others, which take that part of the cores of the cluster."""
    generator = np.random.default_rng(1)
    budget = load * len(agents) * 2 * NODE_CORES
    sizes = generator.gamma(4.0, size=n_tasks)
    cores = np.clip(np.rint(sizes * budget / sizes.sum()), 1, NODE_CORES).astype(int)
    for task in generator.permutation(n_tasks)[: max(int(cores.sum() - budget), 0)]:
        cores[task] = max(cores[task] - 1, 1)
    uses = generator.random(n_tasks) < 0.4
    return {
        f"task{number}": _task(generator, int(n), uses_devices=bool(use))
        for number, (n, use) in enumerate(zip(cores, uses, strict=True))
    }


def _task(generator: np.random.Generator, cores: int, *, uses_devices: bool) -> TaskRequest:
    share = cores / NODE_CORES * generator.uniform(0.5, 1.0)
    return TaskRequest.of(
        cores=cores,
        mem_mib=int(generator.integers(1, 1 + 8 * cores)) * 1024,
        ports=["katcp"],
        gpus=[GpuRequest.of(round(share, 3), 1024)] if uses_devices else (),
        nics=[NicRequest.of("data", in_mbps=int(90_000 * share), affinity=True)]
        if uses_devices
        else (),
    )


def placements_per_second(n_agents: int, load: float, repeats: int) -> tuple[float, float]:
    """Pack, check the answers, and return the rates in CPU time, the first time and again."""
    best = [math.inf, math.inf]
    for _ in range(repeats):
        agents = cluster(n_agents)
        tasks = graph(agents, load, 2 * n_agents)
        for turn in range(2):
            gc.collect()
            begun = time.process_time()
            answer = pack(agents, tasks)
            best[turn] = min(best[turn], time.process_time() - begun)
            assert isinstance(answer, Placement), answer
            assert not violations(agents, tasks, answer)
            assert not missing(tasks, answer)
    return 2 * n_agents / best[0], 2 * n_agents / best[1]


def numpy_first_fit(agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest]) -> float:
    """Place cores and memory by first fit, one comparison over all nodes a task; return the rate.

    The yardstick knows no devices, ports or priorities, and makes no assignments.
    """
    begun = time.process_time()
    cores = np.array([len(n.cores) for agent in agents for n in agent.topology.numa])
    mem = np.array([agent.free.scalars["mem"] for agent in agents])
    for request in sorted(tasks.values(), key=lambda request: -len(request.cores)):
        fits = (cores >= len(request.cores)) & np.repeat(mem >= request.mem, 2)
        node = int(fits.argmax())
        if not fits[node]:
            return math.nan
        cores[node] -= len(request.cores)
        mem[node // 2] -= request.mem
    return len(tasks) / (time.process_time() - begun)


def plain_first_fit(
    agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest], limit: int = 100
) -> float:
    """Do the same in plain Python, with exact quantities, for some of the tasks; return the rate."""
    some = sorted(tasks.values(), key=lambda request: -len(request.cores))[:limit]
    begun = time.process_time()
    free = {(a.agent_id, n): node.cores for a in agents for n, node in enumerate(a.topology.numa)}
    mem = {agent.agent_id: agent.free.scalars["mem"] for agent in agents}
    for request in some:
        for (agent, node), cores in free.items():
            if len(cores) >= len(request.cores) and mem[agent] >= request.mem:
                free[agent, node] = cores - cores.take(len(request.cores))
                mem[agent] -= request.mem
                break
    return len(some) / (time.process_time() - begun)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing_scale", description=__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    parser.add_argument("--loads", type=float, nargs="+", default=[0.25, 0.9])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    warm_up()
    print("placed a second, CPU time, and its ratio to both kinds of first fit")
    print(
        f"{'agents':>7} {'tasks':>6} {'load':>5} {'first':>7} {'again':>7} {'us each':>8}", end=" "
    )
    print(f"{'numpy':>8} {'ratio':>6} {'plain':>8} {'ratio':>6}")
    for load in options.loads:
        for n_agents in options.agents:
            first, again = placements_per_second(n_agents, load, options.repeats)
            agents = cluster(n_agents)
            tasks = graph(agents, load, 2 * n_agents)
            simple, plain = numpy_first_fit(agents, tasks), plain_first_fit(agents, tasks)
            print(
                f"{n_agents:7} {len(tasks):6} {load:5.0%} {first:7.0f} {again:7.0f}"
                f" {1e6 / first:8.1f} {simple:8.0f} {first / simple:6.2f} {plain:8.0f}"
                f" {first / plain:6.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
