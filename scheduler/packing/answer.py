"""The arrays of an answer, read back as assignments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

import numpy as np

from scheduler.packing.arrays import (
    AGENT,
    CORES,
    DEVICE,
    L3,
    MEM,
    NODE,
    NOWHERE,
    PLENTY,
    Ints,
)
from scheduler.packing.cores import CoreDemand, Granted, grant
from scheduler.packing.flat import Problem
from scheduler.packing.slots import PORTS
from scheduler.placement import Assignment
from scheduler.quantities import Ranges
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

_NOTHING: Final = Ranges()


class _Spots(NamedTuple):
    """Where the tasks are that have a place, in the agents' own numbers; column by column.

    Lists of numbers do not keep the garbage collector busy, a list of rows would.
    """

    task: list[int]
    agent: list[int]
    node: list[int]
    """NOWHERE for none; so is the cache."""
    cache: list[int]
    counts_mem: list[bool]
    """Whether memory is counted by node there."""
    devices: list[list[int]]
    """By want: as the agent's GPUs and interfaces are numbered together."""

    @classmethod
    def of(cls, problem: Problem, where: Ints, device: Ints) -> _Spots:
        places = problem.cluster.places
        placed = np.flatnonzero(where != NOWHERE)
        here = places[where[placed]]
        agent, node = here[:, AGENT], here[:, NODE]
        in_cache = where[placed] - _first_cache(places, node)
        counts_mem = (node != NOWHERE) & (problem.free[here[:, CORES] + MEM] < PLENTY)
        columns = (
            placed,
            agent,
            np.where(node == NOWHERE, NOWHERE, node - _first_node(problem, agent)),
            np.where(here[:, L3] == NOWHERE, NOWHERE, in_cache),
            counts_mem,
            (device[placed] - here[:, DEVICE, None]).T,
        )
        return cls(*(column.tolist() for column in columns))


def assignments(problem: Problem, where: Ints, device: Ints) -> dict[str, Assignment]:
    """Turn the arrays of an answer into assignments of the tasks that have a place, by name.

    Parameters
    ----------
    where, device
        As in :class:`~scheduler.packing.arrays.Plan`.
    """
    spots = _Spots.of(problem, where, device)
    pools = _Pools(problem, spots)
    result: dict[str, Assignment] = {}
    for i, (task, number, node) in enumerate(zip(*spots[:3], strict=True)):
        name, request = problem.tasks[task]
        agent, wants = problem.agents[number], (request.gpus, request.nics)
        pins = node != NOWHERE and bool(request.cores or request.numa_share)
        cores, held = pools.cores(number, node, name, request) if pins else ((), ())
        gpus, nics = _devices(agent, wants, spots.devices, i) if any(wants) else ((), ())
        volumes = _volumes(agent, request) if request.volumes else ()
        result[name] = Assignment(
            task=name,
            agent_id=agent.agent_id,
            host=agent.host,
            numa=node if pins else None,
            cores=cores,
            ports=pools.ports(number, agent, len(request.ports)) if request.ports else (),
            gpus=gpus,
            nics=nics,
            volumes=volumes,
            numa_mem=pins and spots.counts_mem[i],
            volume_disk=tuple([agent.topology.volumes[v].disk_mib is not None for v in volumes]),
            held_cores=held,
            whole_gpu_mem=_whole_gpu_mem(request, agent, gpus) if gpus else (),
        )
    return result


