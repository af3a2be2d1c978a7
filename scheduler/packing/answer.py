"""The arrays of an answer, read back as assignments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.packing.arrays import AGENT, DEVICE, L3, NODE, NOWHERE, Ints
from scheduler.packing.cores import CoreDemand, Granted, grant
from scheduler.packing.flat import Problem
from scheduler.packing.layout import PORTS
from scheduler.placement import Assignment
from scheduler.quantities import Ranges
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where one task is, in the agent's own numbers."""

    task: int
    agent: int
    node: int | None
    cache: int | None
    devices: Sequence[int]


def assignments(problem: Problem, where: Ints, device: Ints) -> dict[str, Assignment]:
    """Turn the arrays of an answer into assignments of the tasks that have a place, by name.

    Parameters
    ----------
    where, device
        As in :class:`~scheduler.packing.arrays.Plan`.
    """
    spots = _spots(problem, where, device)
    cores = _cores(problem, spots)
    ports: dict[int, Ranges] = {}
    result: dict[str, Assignment] = {}
    for spot in spots:
        name, request = problem.tasks[spot.task]
        agent = problem.agents[spot.agent]
        if spot.agent not in ports:
            ports[spot.agent] = agent.free.ranges.get("ports", Ranges()) & PORTS
        taken = ports[spot.agent].take(len(request.ports))
        if taken:
            ports[spot.agent] -= taken
        result[name] = _assignment(name, request, agent, spot, cores.get(name), tuple(taken))
    return result


def _spots(problem: Problem, where: Ints, device: Ints) -> list[_Spot]:
    places = problem.cluster.places.tolist()
    first_node: dict[int, int] = {}
    first_cache: dict[int, int] = {}
    for number, place in enumerate(places):
        first_node.setdefault(place[AGENT], place[NODE])
        if place[L3] != NOWHERE:
            first_cache.setdefault(place[NODE], number)
    spots = []
    for task, (number, row) in enumerate(zip(where.tolist(), device.tolist(), strict=True)):
        if number == NOWHERE:
            continue
        place = places[number]
        node = None if place[NODE] == NOWHERE else place[NODE] - first_node[place[AGENT]]
        cache = None if place[L3] == NOWHERE else number - first_cache[place[NODE]]
        devices = [d - place[DEVICE] for d in row]
        spots.append(_Spot(task, place[AGENT], node, cache, devices))
    return spots


def _cores(problem: Problem, spots: Sequence[_Spot]) -> dict[str, Granted]:
    """Return the cores of all tasks that take some, by name."""
    by_node: dict[tuple[int, int], list[CoreDemand]] = {}
    for spot in spots:
        name, request = problem.tasks[spot.task]
        if spot.node is not None and (request.cores or request.numa_share):
            demand = CoreDemand(name, request, spot.cache)
            by_node.setdefault((spot.agent, spot.node), []).append(demand)
    granted: dict[str, Granted] = {}
    for (number, node), demands in by_node.items():
        agent = problem.agents[number]
        free = agent.free.ranges.get("cores", Ranges()) & agent.topology.numa[node].cores
        granted |= grant(agent.topology, node, free, demands)
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
    numbers = {volume.name: n for n, volume in enumerate(topology.volumes)}
    volumes = tuple(numbers[volume.name] for volume in request.volumes)
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
        nics=tuple(d - len(topology.gpus) for d in spot.devices[n_gpus:n_devices]),
        volumes=volumes,
        numa_mem=node is not None and topology.numa[node].mem_mib is not None,
        volume_disk=tuple(topology.volumes[v].disk_mib is not None for v in volumes),
        held_cores=() if granted is None else granted.held,
        whole_gpu_mem=_whole_gpu_mem(request, agent, gpus),
    )


def _whole_gpu_mem(
    request: TaskRequest, agent: AgentSnapshot, gpus: Sequence[int]
) -> tuple[int, ...]:
    """Return the memory of those GPUs that are exclusive: all of it."""
    if not any(gpu.exclusive for gpu in request.gpus):
        return ()
    free = [agent.free.scalars.get(f"gpu.{number}.mem", 0) for number in gpus]
    return tuple(mem if gpu.exclusive else 0 for gpu, mem in zip(request.gpus, free, strict=True))
