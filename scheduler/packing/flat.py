"""A packing problem laid out in arrays, and arrays read back as assignments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.packing.arrays import (
    AGENT,
    DEVICE,
    GPU,
    MOST,
    N_CORES,
    NODE,
    NOWHERE,
    WANT,
    WANT_END,
    Cluster,
    Demand,
    Floats,
    Ints,
    Plan,
    empty_plan,
)
from scheduler.packing.layout import PORTS, Kind, Names, lay_out
from scheduler.placement import Assignment
from scheduler.quantities import Ranges
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot


@dataclass(frozen=True, slots=True)
class Problem:
    """A packing problem in arrays, with what belongs to the indices."""

    agents: Sequence[AgentSnapshot]
    tasks: Sequence[tuple[str, TaskRequest]]
    cluster: Cluster
    demand: Demand
    free: Ints
    """(slots,) what is free at the start."""

    def empty_plan(self) -> Plan:
        """Return a plan with no task placed."""
        return empty_plan(self.free, len(self.agents), self.demand)


def flatten(agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest]) -> Problem:
    """Lay agents and tasks out in arrays."""
    names = Names()
    items = tuple(tasks.items())
    rows = _Rows(names)
    for _, request in items:
        rows.add(request)
    cluster, free, means = lay_out(agents, names)
    n_nodes = len(cluster.places) - len(agents)
    demand = rows.demand(means, n_nodes, len(agents))
    return Problem(agents, items, cluster, demand, free)


def needs_node(request: TaskRequest) -> bool:
    """Whether a node must be chosen for the task: for its cores, or for a device with affinity.

    Devices with affinity of a task that pins no core hang on one common node.
    """
    return bool(
        request.cores
        or any(gpu.affinity for gpu in request.gpus)
        or any(nic.affinity for nic in request.nics)
    )


class _Rows:
    """Requests being laid out, task by task."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.own: list[tuple[int, int, int, int]] = []
        self.task: list[tuple[int, int, bool, int, int, int, int]] = []
        self.want: list[tuple[int, int, bool, int]] = []
        self.volume: list[tuple[int, int]] = []

    def add(self, request: TaskRequest) -> None:
        cores, want, volume = len(request.cores), len(self.want), len(self.volume)
        cpus = min(request.cpus + 1000 * cores, MOST)
        disk, ports = min(request.disk, MOST), len(request.ports)
        self.own.append((cpus, min(request.mem, MOST), disk, ports))
        for gpu in request.gpus:
            self.want.append((min(gpu.compute, MOST), min(gpu.mem, MOST), gpu.affinity, GPU))
        for nic in request.nics:
            bandwidth = min(nic.bandwidth_in, MOST), min(nic.bandwidth_out, MOST)
            self.want.append((*bandwidth, nic.affinity, self.names.service(nic.network)))
        for v in request.volumes:
            self.volume.append((self.names.volume(v.name), min(v.disk, MOST)))
        spans = want, len(self.want), volume, len(self.volume)
        admission = self.names.admission(request)
        self.task.append((cores, admission, needs_node(request), *spans))

    def demand(self, means: Floats, n_nodes: int, n_agents: int) -> Demand:
        own = np.array(self.own, np.int64).reshape(-1, 4)
        rows = np.array(self.task, np.int64).reshape(-1, 7)
        pinned = rows[:, 2] != 0
        first = np.where(pinned, 0, n_nodes)
        end = np.where(pinned, n_nodes, n_nodes + n_agents)
        task = np.column_stack((rows[:, :2], first, end, rows[:, 3:]))
        want = np.array(self.want, np.int64).reshape(-1, 4)
        return Demand(
            own=own,
            task=np.ascontiguousarray(task),
            want=want,
            volume=np.array(self.volume, np.int64).reshape(-1, 2),
            size=_sizes(own, task, want, means),
        )


def _sizes(own: Ints, task: Ints, want: Ints, means: Floats) -> Floats:
    """Return all that each task asks for, relative to the mean that is free in slots of that kind."""
    weights = np.divide(1, means, out=np.zeros_like(means), where=means > 0)
    on_nic = want[:, 3] != GPU
    first = np.where(on_nic, weights[Kind.NIC_IN], weights[Kind.GPU_COMPUTE])
    second = np.where(on_nic, weights[Kind.NIC_OUT], weights[Kind.GPU_MEM])
    of_want = np.append(0.0, np.cumsum(want[:, 0] * first + want[:, 1] * second))
    size: Floats = (own * weights[Kind.CPUS : Kind.PORTS + 1]).sum(axis=1)
    size += task[:, N_CORES] * weights[Kind.CORES]
    size += of_want[task[:, WANT_END]] - of_want[task[:, WANT]]
    return size


@dataclass(slots=True)
class _Pools:
    """What of an agent's cores and ports is not yet given to a task of this placement."""

    cores: Ranges
    ports: Ranges


def assignments(problem: Problem, where: Ints, device: Ints) -> dict[str, Assignment]:
    """Turn the arrays of an answer into assignments of the tasks that have a place, by name.

    Parameters
    ----------
    where, device
        As in :class:`~scheduler.packing.arrays.Plan`.
    """
    pools: dict[int, _Pools] = {}
    result: dict[str, Assignment] = {}
    places = problem.cluster.places.tolist()
    first_node: dict[int, int] = {}
    for place in places:
        first_node.setdefault(place[AGENT], place[NODE])
    for t, (number, row) in enumerate(zip(where.tolist(), device.tolist(), strict=True)):
        if number == NOWHERE:
            continue
        place = places[number]
        a = place[AGENT]
        ranges = problem.agents[a].free.ranges
        if a not in pools:
            ports = ranges.get("ports", Ranges()) & PORTS
            pools[a] = _Pools(ranges.get("cores", Ranges()), ports)
        local_node = place[NODE] - first_node[a]
        devices = [d - place[DEVICE] for d in row]
        name, request = problem.tasks[t]
        result[name] = _assignment(name, request, problem.agents[a], local_node, devices, pools[a])
    return result


def _assignment(
    name: str,
    request: TaskRequest,
    agent: AgentSnapshot,
    node: int,
    devices: Sequence[int],
    pools: _Pools,
) -> Assignment:
    topology = agent.topology
    cores: tuple[int, ...] = ()
    if request.cores:
        taken = (pools.cores & topology.numa[node].cores).take(len(request.cores))
        pools.cores -= taken
        cores = tuple(taken)
    ports = pools.ports.take(len(request.ports))
    if ports:
        pools.ports -= ports
    n_gpus, n_devices = len(request.gpus), len(request.gpus) + len(request.nics)
    volume_numbers = {volume.name: n for n, volume in enumerate(topology.volumes)}
    volumes = tuple(volume_numbers[volume.name] for volume in request.volumes)
    return Assignment(
        task=name,
        agent_id=agent.agent_id,
        host=agent.host,
        numa=node if cores else None,
        cores=cores,
        ports=tuple(ports),
        gpus=tuple(devices[:n_gpus]),
        nics=tuple(d - len(topology.gpus) for d in devices[n_gpus:n_devices]),
        volumes=volumes,
        numa_mem=bool(cores) and topology.numa[node].mem_mib is not None,
        volume_disk=tuple(topology.volumes[v].disk_mib is not None for v in volumes),
    )
