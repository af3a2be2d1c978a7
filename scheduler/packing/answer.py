"""The arrays of an answer, read back as assignments: field by field, for all tasks together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from scheduler.packing.arrays import (
    AGENT,
    CORES,
    DEVICE,
    L3,
    MEM,
    N_CORES,
    NODE,
    NODE_SHARE,
    NOWHERE,
    PLENTY,
    WANT,
    WANT_END,
    Ints,
    Kind,
)
from scheduler.packing.cores import CoreDemand, Granted, grant
from scheduler.packing.counting import Pools, deal, starts
from scheduler.packing.flat import Problem
from scheduler.packing.slots import port_pools
from scheduler.placement import Assignment
from scheduler.quantities import Ranges
from scheduler.requests import TaskRequest

_NOTHING: Final = Ranges()

_Requests = Sequence[TaskRequest]
_Numbers = list[tuple[int, ...]]
"""By task: numbers of cores, ports or devices."""


class _Spots(NamedTuple):
    """Where the tasks are that have a place, in the agents' own numbers; column by column.

    Lists of numbers do not keep the garbage collector busy, a list of rows would.
    """

    task: list[int]
    agent: list[int]
    row: list[int]
    """Which of all nodes it is; NOWHERE for none, as for the node and the cache."""
    node: list[int]
    cache: list[int]
    pins: list[bool]
    """Whether the task has cores of the node."""
    numa_mem: list[bool]
    """Whether it draws the node's memory, which is counted there."""
    n_cores: list[int]
    n_ports: list[int]
    """How many it names."""

    @classmethod
    def of(cls, problem: Problem, task: Ints, place: Ints) -> _Spots:
        """Look up where these tasks are in these places."""
        places, asked = problem.cluster.places, problem.demand.task[task]
        here = places[place]
        agent, node = here[:, AGENT], here[:, NODE]
        in_cache = place - _first_cache(places, node)
        takes_cores = (asked[:, N_CORES] > 0) | (asked[:, NODE_SHARE] > 0)
        pins = (node != NOWHERE) & takes_cores
        columns = (
            *(task, agent, node),
            np.where(node == NOWHERE, NOWHERE, node - _first_node(problem, agent)),
            np.where(here[:, L3] == NOWHERE, NOWHERE, in_cache),
            *(pins, pins & (problem.free[here[:, CORES] + MEM] < PLENTY)),
            *(asked[:, N_CORES], problem.demand.own[task, Kind.PORTS]),
        )
        return cls(*(column.tolist() for column in columns))


def assignments(problem: Problem, where: Ints, device: Ints) -> dict[str, Assignment]:
    """Turn the arrays of an answer into assignments of the tasks that have a place, by name.

    Parameters
    ----------
    where, device
        As in :class:`~scheduler.packing.arrays.Plan`.
    """
    placed = np.flatnonzero(where != NOWHERE)
    spots = _Spots.of(problem, placed, where[placed])
    found = [problem.tasks[task] for task in spots.task]
    names, requests = [name for name, _ in found], [request for _, request in found]
    ids = [agent.agent_id for agent in problem.agents]
    hosts = [agent.host for agent in problem.agents]
    gpus, nics = _devices(problem, placed, where[placed], device[placed])
    cores, held = _cores(problem, spots)
    made = Assignment.of_columns(
        len(names),
        task=names,
        agent_id=[ids[number] for number in spots.agent],
        host=[hosts[number] for number in spots.agent],
        numa=[n if pins else None for n, pins in zip(spots.node, spots.pins, strict=True)],
        cores=cores,
        held_cores=held,
        ports=_ports(problem, spots),
        gpus=gpus,
        nics=nics,
        numa_mem=spots.numa_mem,
        **_whole_gpu_mem(problem, spots, requests, gpus),
        **_volumes(problem, spots, requests),
    )
    return dict(zip(names, made, strict=True))


def _devices(problem: Problem, task: Ints, place: Ints, device: Ints) -> tuple[_Numbers, _Numbers]:
    """Return the numbers of the GPUs and of the interfaces behind each task's wants.

    GPUs come before interfaces, among the wants of a task as among the devices of its agent.
    """
    asked, here = problem.demand.task[task], problem.cluster.places[place]
    n_wants, n_gpus = asked[:, WANT_END] - asked[:, WANT], problem.n_gpus[task]
    gpus_on = _lengths([agent.topology.gpus for agent in problem.agents])[here[:, AGENT]]
    number, want = device - here[:, DEVICE, None], np.arange(device.shape[1])
    for_gpu = want < n_gpus[:, None]
    for_nic = (want < n_wants[:, None]) & ~for_gpu
    nic_number = (number - gpus_on[:, None])[for_nic]
    return _cut(number[for_gpu], n_gpus), _cut(nic_number, n_wants - n_gpus)


def _lengths(column: Sequence[Sequence[object]]) -> Ints:
    return np.fromiter(map(len, column), np.int64, len(column))


