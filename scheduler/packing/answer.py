"""The arrays of an answer, read back as assignments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from scheduler.packing.arrays import AGENT, DEVICE, L3, NODE, NOWHERE, Ints
from scheduler.packing.cores import CoreDemand, Granted, grant
from scheduler.packing.flat import Problem
from scheduler.packing.layout import PORTS
from scheduler.placement import Assignment
from scheduler.quantities import Ranges
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot


class _Spot(NamedTuple):
    """Where one task is, in the agent's own numbers; NOWHERE for no node, cache or device."""

    task: int
    agent: int
    node: int
    cache: int
    devices: list[int]


def assignments(problem: Problem, where: Ints, device: Ints) -> dict[str, Assignment]:
    """Turn the arrays of an answer into assignments of the tasks that have a place, by name.

    Parameters
    ----------
    where, device
        As in :class:`~scheduler.packing.arrays.Plan`.
    """
    spots = _spots(problem, where, device)
    pools = _Pools(problem, spots)
    result: dict[str, Assignment] = {}
    for spot in spots:
        name, request = problem.tasks[spot.task]
        ports = pools.ports(spot.agent, len(request.ports)) if request.ports else ()
        granted = None
        if spot.node != NOWHERE and (request.cores or request.numa_share):
            granted = pools.cores(spot, name, len(request.cores))
        result[name] = _assignment(name, request, problem.agents[spot.agent], spot, granted, ports)
    return result


def _spots(problem: Problem, where: Ints, device: Ints) -> list[_Spot]:
    places = problem.cluster.places
    placed = np.flatnonzero(where != NOWHERE)
    here = places[where[placed]]
    node, cache = here[:, NODE], where[placed] - _first_cache(places, here[:, NODE])
    numbers = (
        here[:, AGENT],
        np.where(node == NOWHERE, NOWHERE, node - _first_node(problem, here[:, AGENT])),
        np.where(here[:, L3] == NOWHERE, NOWHERE, cache),
    )
    devices = (device[placed] - here[:, DEVICE, None]).tolist()
    columns = (column.tolist() for column in numbers)
    return list(map(_Spot, placed.tolist(), *columns, devices))


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

    def __init__(self, problem: Problem, spots: Sequence[_Spot]) -> None:
        self._problem = problem
        self._ports: dict[int, Iterator[int]] = {}
        self._alike: dict[tuple[int, int], Iterator[int]] = {}
        self._granted = self._grant(spots)
        """Cores of the nodes where it matters which one gets, by task."""

    def ports(self, agent: int, count: int) -> tuple[int, ...]:
        """Take the smallest ports of an agent."""
        if (pool := self._ports.get(agent)) is None:
            free = self._problem.agents[agent].free.ranges.get("ports", Ranges()) & PORTS
            pool = self._ports[agent] = iter(free)
        return tuple(islice(pool, count))

    def cores(self, spot: _Spot, name: str, count: int) -> Granted:
        """Take cores of a node."""
        if (granted := self._granted.get(name)) is not None:
            return granted
        key = spot.agent, spot.node
        if (pool := self._alike.get(key)) is None:
            pool = self._alike[key] = iter(self._free(*key))
        return Granted(tuple(islice(pool, count)), ())

    def _free(self, number: int, node: int) -> Ranges:
        agent = self._problem.agents[number]
        return agent.free.ranges.get("cores", Ranges()) & agent.topology.numa[node].cores

    def _grant(self, spots: Sequence[_Spot]) -> dict[str, Granted]:
        by_node: dict[tuple[int, int], list[CoreDemand]] = {}
        holds = any(request.numa_share for _, request in self._problem.tasks)
        for task, number, node, cache, _ in spots:
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
            granted |= grant(topology, node, self._free(number, node), demands)
        return granted


def _assignment(
    name: str,
    request: TaskRequest,
    agent: AgentSnapshot,
    spot: _Spot,
    granted: Granted | None,
    ports: tuple[int, ...],
) -> Assignment:
    topology = agent.topology
    n_gpus, n_devices = len(request.gpus), len(request.gpus) + len(request.nics)
    volumes: tuple[int, ...] = ()
    if request.volumes:
        numbers = {volume.name: n for n, volume in enumerate(topology.volumes)}
        volumes = tuple(numbers[volume.name] for volume in request.volumes)
    first_nic = len(topology.gpus)
    gpus = tuple(spot.devices[:n_gpus])
    node = None if granted is None else spot.node
    return Assignment(
        task=name,
        agent_id=agent.agent_id,
        host=agent.host,
        numa=node,
        cores=() if granted is None else granted.cores,
        ports=ports,
        gpus=gpus,
        nics=tuple([d - first_nic for d in spot.devices[n_gpus:n_devices]]),
        volumes=volumes,
        numa_mem=node is not None and topology.numa[node].mem_mib is not None,
        volume_disk=tuple([topology.volumes[v].disk_mib is not None for v in volumes]),
        held_cores=() if granted is None else granted.held,
        whole_gpu_mem=_whole_gpu_mem(request, agent, gpus) if gpus else (),
    )


def _whole_gpu_mem(
    request: TaskRequest, agent: AgentSnapshot, gpus: Sequence[int]
) -> tuple[int, ...]:
    """Return the memory of those GPUs that are exclusive: all of it."""
    if not any(gpu.exclusive for gpu in request.gpus):
        return ()
    free = [agent.free.scalars.get(f"gpu.{number}.mem", 0) for number in gpus]
    return tuple(mem if gpu.exclusive else 0 for gpu, mem in zip(request.gpus, free, strict=True))
