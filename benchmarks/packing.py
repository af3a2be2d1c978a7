"""How many graphs are placed, and how fast: ``python -m benchmarks.packing FILE.jsonl.gz …``.

One JSON line for each instance, then a table by family and load with first fit and best fit beside it, and
OR-tools' CP-SAT (10 s on two cores) on some of each family. Every placement is verified by the independent
checker before it counts. CPU time is that of :func:`scheduler.packing.pack`, up to the assignments of all
tasks. What an agent has free is read once, when its offers come, not in each attempt: that is the column
*reading*, in milliseconds for all agents. Below the table is the median of all instances up to 90 % of the
load. The format of instances::

    {"name", "feasible",
     "agents": [{"host", "mem", "numa": [{"cores": [CPU, …]}, …],
                 "gpus": [{"numa", "compute", "mem"}, …],
                 "nics": [{"numa", "network", "in", "out"}, …]}, …],
     "tasks": [{"name", "cores": n, "mem", "affinity",
                "gpu": {"compute", "mem"}?, "nic": {"network", "in", "out"}?}, …]}

Memory in MiB, bandwidth in Mbit/s, amounts as they are free. Names end in ``-LOAD-NUMBER``.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scheduler.collector import calm
from scheduler.packing import ITERATIONS, Shortage, missing, pack, read_all, violations, warm_up
from scheduler.packing.arrays import FIRST, N_CORES, TIGHTEST
from scheduler.packing.flat import flatten
from scheduler.packing.greedy import insert_all
from scheduler.quantities import Millis, Ranges, Resources, millis
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology

CPUS: Final = 10**9
"""Instances do not tell of CPUs: plenty."""

Tasks = dict[str, TaskRequest]


@dataclass(frozen=True)
class Instance:
    """One packing problem."""

    name: str
    feasible: bool
    agents: tuple[AgentSnapshot, ...]
    tasks: Tasks
    read_s: float
    """CPU time to read the agents, in seconds."""

    @property
    def family(self) -> str:
        """Name without its number: kind, tasks and load."""
        return self.name.rpartition("-")[0]


@dataclass(frozen=True)
class Outcome:
    """What became of one instance."""

    instance: Instance
    placed: bool
    proven_infeasible: bool
    cpu_s: float
    wall_s: float
    first_fit: bool
    best_fit: bool
    cp_sat: bool | None
    """Whether CP-SAT placed it or proved that it does not fit; None: it was not asked."""


def read_instances(path: Path) -> Iterator[Instance]:
    """Read a file of instances, compressed or not."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield read_instance(json.loads(line))


def read_instance(document: Mapping[str, Any]) -> Instance:
    """Read one instance; agents as an offer pool has them, which reads each when its offers come."""
    agents = tuple(map(_agent, document["agents"]))
    tasks = {task["name"]: _task(task) for task in document["tasks"]}
    begun = time.process_time()
    read_all(agents)
    read_s = time.process_time() - begun
    return Instance(document["name"], bool(document["feasible"]), agents, tasks, read_s)


def _agent(document: Mapping[str, Any]) -> AgentSnapshot:
    gpus, nics = document["gpus"], document["nics"]
    topology = Topology(
        numa=tuple(NumaNode(Ranges.of_values(node["cores"])) for node in document["numa"]),
        gpus=tuple(Gpu(name="gpu", numa=gpu["numa"]) for gpu in gpus),
        nics=tuple(
            Nic(name=f"nic{n}", networks=(nic["network"],), address="127.0.0.1", numa=nic["numa"])
            for n, nic in enumerate(nics)
        ),
    )
    scalars: dict[str, Millis] = {"cpus": CPUS, "mem": millis(document["mem"])}
    for n, gpu in enumerate(gpus):
        scalars |= {f"gpu.{n}.{key}": millis(gpu[key]) for key in ("compute", "mem")}
    for n, nic in enumerate(nics):
        scalars |= {f"nic.{n}.{key}": millis(nic[key]) for key in ("in", "out")}
    host = document["host"]
    return AgentSnapshot(
        agent_id=host,
        host=host,
        topology=topology,
        free=Resources(scalars, {"cores": topology.cores}),
        address="127.0.0.1",
    )


def _task(document: Mapping[str, Any]) -> TaskRequest:
    near = document["affinity"]
    gpu, nic = document.get("gpu"), document.get("nic")
    return TaskRequest.of(
        cores=document["cores"],
        mem_mib=document["mem"],
        gpus=[GpuRequest.of(gpu["compute"], gpu["mem"], affinity=near)] if gpu else (),
        nics=[NicRequest.of(nic["network"], in_mbps=nic["in"], out_mbps=nic["out"], affinity=near)]
        if nic
        else (),
    )


