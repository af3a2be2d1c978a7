"""Agents and requests, pooled for the relaxation: what is alike is looked at together.

Requests that are equal are one *class*. Agents that are alike are one *group*: of the same shape (nodes,
devices and where they hang, volumes, subsystems), and where that stays small enough, with the same amounts
free. What of one kind the agents of a group have is one *pool*. Whatever can be placed on the agents can be
placed in the pools, so what does not fit in the pools fits nowhere.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from scheduler.packing.arrays import Bytes
from scheduler.packing.counting import count_common
from scheduler.packing.flat import flatten
from scheduler.packing.greedy import mark_fits
from scheduler.packing.slots import PORTS
from scheduler.quantities import Millis, Ranges
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

MOST_PAIRS: Final = 1500
"""Pairs of a class and a group; with more, agents are grouped by shape alone."""

MOST_FITS: Final = 1_000_000
"""Pairs of a class and an agent for which it is looked up whether one fits on the other."""
MOST_COPIES: Final = 40_000
"""Pairs of a class and an amount that is free, for which it is counted how many fit."""

OWN: Final = ("cpus", "mem", "disk", "ports")
COUNTLESS: Final = 10**9
"""Copies of a task that asks for nothing countable."""


@dataclass(frozen=True, slots=True)
class TaskClass:
    """Tasks that ask for the same."""

    request: TaskRequest
    tasks: tuple[str, ...]


@dataclass(slots=True)
class Pool:
    """One kind of resource of all agents of a group: of each agent, of a node of each, or of alike devices."""

    resource: str
    """As :func:`scheduler.packing.dimensions.amounts` names it."""
    members: list[Millis] = field(default_factory=list)
    """What is free in each slot."""

    @property
    def free(self) -> Millis:
        """All of it."""
        return sum(self.members)


@dataclass(frozen=True, slots=True)
class Devices:
    """Alike devices of a group: of one kind, on the same networks, at the same node."""

    networks: frozenset[str] | None
    """None for GPUs."""
    numa: int | None
    first: Pool
    """Compute, or bandwidth in."""
    second: Pool
    """Memory, or bandwidth out."""


@dataclass(slots=True)
class Group:
    """Agents that are alike."""

    agents: list[AgentSnapshot]
    own: Mapping[str, Pool]
    cores: list[Pool]
    """By node."""
    node_mem: list[Pool | None]
    """By node; None where memory is not counted by node."""
    devices: list[Devices]
    volumes: Mapping[str, Pool | None]
    """By name; None where its space is not counted."""
    copies: list[int]
    """By class: at most so many tasks of it, and nothing else, fit on the agents of the group."""


def classes_of(tasks: Mapping[str, TaskRequest]) -> list[TaskClass]:
    """Group tasks by what they ask for, in the order of their first; names of cores and ports do not matter."""
    found: dict[TaskRequest, list[str]] = {}
    for name, request in tasks.items():
        cores, ports = (tuple(map(str, range(len(of)))) for of in (request.cores, request.ports))
        found.setdefault(replace(request, cores=cores, ports=ports), []).append(name)
    return [TaskClass(request, tuple(names)) for request, names in found.items()]


def groups_of(agents: Sequence[AgentSnapshot], classes: Sequence[TaskClass]) -> list[Group] | None:
    """Group agents, as finely as :data:`MOST_PAIRS` allows; None, if even that would take too long."""
    if len(agents) * len(classes) > MOST_FITS:
        return None
    fits = fits_alone(agents, classes)
    amounts = [_amounts(agent) for agent in agents]
    exact = _grouped(
        (_shape(agent), tuple(sorted(amount.items())), fits[:, n].tobytes())
        for n, (agent, amount) in enumerate(zip(agents, amounts, strict=True))
    )
    if len(exact) * len(classes) > MOST_COPIES:
        return None
    copies = [
        [
            len(members) * copies_on(agents[members[0]], amounts[members[0]], c.request)
            if fits[i, members[0]]
            else 0
            for i, c in enumerate(classes)
        ]
        for members in exact
    ]
    merged = [[n] for n in range(len(exact))]
    if len(exact) * len(classes) > MOST_PAIRS:
        merged = _grouped(_shape(agents[members[0]]) for members in exact)
    groups = []
    for parts in merged:
        members = [n for part in parts for n in exact[part]]
        together = [sum(counts) for counts in zip(*(copies[part] for part in parts), strict=True)]
        groups.append(
            _pooled([agents[n] for n in members], [amounts[n] for n in members], together)
        )
    return groups


def _grouped(keys: Iterable[Hashable]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        found.setdefault(key, []).append(number)
    return list(found.values())


def fits_alone(agents: Sequence[AgentSnapshot], classes: Sequence[TaskClass]) -> Bytes:
    """Return (classes, agents) whether a task of that class fits on that agent with nothing beside it."""
    problem = flatten(agents, {str(n): c.request for n, c in enumerate(classes)})
    fits = np.zeros((len(classes), len(agents)), np.uint8)
    mark_fits(problem.cluster, problem.demand, problem.empty_plan(), fits)
    return fits


def _shape(agent: AgentSnapshot) -> Hashable:
    topology = agent.topology
    return (
        tuple(node.mem_mib is not None for node in topology.numa),
        tuple(gpu.numa for gpu in topology.gpus),
        tuple((frozenset(nic.networks), nic.numa) for nic in topology.nics),
        tuple((volume.name, volume.disk_mib is not None) for volume in topology.volumes),
        topology.subsystems,
    )


def _amounts(agent: AgentSnapshot) -> dict[str, Millis]:
    """Return what is free in each slot by name: as Mesos names scalars, and ``cores.N`` by node."""
    found = dict(agent.free.scalars)
    cores = agent.free.ranges.get("cores", Ranges())
    found["ports"] = 1000 * count_common(agent.free.ranges.get("ports", Ranges()), PORTS)
    for n, node in enumerate(agent.topology.numa):
        found[f"cores.{n}"] = 1000 * count_common(cores, node.cores)
    return found


def _pooled(
    agents: list[AgentSnapshot], amounts: Sequence[Mapping[str, Millis]], copies: list[int]
) -> Group:
    """Pool agents of one shape."""
    topology = agents[0].topology

    def pool(resource: str, *names: str) -> Pool:
        return Pool(resource, [amount.get(name, 0) for amount in amounts for name in names])

    alike: dict[tuple[frozenset[str] | None, int | None], list[str]] = {}
    for n, gpu in enumerate(topology.gpus):
        alike.setdefault((None, gpu.numa), []).append(f"gpu.{n}")
    for n, nic in enumerate(topology.nics):
        alike.setdefault((frozenset(nic.networks), nic.numa), []).append(f"nic.{n}")
    devices = []
    for (networks, numa), names in alike.items():
        ways = ("compute", "mem") if networks is None else ("in", "out")
        first, second = (
            pool(_name(networks, way), *(f"{name}.{way}" for name in names)) for way in ways
        )
        devices.append(Devices(networks, numa, first, second))
    return Group(
        agents=agents,
        own={name: pool(name, name) for name in OWN},
        cores=[pool("cores", f"cores.{n}") for n in range(len(topology.numa))],
        node_mem=[
            None if node.mem_mib is None else pool("mem on one NUMA node", f"numa.{n}.mem")
            for n, node in enumerate(topology.numa)
        ],
        devices=devices,
        volumes={
            v.name: None if v.disk_mib is None else pool(f"volume {v.name}", f"volume.{n}.disk")
            for n, v in enumerate(topology.volumes)
        },
        copies=copies,
    )


def _name(networks: frozenset[str] | None, way: str) -> str:
    if networks is None:
        return f"gpu.{way}"
    return f"bandwidth {way} of {'/'.join(sorted(networks))}"


def copies_on(agent: AgentSnapshot, amounts: Mapping[str, Millis], request: TaskRequest) -> int:
    """Return at most how many tasks that ask for this, and nothing else, fit on an agent."""
    return min(_rooms(agent, amounts, request).values())


def limit_of(groups: Sequence[Group], task_class: TaskClass) -> tuple[str, int] | None:
    """Name the one resource that has room for the fewest tasks of a class, and for how many.

    None, if every resource by itself has room for all of them.
    """
    count = len(task_class.tasks)
    totals: dict[str, int] = {}
    for group in groups:
        for agent in group.agents:
            rooms = _rooms(agent, _amounts(agent), task_class.request)
            for resource, room in rooms.items():
                totals[resource] = totals.get(resource, 0) + min(room, count)
    known = {resource: room for resource, room in totals.items() if resource not in _TOGETHER}
    fewest = min(known, key=known.__getitem__, default=None)
    if fewest is None or known[fewest] >= count:
        return None
    return fewest, known[fewest]


_TOGETHER: Final = ("one node", "one GPU", "one interface")
"""Names for what is asked of one slot together."""


def _rooms(
    agent: AgentSnapshot, amounts: Mapping[str, Millis], request: TaskRequest
) -> dict[str, int]:
    """Return how often what is asked of each resource goes into what is free, slot by slot."""
    asked = own_of(request)
    rooms = {name: _times(amounts.get(name, 0), amount) for name, amount in asked.items()}

    def least(resource: str, room: int) -> None:
        rooms[resource] = min(room, rooms.get(resource, room))

    if request.cores:
        cores = range(len(agent.topology.numa))
        per_core = 1000 * len(request.cores)
        least("cores", sum(_times(amounts[f"cores.{n}"], per_core) for n in cores))
        least("one node", sum(_node_rooms(agent, amounts, request)))
    for gpu in set(request.gpus):
        pairs = (("compute", gpu.compute), ("mem", gpu.mem))
        names = [f"gpu.{n}" for n in range(len(agent.topology.gpus))]
        times = request.gpus.count(gpu)
        least("one GPU", sum(_room(amounts, name, pairs) for name in names) // times)
        for pair in pairs:
            room = sum(_room(amounts, name, (pair,)) for name in names)
            least(f"gpu.{pair[0]}", room // times)
    for nic in set(request.nics):
        pairs = (("in", nic.bandwidth_in), ("out", nic.bandwidth_out))
        there = enumerate(agent.topology.nics)
        names = [f"nic.{n}" for n, it in there if nic.network in it.networks]
        times = request.nics.count(nic)
        least("one interface", sum(_room(amounts, name, pairs) for name in names) // times)
        for pair in pairs:
            room = sum(_room(amounts, name, (pair,)) for name in names)
            least(f"bandwidth {pair[0]} of {nic.network}", room // times)
    return rooms


def own_of(request: TaskRequest) -> dict[str, Millis]:
    """Return what a task draws from the agent as a whole, by the names of :data:`OWN`."""
    cores, ports = 1000 * len(request.cores), 1000 * len(request.ports)
    amounts = request.cpus + cores, request.mem, request.disk, ports
    return dict(zip(OWN, amounts, strict=True))


def _node_rooms(
    agent: AgentSnapshot, amounts: Mapping[str, Millis], request: TaskRequest
) -> Iterator[int]:
    for n, node in enumerate(agent.topology.numa):
        room = _times(amounts[f"cores.{n}"], 1000 * len(request.cores))
        if node.mem_mib is not None:
            room = min(room, _times(amounts.get(f"numa.{n}.mem", 0), request.mem))
        yield room


def _room(amounts: Mapping[str, Millis], device: str, asked: Iterable[tuple[str, Millis]]) -> int:
    return min(_times(amounts.get(f"{device}.{field}", 0), amount) for field, amount in asked)


def _times(free: Millis, asked: Millis) -> int:
    return COUNTLESS if asked <= 0 else min(free // asked, COUNTLESS)