def _cut(numbers: Ints, lengths: Ints) -> _Numbers:
    """Cut numbers that lie one behind the other into runs of these lengths."""
    if not len(numbers):
        return [()] * len(lengths)
    if lengths.max() == 1:
        alone = zip(numbers.tolist())
        return [next(alone) if n else () for n in lengths.tolist()]
    flat = tuple(numbers.tolist())
    return [flat[begin:end] for begin, end in pairwise(starts(lengths).tolist())]


def _volumes(
    problem: Problem, spots: _Spots, requests: _Requests
) -> dict[str, Sequence[tuple[int, ...]]]:
    """Return what assignments say of volumes: their numbers, and whether their space is counted."""
    if not problem.volumes:
        return {}
    numbers: _Numbers = []
    counted: list[tuple[bool, ...]] = []
    for agent, request in zip(spots.agent, requests, strict=True):
        volumes = problem.agents[agent].topology.volumes
        known = {v.name: (n, v.disk_mib is not None) for n, v in enumerate(volumes)}
        found = [known[volume.name] for volume in request.volumes]
        numbers.append(tuple([number for number, _ in found]))
        counted.append(tuple([has_size for _, has_size in found]))
    return {"volumes": numbers, "volume_disk": counted}


def _whole_gpu_mem(
    problem: Problem, spots: _Spots, requests: _Requests, gpus: _Numbers
) -> dict[str, _Numbers]:
    """Return what assignments say of the memory of those GPUs that are exclusive: all of it."""
    if not problem.exclusive:
        return {}
    found: _Numbers = []
    for agent, request, numbers in zip(spots.agent, requests, gpus, strict=True):
        exclusive = [gpu.exclusive for gpu in request.gpus]
        scalars = problem.agents[agent].free.scalars
        free = [scalars.get(f"gpu.{number}.mem", 0) for number in numbers]
        whole = [mem if alone else 0 for alone, mem in zip(exclusive, free, strict=True)]
        found.append(tuple(whole) if any(exclusive) else ())
    return {"whole_gpu_mem": found}


def _first_node(problem: Problem, agent: Ints) -> Ints:
    """Return the first node of each of these agents: nodes lie agent by agent."""
    found: Ints = np.searchsorted(problem.cluster.places[: problem.n_nodes, AGENT], agent)
    return found


def _first_cache(places: Ints, node: Ints) -> Ints:
    """Return the first place among the caches of each of these nodes."""
    n_others = int(np.count_nonzero(places[:, L3] == NOWHERE))
    found: Ints = n_others + np.searchsorted(places[n_others:, NODE], node)
    return found


def _ports(problem: Problem, spots: _Spots) -> _Numbers:
    """Return the smallest ports of its agent for each task."""
    if not any(spots.n_ports):
        return [()] * len(spots.n_ports)
    return _draw(port_pools(problem.agents), spots.agent, spots.n_ports)


def _cores(problem: Problem, spots: _Spots) -> tuple[_Numbers, _Numbers]:
    """Return the cores of each task that are named, and those that are held."""
    granted = _grant(problem, spots)
    counts = [*spots.n_cores]
    for spot in granted:
        counts[spot] = 0
    cores = _draw(problem.cores, spots.row, counts)
    held: _Numbers = [()] * len(cores)
    for spot, of_task in granted.items():
        cores[spot], held[spot] = of_task.cores, of_task.held
    return cores, held


def _draw(pools: Pools, pool: Sequence[int], counts: Sequence[int]) -> _Numbers:
    """Draw so many numbers for each task from its pool, one after the other."""
    lengths = np.array(counts, np.int64)
    return _cut(deal(pools, np.array(pool, np.int64), lengths), lengths)


def _grant(problem: Problem, spots: _Spots) -> dict[int, Granted]:
    """Choose the cores of the nodes where it matters which one gets, by number of the spot."""
    chosen = _choosy(problem, spots)
    by_node: dict[tuple[int, int], list[CoreDemand]] = {}
    number_of: dict[str, int] = {}
    for spot, number in enumerate(spots.agent) if chosen else ():
        if spots.pins[spot] and number in chosen:
            name, request = problem.tasks[spots.task[spot]]
            cache = spots.cache[spot]
            demand = CoreDemand(name, request, None if cache == NOWHERE else cache)
            by_node.setdefault((number, spots.node[spot]), []).append(demand)
            number_of[name] = spot
    granted: dict[int, Granted] = {}
    for (number, node), demands in by_node.items():
        free, cores = _free_cores(problem, number, node)
        found = grant(problem.agents[number].topology, node, free & cores, demands)
        granted |= {number_of[name]: of_task for name, of_task in found.items()}
    return granted


def _choosy(problem: Problem, spots: _Spots) -> set[int]:
    """Return the agents of which not all cores are alike, or more are taken than are named."""
    used = {*spots.agent}
    if problem.demand.task[:, NODE_SHARE].any():
        return used
    topologies = ((number, problem.agents[number].topology) for number in used)
    return {number for number, topology in topologies if topology.smt or topology.l3}


def _free_cores(problem: Problem, number: int, node: int) -> tuple[Ranges, Ranges]:
    """Return the free cores of an agent, and the cores of the node."""
    agent = problem.agents[number]
    return agent.free.ranges.get("cores", _NOTHING), agent.topology.numa[node].cores