def fits_greedily(instance: Instance, rule: int) -> bool:
    """Whether the yardstick places everything: most cores first, each where the rule says."""
    problem = flatten(instance.agents, instance.tasks)
    order = np.argsort(-problem.demand.task[:, N_CORES], kind="stable")
    return insert_all(problem.cluster, problem.demand, problem.empty_plan(), order, rule) == 0


def solve(instance: Instance, seed: int, iterations: int, cp_sat_seconds: float) -> Outcome:
    """Pack one instance, and check the answer; beside it, let the yardsticks try."""
    cpu, wall = time.process_time(), time.perf_counter()
    answer = pack(instance.agents, instance.tasks, seed=seed, iterations=iterations)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    placed = not isinstance(answer, Shortage)
    placement = answer.partial if isinstance(answer, Shortage) else answer
    assert not violations(instance.agents, instance.tasks, placement)
    assert not placed or not missing(instance.tasks, placement)
    proven = isinstance(answer, Shortage) and answer.proven
    first, best = fits_greedily(instance, FIRST), fits_greedily(instance, TIGHTEST)
    cp_sat = None
    if cp_sat_seconds:
        from benchmarks.cp_sat import solve as solve_exactly  # an extra

        other = solve_exactly(instance.agents, instance.tasks, cp_sat_seconds, workers=2)
        cp_sat = other[0] or other[1]
    return Outcome(instance, placed, proven, cpu, wall, first, best, cp_sat)


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the lines of the table by family."""
    yield (
        f"{'family':24} {'n':>4} {'placed':>7} {'proven':>7} {'cpu ms, median':>15} {'max':>8}"
        f" {'reading':>8} {'first fit':>10} {'best fit':>9} {'CP-SAT':>9}"
    )
    families: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        families.setdefault(outcome.instance.family, []).append(outcome)
    for family, rows in families.items():

        def share(number: int, of: int = len(rows)) -> str:
            return f"{100 * number / of:.0f} %"

        cpu = [1000 * row.cpu_s for row in rows]
        yield (
            f"{family:24} {len(rows):4} {share(sum(r.placed for r in rows)):>7} "
            f"{share(sum(r.proven_infeasible for r in rows)):>7} "
            f"{statistics.median(cpu):15.1f} {max(cpu):8.1f} "
            f"{1000 * statistics.median(row.instance.read_s for row in rows):8.2f} "
            f"{share(sum(r.first_fit for r in rows)):>10} "
            f"{share(sum(r.best_fit for r in rows)):>9} {_of_those_asked(rows):>9}"
        )


def summary(outcomes: Sequence[Outcome], most: int = 90) -> str:
    """Return the median of all instances up to a load, in per cent, of those whose name tells it."""
    cpu = [
        1000 * outcome.cpu_s
        for outcome in outcomes
        if (load := outcome.instance.family.rpartition("-")[2]).isdigit() and int(load) <= most
    ]
    if not cpu:
        return ""
    return f"up to {most} % of the load: {statistics.median(cpu):.1f} ms, median of {len(cpu)}"


def _of_those_asked(rows: Sequence[Outcome]) -> str:
    asked = [row.cp_sat for row in rows if row.cp_sat is not None]
    return f"{sum(asked)} of {len(asked)}" if asked else "–"


def cp_sat_is_there() -> bool:
    """Whether the extra ``benchmarks`` is installed."""
    return importlib.util.find_spec("ortools") is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl.gz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="steps of the search")
    parser.add_argument(
        "--cp-sat",
        type=int,
        default=1,
        metavar="N",
        help="instances of each family that CP-SAT tries, too (default 1; 0 leaves it out)",
    )
    parser.add_argument("--cp-sat-seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)
    if options.cp_sat and not cp_sat_is_there():
        print(
            "CP-SAT is left out: the extra 'benchmarks' (ortools) is not installed", file=sys.stderr
        )
        options.cp_sat = 0
    warm_up()
    calm()  # as a controller has it: a look at all that numba has loaded is 80 ms of some instance's time
    outcomes = []
    asked: Counter[str] = Counter()
    for path in options.files:
        for instance in read_instances(path):
            asked[instance.family] += 1
            seconds = options.cp_sat_seconds if asked[instance.family] <= options.cp_sat else 0.0
            outcome = solve(instance, options.seed, options.iterations, seconds)
            outcomes.append(outcome)
            line = {
                "name": instance.name,
                "placed": outcome.placed,
                "proven_infeasible": outcome.proven_infeasible,
                "cpu_s": round(outcome.cpu_s, 6),
                "wall_s": round(outcome.wall_s, 6),
            }
            print(json.dumps(line), flush=True)
    print("\n".join((*table(outcomes), summary(outcomes))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
