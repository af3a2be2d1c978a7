"""What is left for large graphs while small ones come and go: ``python -m benchmarks.packing_fragmentation``.

A cluster of agents of three kinds: half of them plain, a third with an interface on each node, and the scarce
ones with a GPU and an interface on each. Graphs come at random, stay for a while and go; some ask for cores,
some for interfaces too, few for GPUs. The same stream (for a seed) runs three times, each time on a cluster of
its own: placed by :func:`scheduler.packing.pack`; by first fit, which takes tasks as they are listed and agents
as they are numbered; and by best fit, which takes tasks as they are listed and leaves least over on any agent.
All three know every rule, and a graph is placed whole or refused.

Now and then is counted how many more tasks would fit, one kind at a time:

``large``
    16 cores of one node and 100 GiB.
``gpu+nic``
    8 cores, all of a GPU and 50 Gbit/s of an interface on the same node.

and what of the scarce agents is free: of their cores, and how many of them are untouched. Shown are means over
the streams after the cluster has filled, and ours as a ratio to the others'.
"""

from __future__ import annotations

import argparse
import heapq
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scheduler.packing import Shortage, pack, violations, warm_up
from scheduler.packing.answer import assignments
from scheduler.packing.arrays import FIRST, TIGHTEST
from scheduler.packing.flat import flatten
from scheduler.packing.greedy import insert_all
from scheduler.placement import Placement
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology

NODE_CORES: Final = 16
MEM: Final = 512
"""GiB of an agent."""
GIB: Final = 1024
STEPS: Final = 3000
"""Of our search, for a graph that greedy orders do not place."""
EVERY: Final = 5
"""One of so many arrivals is followed by a look at what is left."""

Tasks = dict[str, TaskRequest]
Packer = Callable[[Sequence[AgentSnapshot], Mapping[str, TaskRequest]], Placement | None]


def ours(agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest]) -> Placement | None:
    """Place as the scheduler does."""
    answer = pack(agents, tasks, iterations=STEPS)
    return None if isinstance(answer, Shortage) else answer


def by_rule(rule: int) -> Packer:
    """Return a packer that takes tasks as they are listed, each where a rule says."""

    def place(
        agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest]
    ) -> Placement | None:
        problem = flatten(agents, tasks)
        plan = problem.empty_plan()
        order = np.arange(len(tasks))
        if insert_all(problem.cluster, problem.demand, plan, order, rule):
            return None
        return Placement(assignments(problem, plan.where, plan.device))

    return place


PACKERS: Final[dict[str, Packer]] = {
    "ours": ours,
    "first fit": by_rule(FIRST),
    "best fit": by_rule(TIGHTEST),
}
LARGE: Final = TaskRequest.of(cores=NODE_CORES, mem_mib=100 * GIB)
SCARCE: Final = TaskRequest.of(
    cores=8,
    mem_mib=50 * GIB,
    gpus=[GpuRequest.of(1.0, 40 * GIB, affinity=True)],
    nics=[NicRequest.of("data", in_mbps=50_000, affinity=True)],
)


