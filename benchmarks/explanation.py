"""What a failed attempt costs, explanation included: ``python -m benchmarks.explanation``.

A correlator with beamformer and science pipeline of 208 tasks, on 74 agents on which images are made already,
does not fit, for one reason or another. Measured is what the scheduler does then: the search, the relaxation,
the nearest agents, and the changes that are tried, in a thread, while an event loop goes on whose pauses are
measured by a ticker (and once more with nothing to do, for what the machine itself adds). Beside the clock's
time of a pause there is the CPU time that the process used in it: where others want the machine too, that is
what the loop had to wait for the thread, and the rest is what both had to wait for the others.

The yardstick beside it is first fit in the style that telescopes use today: agents as objects with decimal
amounts, every attempt on a deep copy, an exception for every agent that a task does not fit on, and when
nothing is left, each task tried alone to find one to blame. It runs on the event loop itself, as it does there.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TypeVar

from scheduler.collector import calm
from scheduler.packing import (
    Circumstances,
    Explanation,
    Occupant,
    pack_or_explain,
    warm_up,
)
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.threads import share_interpreter
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology

Tasks = dict[str, TaskRequest]
Result = TypeVar("Result")
GPU_AGENTS, PLAIN_AGENTS = 64, 10


# ---------------------------------------------------------------------- the cluster and the graph


def cluster(count: int = GPU_AGENTS + PLAIN_AGENTS) -> list[AgentSnapshot]:
    """Make empty agents: some with a GPU on the first of two nodes and two interfaces, 10 plain ones."""
    return [_agent(number, gpus=number < count - PLAIN_AGENTS) for number in range(count)]


def _agent(number: int, *, gpus: bool) -> AgentSnapshot:
    cores = 16 if gpus else 32
    topology = Topology(
        numa=tuple(NumaNode(Ranges(((n * cores, (n + 1) * cores - 1),))) for n in range(2)),
        gpus=(Gpu(name="A100", numa=0, mem_mib=40960),) if gpus else (),
        nics=tuple(
            Nic(name=f"e{n}", networks=("cbf",) if gpus and n == 0 else ("sdp",),
                address=f"10.{n}.{number // 256}.{number % 256}", numa=n, speed_mbps=100_000)
            for n in range(2 if gpus else 1)
        ),
    )  # fmt: skip
    scalars = {"cpus": 2000 * cores, "mem": 512 * 1024 * 1000, "disk": 10**9}
    free = Resources(scalars, {"ports": Ranges(((31000, 32000),))}) + topology.resources()
    host = f"{'gpu' if gpus else 'cpu'}{number:02}"
    return AgentSnapshot(
        agent_id=host, host=host, topology=topology, free=free, address="127.0.0.1"
    )


def occupied(
    agents: Sequence[AgentSnapshot], seed: int
) -> tuple[list[AgentSnapshot], list[Occupant]]:
    """Let imaging tasks run on some agents, each with a share of a GPU."""
    chance = random.Random(seed)
    free, running = [], []
    for agent in agents:
        held = Resources()
        if agent.topology.gpus and chance.random() < 0.7:
            amounts = {
                "cpus": 4000,
                "mem": 1024 * 1000 * chance.choice((32, 64, 128)),
                "gpu.0.compute": 200,
                "gpu.0.mem": 1000 * chance.choice((8192, 16384)),
            }
            held = Resources(amounts, {"cores": agent.topology.numa[1].cores.take(4)})
            holds = {agent.agent_id: held}
            name = f"image.{agent.host}"
            running.append(Occupant(name=name, preemptible=True, holds=holds, ends_by=1e9))
        free.append(replace(agent, free=agent.free - held))
    return free, running


def graph(
    *, gpu_mem: float = 14000, bandwidth: float = 36000, cores: int = 6, disk: float = 100_000
) -> Tasks:
    """Make 208 tasks: 64 F engines, 64 X engines, 64 beam engines, 16 tasks of the science pipeline."""

    def engine(gpu: GpuRequest, way_in: float, way_out: float, n: int) -> TaskRequest:
        nic = NicRequest.of("cbf", in_mbps=way_in, out_mbps=way_out, affinity=True)
        return TaskRequest.of(
            cpus=1, cores=n, mem_mib=16384, ports=("katcp", "metrics"), gpus=[gpu], nics=[nic]
        )

    tasks: Tasks = {}
    for n in range(64):
        tasks[f"f.{n}"] = engine(
            GpuRequest.of(0.3, 6000, affinity=True), bandwidth, bandwidth, cores
        )
        tasks[f"x.{n}"] = engine(GpuRequest.of(0.3, gpu_mem, affinity=True), bandwidth, 1000, 4)
        tasks[f"beam.{n}"] = engine(GpuRequest.of(0.1, 3000, affinity=True), 20000, 4000, 2)
    for n in range(8):
        tasks[f"ingest.{n}"] = TaskRequest.of(
            cores=8, mem_mib=65536, ports=("katcp",), nics=[NicRequest.of("sdp", in_mbps=20000)]
        )
        tasks[f"writer.{n}"] = TaskRequest.of(cpus=2, mem_mib=32768, disk_mib=disk)
    return tasks


CASES: Mapping[str, Tasks] = {
    "GPU memory": graph(gpu_mem=30000),
    "bandwidth": graph(bandwidth=45000),
    "cores": graph(cores=11),
    "never": graph(gpu_mem=41000),
    "pieces": graph(gpu_mem=22000),
    "two at once": graph(gpu_mem=22000, disk=1_500_000),
}


def different(count: int) -> Tasks:
    """Make so many tasks that each ask for something else."""
    return {
        f"t.{n}": TaskRequest.of(
            cpus=1 + n % 97 / 100,
            cores=2,
            mem_mib=4000 + n,
            gpus=[GpuRequest.of(0.2 + n % 13 / 100, 9000 + n, affinity=True)],
            nics=[NicRequest.of("cbf", in_mbps=20000 + n, affinity=True)],
        )
        for n in range(count)
    }


# ---------------------------------------------------------------------- the yardstick


class InsufficientError(Exception):
    """One agent does not have enough of one thing."""


@dataclass
class CopiedAgent:
    """An agent as an object whose amounts are decimals, to be copied before anything is tried."""

    host: str
    amounts: dict[str, Decimal]
    cores: dict[int, list[int]]
    gpus: list[int | None]
    nics: list[tuple[tuple[str, ...], int | None]]

    @classmethod
    def of(cls, agent: AgentSnapshot) -> CopiedAgent:
        """Read an agent."""
        cores = agent.free.ranges["cores"]
        return cls(
            agent.host,
            {name: Decimal(amount) / 1000 for name, amount in agent.free.scalars.items()},
            {n: list(node.cores & cores) for n, node in enumerate(agent.topology.numa)},
            [gpu.numa for gpu in agent.topology.gpus],
            [(nic.networks, nic.numa) for nic in agent.topology.nics],
        )

    def allocate(self, request: TaskRequest) -> None:
        """Take what a task asks for on the first node that has it."""
        for node in self.cores:
            trial = copy.deepcopy(self)
            try:
                trial.allocate_on(request, node)
            except InsufficientError as exc:
                problem = exc
            else:
                self.__dict__ = trial.__dict__
                return
        raise problem

    def allocate_on(self, request: TaskRequest, node: int) -> None:
        """Take it on one node; what was taken before something is short stays taken."""
        if len(self.cores[node]) < len(request.cores):
            raise InsufficientError(f"{self.host}: not enough cores")
        del self.cores[node][: len(request.cores)]
        self._take("cpus", request.cpus + 1000 * len(request.cores))
        self._take("mem", request.mem)
        self._take("disk", request.disk)
        for gpu in request.gpus:
            self._take_device("gpu", [n for n, at in enumerate(self.gpus) if at == node or not gpu.affinity],
                              {"compute": gpu.compute, "mem": gpu.mem})  # fmt: skip
        for nic in request.nics:
            numbers = [
                n
                for n, (networks, at) in enumerate(self.nics)
                if nic.network in networks and (at == node or not nic.affinity)
            ]
            self._take_device("nic", numbers, {"in": nic.bandwidth_in, "out": nic.bandwidth_out})

    def _take(self, name: str, amount: int) -> None:
        wanted = Decimal(amount) / 1000
        if self.amounts.get(name, Decimal(0)) < wanted:
            raise InsufficientError(f"{self.host}: not enough {name}")
        self.amounts[name] = self.amounts.get(name, Decimal(0)) - wanted

    def _take_device(self, kind: str, numbers: Sequence[int], asked: Mapping[str, int]) -> None:
        for n in numbers:
            before = dict(self.amounts)
            try:
                for field, amount in asked.items():
                    self._take(f"{kind}.{n}.{field}", amount)
            except InsufficientError:
                self.amounts = before
            else:
                return
        raise InsufficientError(f"{self.host}: no {kind} has enough")


def first_fit(agents: Sequence[AgentSnapshot], tasks: Tasks) -> str:
    """Place tasks one after the other; at the first that fits nowhere, look for one to blame."""
    there = [CopiedAgent.of(agent) for agent in agents]
    order = sorted(tasks, key=lambda name: -len(tasks[name].cores))
    for name in order:
        if not _allocate_anywhere(there, tasks[name]):
            return _blame(agents, tasks, name)
    return "it fits"


def _allocate_anywhere(agents: Sequence[CopiedAgent], request: TaskRequest) -> bool:
    for agent in agents:
        try:
            agent.allocate(request)
        except InsufficientError:
            continue
        return True
    return False


def _blame(agents: Sequence[AgentSnapshot], tasks: Tasks, last: str) -> str:
    for name, request in tasks.items():
        if not _allocate_anywhere([CopiedAgent.of(agent) for agent in agents], request):
            return f"insufficient resources for {name}, even alone"
    return f"insufficient resources, at {last}"


# ---------------------------------------------------------------------- measuring


@dataclass
class Pauses:
    """From each tick of an event loop to the next, s: by the clock, and as CPU time of the process."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    async def watch(self) -> None:
        """Tick until cancelled."""
        wall, cpu = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now, used = time.perf_counter(), time.process_time()
            self.wall.append(now - wall)
            self.cpu.append(used - cpu)
            wall, cpu = now, used

    def __str__(self) -> str:
        """Give the 99th percentile and the longest by the clock, and the longest in CPU time, ms."""
        wall = sorted(self.wall)
        figures = wall[len(wall) * 99 // 100], wall[-1], max(self.cpu)
        return " ".join(f"{1e3 * figure:6.1f}" for figure in figures)


@dataclass(frozen=True)
class Measured:
    """What one call cost."""

    cpu: float
    wall: float
    pauses: Pauses


async def measured(call: Callable[[], Result], *, thread: bool) -> tuple[Result, Measured]:
    """Call something in a thread or on the loop, and watch the loop meanwhile."""
    pauses = Pauses()
    ticker = asyncio.create_task(pauses.watch())
    await asyncio.sleep(0.01)
    cpu, wall = time.process_time(), time.perf_counter()
    result = await asyncio.to_thread(call) if thread else call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await asyncio.sleep(0.01)
    ticker.cancel()
    return result, Measured(cpu, wall, pauses)


async def run(
    empty: Sequence[AgentSnapshot],
    cases: Mapping[str, Tasks],
    rounds: int,
    *,
    yardstick: bool,
    text: bool,
) -> Iterator[str]:
    """Measure all cases; return the lines of the table."""
    agents, running = occupied(empty, seed=1)
    around = Circumstances(capacity=empty, occupants=running)
    _, quiet = await measured(lambda: time.sleep(1), thread=True)
    lines = [
        f"{len(next(iter(cases.values())))} tasks on {len(agents)} agents, {len(running)} imaging tasks run; "
        f"pauses of the loop with nothing to do: {quiet.pauses}",
        f"{'case':12} {'verdict':10} {'left out':>8} {'helps':>5} {'tried':>5} {'CPU s':>6} {'wall s':>6} "
        "pause: 99 %, longest, CPU, ms | "
        f"first fit on copies: {'CPU s':>6} {'pause s':>8} {'ratio':>6}  says",
    ]
    for name, tasks in cases.items():
        best: tuple[Explanation, Measured] | None = None
        pauses = Pauses()
        for _ in range(rounds):
            answer, cost = await measured(
                lambda t=tasks: pack_or_explain(agents, t, around), thread=True
            )
            assert isinstance(answer, Explanation), f"{name}: it fits"
            pauses.wall += cost.pauses.wall
            pauses.cpu += cost.pauses.cpu
            if best is None or cost.cpu < best[1].cpu:
                best = answer, cost
        assert best is not None
        found, cost = best
        line = (
            f"{name:12} {found.verdict.value:10} {found.left_out:8} {len(found.remedies):5} {found.tried:5} "
            f"{cost.cpu:6.3f} {cost.wall:6.3f} {pauses!s:>29} | "
        )
        if yardstick:
            said, beside = await measured(lambda t=tasks: first_fit(agents, t), thread=False)
            longest = max(beside.pauses.wall)
            line += f"{'':20} {beside.cpu:6.2f} {longest:8.2f} {beside.cpu / cost.cpu:6.1f}  {said}"
        lines.append(line)
        if text:
            lines.append(str(found) + "\n")
    return iter(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="so many; told are the least CPU time, and the pauses of all",
    )
    parser.add_argument("--no-yardstick", action="store_true")
    parser.add_argument("--text", action="store_true", help="print the explanations too")
    parser.add_argument(
        "--different",
        type=int,
        nargs=2,
        metavar=("TASKS", "AGENTS"),
        help="instead: so many tasks that each ask for something else, on so many agents",
    )
    options = parser.parse_args()
    empty, cases = cluster(), CASES
    if options.different:
        tasks, count = options.different
        empty, cases = cluster(count), {"different": different(tasks)}
    warm_up()
    calm()  # both as a controller does
    share_interpreter()
    for line in asyncio.run(
        run(
            empty,
            cases,
            options.rounds,
            yardstick=not options.no_yardstick,
            text=options.text,
        )
    ):
        print(line)


if __name__ == "__main__":
    main()
