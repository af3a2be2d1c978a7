"""Is what can be placed placed, and what is called proven true? ``python -m benchmarks.packing_exact``.

Small clusters of all sorts, drawn at random: one to six agents of one to four NUMA nodes, some without
cores, with up to three GPUs and three interfaces of two networks, and graphs of up to 14 tasks, some
without cores. Most do not fit, or just so. OR-tools' CP-SAT (the extra ``benchmarks``) says of each whether
it can be placed at all: that is the yardstick, and every placement is verified besides. The exit status is
1 if an answer is wrong: a graph that can be placed and was not, or that is called proven not to fit and
does.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.packing import Instance, read_instance
from scheduler.packing import Shortage, missing, pack, violations, warm_up

ITERATIONS: Final = 100_000
SECONDS: Final = 5.0
"""Of CP-SAT, at most; it has never needed them all on instances as small as these."""
WRONG: Final = {("open", "fits"), ("proven", "fits"), ("placed", "does not fit")}


def draw(generator: random.Random, name: str) -> Instance:
    """Draw a cluster and a graph."""
    networks = ["a", "b"][: generator.randint(1, 2)]
    n_nodes = generator.choice([1, 1, 2, 2, 4])
    return read_instance(
        {
            "name": name,
            "feasible": False,
            "agents": [
                _agent(generator, f"agent{n}", n_nodes, networks)
                for n in range(generator.randint(1, 6))
            ],
            "tasks": [
                _task(generator, f"task{n}", networks) for n in range(generator.randint(1, 14))
            ],
        }
    )


def _agent(
    generator: random.Random, host: str, n_nodes: int, networks: Sequence[str]
) -> dict[str, Any]:
    between = generator.randint
    numa: list[dict[str, list[int]]] = []
    first = 0
    for _ in range(n_nodes):
        end = first + between(0, 8)
        numa.append({"cores": list(range(first, end))})
        first = end
    gpus = [
        {
            "numa": generator.randrange(n_nodes),
            "compute": generator.choice([1, 0.5, 0.25, round(generator.random(), 3)]),
            "mem": 1024 * between(0, 32),
        }
        for _ in range(between(0, 3))
    ]
    nics = [
        {
            "numa": generator.randrange(n_nodes),
            "network": generator.choice(networks),
            "in": 1000 * between(0, 100),
            "out": 1000 * between(0, 100),
        }
        for _ in range(between(0, 3))
    ]
    return {"host": host, "mem": 1024 * between(0, 64), "numa": numa, "gpus": gpus, "nics": nics}


def _task(generator: random.Random, name: str, networks: Sequence[str]) -> dict[str, Any]:
    between = generator.randint
    task: dict[str, Any] = {
        "name": name,
        "cores": generator.choice([0, 1, 1, 2, 2, 3, 4]),
        "mem": 1024 * between(0, 8),
        "affinity": generator.random() < 0.6,
    }
    if generator.random() < 0.3:
        compute = generator.choice([0.1, 0.25, 0.5, 1])
        task["gpu"] = {"compute": compute, "mem": 1024 * between(0, 8)}
    if generator.random() < 0.4:
        network = generator.choice(networks)
        task["nic"] = {
            "network": network,
            "in": 1000 * between(0, 40),
            "out": 1000 * between(0, 40),
        }
    return task


def judge(instance: Instance) -> tuple[str, str, float]:
    """Return what packing says of an instance, what CP-SAT says, and the CPU seconds of the former."""
    from benchmarks.cp_sat import solve as solve_exactly  # an extra

    begun = time.process_time()
    answer = pack(instance.agents, instance.tasks, iterations=ITERATIONS)
    seconds = time.process_time() - begun
    short = isinstance(answer, Shortage)
    placement = answer.partial if isinstance(answer, Shortage) else answer
    assert not violations(instance.agents, instance.tasks, placement)
    assert short or not missing(instance.tasks, placement)
    proven = isinstance(answer, Shortage) and answer.proven
    fits, does_not, _ = solve_exactly(instance.agents, instance.tasks, SECONDS, workers=1)
    ours = "placed" if not short else "proven" if proven else "open"
    return ours, "fits" if fits else "does not fit" if does_not else "not known", seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing_exact", description=__doc__)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    warm_up()
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(options.count):
        name = f"exact-{options.seed}-{number}"
        ours, theirs, seconds = judge(draw(random.Random(name), name))
        found.setdefault((ours, theirs), []).append(1000 * seconds)
        if (ours, theirs) in WRONG:
            print(f"WRONG: {name}: {ours}, and CP-SAT says: {theirs}", flush=True)
    print(f"{'packing':8} {'CP-SAT':14} {'n':>5} {'CPU ms, median':>15} {'max':>8}")
    for (ours, theirs), times in sorted(found.items()):
        print(
            f"{ours:8} {theirs:14} {len(times):5} {statistics.median(times):15.1f} {max(times):8.1f}"
        )
    return 1 if found.keys() & WRONG else 0


if __name__ == "__main__":
    sys.exit(main())