def cluster(generator: np.random.Generator, n_agents: int) -> list[AgentSnapshot]:
    """Return an idle cluster; where its agents of each kind are is drawn."""
    kinds = np.array([0] * (n_agents // 2) + [1] * (n_agents // 3), np.int64)
    kinds = generator.permutation(np.append(kinds, [2] * (n_agents - len(kinds))))
    return [_agent(f"agent{n:03}", int(kind)) for n, kind in enumerate(kinds)]


def _agent(host: str, kind: int) -> AgentSnapshot:
    nodes = [Ranges(((n * NODE_CORES, (n + 1) * NODE_CORES - 1),)) for n in range(2)]
    topology = Topology(
        numa=tuple(map(NumaNode, nodes)),
        gpus=tuple(Gpu(name="gpu", numa=n) for n in range(2 if kind == 2 else 0)),
        nics=tuple(
            Nic(name=f"nic{n}", networks=("data",), address="127.0.0.1", numa=n)
            for n in range(2 if kind else 0)
        ),
    )
    scalars = {"cpus": 1000 * 2 * NODE_CORES, "mem": 1000 * GIB * MEM}
    for n in range(len(topology.gpus)):
        scalars |= {f"gpu.{n}.compute": 1000, f"gpu.{n}.mem": 1000 * GIB * 40}
    for n in range(len(topology.nics)):
        scalars |= {f"nic.{n}.{way}": 100_000_000 for way in ("in", "out")}
    ranges = {"cores": topology.cores, "ports": Ranges(((31000, 31999),))}
    free = Resources(scalars, ranges)
    return AgentSnapshot(
        agent_id=host, host=host, topology=topology, free=free, address="127.0.0.1"
    )


def graph(generator: np.random.Generator) -> Tasks:
    """Return a graph: of ten, six ask for cores only, three for interfaces, one for GPUs."""
    kind = generator.choice(3, p=(0.6, 0.3, 0.1))
    number = int(generator.integers(3, 13))
    return {f"task{n}": _task(generator, int(kind)) for n in range(number)}


def _task(generator: np.random.Generator, kind: int) -> TaskRequest:
    cores = int(generator.integers(1, 7))
    mbps = int(generator.integers(2, 30)) * 1000
    near = bool(generator.random() < 0.5)
    return TaskRequest.of(
        cores=cores,
        mem_mib=int(generator.integers(1, 5)) * cores * GIB,
        ports=["http"],
        nics=[NicRequest.of("data", in_mbps=mbps, affinity=near)] if kind else (),
        gpus=[GpuRequest.of(int(generator.integers(2, 8)) / 10, 8 * GIB, affinity=near)]
        if kind == 2
        else (),
    )


@dataclass(frozen=True, slots=True)
class Arrival:
    """A graph that comes."""

    time: float
    leaves: float
    tasks: Tasks


def stream(generator: np.random.Generator, n_graphs: int, stay: float) -> list[Arrival]:
    """Return so many graphs, one a unit of time on average, that stay `stay` of these on average."""
    times = np.cumsum(generator.exponential(size=n_graphs))
    stays = generator.exponential(stay, n_graphs)
    return [
        Arrival(float(time), float(time + stays), graph(generator))
        for time, stays in zip(times, stays, strict=True)
    ]


class Site:
    """A cluster and what runs on it, placed in one way."""

    def __init__(self, agents: Sequence[AgentSnapshot], packer: Packer) -> None:
        self.idle = tuple(agents)
        self.agents = {agent.agent_id: agent for agent in agents}
        self.packer = packer
        self._leaving: list[tuple[float, int, Placement, Tasks]] = []

    def take(self, number: int, arrival: Arrival) -> bool:
        """Let go what leaves before, then place a graph; False, if it is refused."""
        while self._leaving and self._leaving[0][0] <= arrival.time:
            self._change(*heapq.heappop(self._leaving)[2:], Resources.__add__)
        agents = list(self.agents.values())
        placement = self.packer(agents, arrival.tasks)
        if placement is None:
            return False
        assert not violations(agents, arrival.tasks, placement)
        self._change(placement, arrival.tasks, Resources.__sub__)
        heapq.heappush(self._leaving, (arrival.leaves, number, placement, arrival.tasks))
        return True

    def _change(
        self,
        placement: Placement,
        tasks: Tasks,
        change: Callable[[Resources, Resources], Resources],
    ) -> None:
        for name, assignment in placement.assignments.items():
            agent = self.agents[assignment.agent_id]
            free = change(agent.free, assignment.resources(tasks[name]))
            self.agents[agent.agent_id] = replace(agent, free=free)

    def measures(self) -> dict[str, float]:
        """Return what is left."""
        scarce = [agent for agent in self.idle if agent.topology.gpus]
        left = [self.agents[agent.agent_id].free for agent in scarce]
        cores = sum(len(free.ranges.get("cores", ())) for free in left)
        untouched = [free == agent.free for free, agent in zip(left, scarce, strict=True)]
        return {
            "large": self._more_of(LARGE),
            "gpu+nic": self._more_of(SCARCE),
            "scarce cores": cores / sum(len(agent.topology.cores) for agent in scarce),
            "scarce untouched": sum(untouched) / len(scarce),
        }

    def _more_of(self, request: TaskRequest) -> int:
        """Count how many more such tasks would fit; as they are alike, the order does not matter."""
        tasks = {str(n): request for n in range(2 * len(self.agents))}
        problem = flatten(list(self.agents.values()), tasks)
        order, plan = np.arange(len(tasks)), problem.empty_plan()
        missed = insert_all(problem.cluster, problem.demand, plan, order, FIRST)
        return len(tasks) - missed


def run(seed: int, n_agents: int, n_graphs: int, stay: float) -> dict[str, list[dict[str, float]]]:
    """Run one stream in all ways; return what was seen, once the cluster has filled."""
    generator = np.random.default_rng(seed)
    agents = cluster(generator, n_agents)
    arrivals = stream(generator, n_graphs, stay)
    found: dict[str, list[dict[str, float]]] = {}
    for name, packer in PACKERS.items():
        site, rows = Site(agents, packer), []
        for number, arrival in enumerate(arrivals):
            placed = site.take(number, arrival)
            if arrival.time > 2 * stay:
                seen = site.measures() if number % EVERY == 0 else {}
                rows.append({"placed": float(placed), **seen})
        found[name] = rows
    return found


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each measure over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {n: float(np.mean([row[n] for row in rows if n in row])) for n in names}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.packing_fragmentation", description=__doc__
    )
    parser.add_argument("--agents", type=int, default=60)
    parser.add_argument("--graphs", type=int, default=300, help="of each stream")
    parser.add_argument("--streams", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first stream")
    parser.add_argument(
        "--stay",
        type=float,
        nargs="+",
        default=[25, 35, 45],
        help="graphs that are there, on average",
    )
    options = parser.parse_args(arguments)
    warm_up()
    for stay in options.stay:
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in PACKERS}
        for seed in range(options.seed, options.seed + options.streams):
            for name, more in run(seed, options.agents, options.graphs, stay).items():
                rows[name] += more
        print("\n".join(table(stay, {name: means(of) for name, of in rows.items()})), flush=True)
    return 0


def table(stay: float, found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield the lines for one load: the means, and the ratio of ours to each other way."""
    mine = found["ours"]
    yield f"about {stay:.0f} graphs at a time"
    yield " " * 20 + "".join(f"{name:>18}" for name in mine)
    for name, of in found.items():
        yield f"{name:20}" + "".join(f"{of[measure]:18.2f}" for measure in mine)
    for name, of in found.items():
        if of is not mine:
            ratios = (mine[m] / of[m] if of[m] else math.inf for m in mine)
            yield f"{'ours / ' + name:20}" + "".join(f"{ratio:18.2f}" for ratio in ratios)


if __name__ == "__main__":
    sys.exit(main())
