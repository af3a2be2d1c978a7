"""Packing instances drawn at random: ``python -m benchmarks.instances --count 10 --seed 1 mixed-120-98 …``.

Writes one JSON object a line, in the format that :mod:`benchmarks.packing` reads. An instance is made by
drawing a placement of about four tasks for each node of a cluster, and forgetting where they are: so it is
known to be feasible. The graph is some of these tasks; the others run already, which is why so little is free.

``mixed-TASKS-LOAD``
    Cores, and either compute of the GPUs or bandwidth in, are used to LOAD per cent on every node, the rest to
    between one half and 95 % of that.
``tight-TASKS-LOAD``
    Everything is used to LOAD per cent.
``infeasible-cores``
    More cores are asked for than are free, though each task fits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.random import Generator

Document = dict[str, Any]

AGENTS: Final = 50
NODES: Final = 2
CORES: Final = 16
"""Of a node."""
FAMILIES: Final = (
    *(f"mixed-{tasks}-{load}" for tasks in (60, 120, 400) for load in (75, 85, 90, 95, 98)),
    *(f"tight-{tasks}-{load}" for tasks in (60, 120, 400) for load in (75, 85, 90)),
    "infeasible-cores",
)
MEM: Final = (512, 1024)
"""Of an agent: grains, and how much one is (MiB)."""
AMOUNTS: Final = {
    "compute": (100, 0.01),
    "mem": (80, 1024),
    "in": (1000, 100),
    "out": (1000, 100),
}
"""Of each GPU and each interface: how many grains it has, and how much one is (share, MiB, Mbit/s)."""
DEVICES: Final = {"gpu": ("compute", "mem"), "nic": ("in", "out")}
BINDING: Final = ("compute", "in")
"""What may be as scarce as cores in a mixed instance."""
LIKELY: Final = {"gpu": 0.58, "nic": 0.91}
"""How many of the tasks ask for one."""
NEAR: Final = 0.68
"""How many tasks ask that their devices hang on the node of their cores."""
SILENT: Final = {"compute": 0.0, "mem": 0.0, "in": 0.12, "out": 0.33}
"""How many of the users of a device need nothing of that amount."""


@dataclass
class Task:
    """A task of the placement that is drawn; amounts in grains."""

    agent: int
    node: int
    cores: int
    near: bool
    mem: int = 0
    draws: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    """By kind of device: the node that it hangs on, and the two amounts."""


def draw(family: str, seed: int) -> Document:
    """Draw one instance.

    Raises
    ------
    ValueError
        If there is no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family {family!r}; there are {', '.join(FAMILIES)}")
    generator = np.random.default_rng([FAMILIES.index(family), seed])
    feasible = family != "infeasible-cores"
    kind, n_tasks, load = family.split("-") if feasible else ("mixed", "240", "90")
    tasks = _placement(generator, _use(generator, kind, int(load) / 100))
    order = generator.permutation(len(tasks))
    graph, running = order[: int(n_tasks)], order[int(n_tasks) :]
    if not feasible:  # most of the graph's own room is taken as well
        running = np.append(running, graph[: len(graph) // 3])
    return {
        "name": f"{family}-{seed}",
        "feasible": feasible,
        "agents": _free([tasks[t] for t in running]),
        "tasks": [_request(f"task{n:03}", tasks[t]) for n, t in enumerate(graph)],
    }


def _use(generator: Generator, kind: str, load: float) -> dict[str, float]:
    """Return to what part each amount is used."""
    rest = {name: load * generator.uniform(0.5, 0.95) for name in ("memory", *AMOUNTS)}
    if kind == "tight":
        rest = dict.fromkeys(rest, load)
    rest[str(generator.choice(BINDING))] = load
    return {"cores": load, **rest}


def _placement(generator: Generator, use: dict[str, float]) -> list[Task]:
    tasks: list[Task] = []
    for agent in range(AGENTS):
        here = [t for node in range(NODES) for t in _on_node(generator, agent, node, use["cores"])]
        for task, mem in zip(
            here, _parts(generator, int(MEM[0] * use["memory"]), len(here), 1), strict=True
        ):
            task.mem = mem
        for device in DEVICES:
            _share_devices(generator, here, device, use)
        tasks += here
    return tasks


def _on_node(generator: Generator, agent: int, node: int, load: float) -> list[Task]:
    used = int(CORES * load + generator.random())
    number = int(generator.integers(2, 7))
    near = generator.random(number) < NEAR
    cores = _parts(generator, used, number, 1)
    return [Task(agent, node, n, bool(a)) for n, a in zip(cores, near, strict=True)]


def _parts(generator: Generator, total: int, number: int, least: int) -> list[int]:
    """Divide a total into so many parts at random, none smaller than `least`."""
    shares = generator.dirichlet(np.full(number, 2.0)) * (total - least * number)
    ends = np.rint(np.cumsum(shares)).astype(int)
    return [least + int(n) for n in np.diff(ends, prepend=0)]


def _share_devices(
    generator: Generator, tasks: Sequence[Task], device: str, use: dict[str, float]
) -> None:
    """Divide what is used of the devices of an agent among some of its tasks."""
    users: list[list[Task]] = [[] for _ in range(NODES)]
    for task in tasks:
        if generator.random() < LIKELY[device]:
            users[task.node if task.near else int(generator.integers(NODES))].append(task)
    for node, sharing in enumerate(users):
        if not sharing:  # every device is used as much as every other
            own = [task for task in tasks if task.node == node and not _uses(users, task)]
            sharing += own[:1]
        for task in sharing:
            task.draws[device] = (node, [0, 0])
        for place, name in enumerate(DEVICES[device]):
            some = [task for task in sharing if generator.random() >= SILENT[name]]
            some = some or list(sharing[:1])
            total = int(AMOUNTS[name][0] * use[name])
            for task, part in zip(some, _parts(generator, total, len(some), 1), strict=True):
                task.draws[device][1][place] = part


def _uses(users: Sequence[Sequence[Task]], task: Task) -> bool:
    return any(user is task for sharing in users for user in sharing)


def _free(running: Sequence[Task]) -> list[Document]:
    """Return the agents with what the running tasks leave."""
    return [
        _agent(agent, [task for task in running if task.agent == agent]) for agent in range(AGENTS)
    ]


def _agent(number: int, running: Sequence[Task]) -> Document:
    cores = [
        CORES - sum(task.cores for task in running if task.node == node) for node in range(NODES)
    ]
    document: Document = {
        "host": f"agent{number:03}",
        "mem": MEM[1] * (MEM[0] - sum(task.mem for task in running)),
        "numa": [
            {"cores": list(range(CORES * node, CORES * node + free))}
            for node, free in enumerate(cores)
        ],
    }
    for device, names in DEVICES.items():
        document[f"{device}s"] = [
            {"numa": node, **({"network": "data"} if device == "nic" else {})}
            | {
                name: _amount(name, AMOUNTS[name][0] - _drawn(running, device, node, place))
                for place, name in enumerate(names)
            }
            for node in range(NODES)
        ]
    return document


def _drawn(running: Sequence[Task], device: str, node: int, place: int) -> int:
    draws = [task.draws[device] for task in running if device in task.draws]
    return sum(amounts[place] for where, amounts in draws if where == node)


def _amount(name: str, grains: int) -> float:
    return round(grains * AMOUNTS[name][1], 2)


def _request(name: str, task: Task) -> Document:
    document: Document = {
        "name": name,
        "cores": task.cores,
        "mem": task.mem * MEM[1],
        "affinity": task.near,
    }
    for device, (_, amounts) in task.draws.items():
        asked = {n: _amount(n, a) for n, a in zip(DEVICES[device], amounts, strict=True)}
        document[device] = ({"network": "data"} if device == "nic" else {}) | asked
    return document


def draw_many(families: Sequence[str], count: int, seed: int) -> Iterator[Document]:
    """Draw so many instances of each family."""
    for family in families:
        yield from (draw(family, seed + n) for n in range(count))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write instances to standard output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instances", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--count", type=int, default=10, help="instances of each family")
    parser.add_argument("--seed", type=int, default=0, help="of the first instance")
    options = parser.parse_args(arguments)
    try:
        for document in draw_many(options.families or FAMILIES, options.count, options.seed):
            print(json.dumps(document))
    except ValueError as exc:
        parser.error(str(exc))
    return 0


if __name__ == "__main__":
    sys.exit(main())