def _devices(
    agent: AgentSnapshot,
    wants: tuple[Sequence[object], Sequence[object]],
    devices: Sequence[Sequence[int]],
    spot: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the numbers of the GPUs and of the interfaces behind a task's wants."""
    gpus, nics = wants
    first_nic, n_gpus = len(agent.topology.gpus), len(gpus)
    on_nics = devices[n_gpus : n_gpus + len(nics)]
    return (
        tuple([column[spot] for column in devices[:n_gpus]]),
        tuple([column[spot] - first_nic for column in on_nics]),
    )


def _volumes(agent: AgentSnapshot, request: TaskRequest) -> tuple[int, ...]:
    numbers = {volume.name: n for n, volume in enumerate(agent.topology.volumes)}
    return tuple(numbers[volume.name] for volume in request.volumes)


def _first_node(problem: Problem, agent: Ints) -> Ints:
    """Return the first node of each of these agents: nodes lie agent by agent."""
    found: Ints = np.searchsorted(problem.cluster.places[: problem.n_nodes, AGENT], agent)
    return found


def _first_cache(places: Ints, node: Ints) -> Ints:
    """Return the first place among the caches of each of these nodes."""
    n_others = int(np.count_nonzero(places[:, L3] == NOWHERE))
    found: Ints = n_others + np.searchsorted(places[n_others:, NODE], node)
    return found


class _Pools:
    """What of the cores and ports of the agents is not yet given to a task of this placement."""

    def __init__(self, problem: Problem, spots: _Spots) -> None:
        self._problem = problem
        self._ports: dict[int, Iterator[int]] = {}
        self._alike: dict[tuple[int, int], Iterator[int]] = {}
        self._granted = self._grant(spots)
        """Cores of the nodes where it matters which one gets, by task."""

    def ports(self, number: int, agent: AgentSnapshot, count: int) -> tuple[int, ...]:
        """Take the smallest ports of an agent."""
        if (pool := self._ports.get(number)) is None:
            free = agent.free.ranges.get("ports", _NOTHING)
            pool = self._ports[number] = _common(free, PORTS)
        return tuple(islice(pool, count))

    def cores(
        self, number: int, node: int, name: str, request: TaskRequest
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Take cores of an agent's node: those that are named, and those that are held."""
        if (granted := self._granted.get(name)) is not None:
            return granted.cores, granted.held
        key = number, node
        if (pool := self._alike.get(key)) is None:
            pool = self._alike[key] = _common(*self._free(*key))
        return tuple(islice(pool, len(request.cores))), ()

    def _free(self, number: int, node: int) -> tuple[Ranges, Ranges]:
        """Return the free cores of an agent, and the cores of the node."""
        agent = self._problem.agents[number]
        return agent.free.ranges.get("cores", _NOTHING), agent.topology.numa[node].cores

    def _grant(self, spots: _Spots) -> dict[str, Granted]:
        by_node: dict[tuple[int, int], list[CoreDemand]] = {}
        holds = any(request.numa_share for _, request in self._problem.tasks)
        for task, number, node, cache in zip(*spots[:4], strict=True):
            if node == NOWHERE:
                continue
            topology = self._problem.agents[number].topology
            if not (holds or topology.smt or topology.l3):
                continue  # all cores are alike, and no more are taken than are named
            name, request = self._problem.tasks[task]
            if request.cores or request.numa_share:
                demand = CoreDemand(name, request, None if cache == NOWHERE else cache)
                by_node.setdefault((number, node), []).append(demand)
        granted: dict[str, Granted] = {}
        for (number, node), demands in by_node.items():
            topology = self._problem.agents[number].topology
            free, cores = self._free(number, node)
            granted |= grant(topology, node, free & cores, demands)
        return granted


def _common(one: Ranges, other: Ranges) -> Iterator[int]:
    """Yield the integers of both: of ``one & other``, without a step in Python for each."""
    common = [
        range(max(begin, other_begin), min(end, other_end) + 1)
        for begin, end in one.intervals
        for other_begin, other_end in other.intervals
    ]
    return chain.from_iterable(common)


def _whole_gpu_mem(
    request: TaskRequest, agent: AgentSnapshot, gpus: Sequence[int]
) -> tuple[int, ...]:
    """Return the memory of those GPUs that are exclusive: all of it."""
    if not any(gpu.exclusive for gpu in request.gpus):
        return ()
    free = [agent.free.scalars.get(f"gpu.{number}.mem", 0) for number in gpus]
    return tuple(mem if gpu.exclusive else 0 for gpu, mem in zip(request.gpus, free, strict=True))
