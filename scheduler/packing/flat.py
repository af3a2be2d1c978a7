"""A packing problem laid out in arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.packing.admission import Traffic
from scheduler.packing.arrays import (
    L3,
    MOST,
    N_CORES,
    N_WHOLE,
    NODE,
    NODE_CORES,
    NODE_SHARE,
    NOWHERE,
    WANT,
    WANT_END,
    WIDTH,
    Cluster,
    Demand,
    Floats,
    Ints,
    Plan,
    empty_plan,
)
from scheduler.packing.layout import Kind, Names, lay_out
from scheduler.packing.relations import Tickets, Ties, device_tickets, ties, zone_tickets
from scheduler.packing.siblings import Zones, rule_out, take_tickets
from scheduler.packing.ties import keep_together
from scheduler.placement import Running
from scheduler.requests import MAX_SHARE, GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot

Tasks = Sequence[tuple[str, TaskRequest]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A packing problem in arrays, with what belongs to the indices."""

    agents: Sequence[AgentSnapshot]
    tasks: Sequence[tuple[str, TaskRequest]]
    cluster: Cluster
    demand: Demand
    free: Ints
    """(slots,) what is free at the start."""

    @property
    def n_caches(self) -> int:
        """Number of L3 caches, which are the last of the places."""
        return int(np.count_nonzero(self.cluster.places[:, L3] != NOWHERE))

    @property
    def n_nodes(self) -> int:
        """Number of nodes, which are the first of the places."""
        return len(self.cluster.places) - len(self.agents) - self.n_caches

    def empty_plan(self) -> Plan:
        """Return a plan with no task placed."""
        return empty_plan(self.free, len(self.agents), self.demand)


def flatten(
    agents: Sequence[AgentSnapshot],
    tasks: Mapping[str, TaskRequest],
    running: Sequence[Running] = (),
    known: Sequence[AgentSnapshot] = (),
) -> Problem:
    """Lay agents and tasks out in arrays.

    Parameters
    ----------
    running
        What runs on the agents already.
    known
        More agents, of which nothing needs to be free, that may tell where that is.
    """
    items = tuple(tasks.items())
    siblings = [task for task in running if task.sibling and task.name not in tasks]
    everyone = (*items, *((task.name, task.request) for task in siblings))
    tied, by_zone = ties(everyone), zone_tickets(everyone)
    names = Names(Traffic.of(running))
    rows = _Rows(names, tied)
    for number, (_, request) in enumerate(items):
        rows.add(number, request)
    silent = any(not nic.multicast_loopback for agent in agents for nic in agent.topology.nics)
    by_device = device_tickets(rows.asked, loopback_off=silent)
    cluster, free, means = lay_out(agents, names, (by_zone, by_device), tied.facts)
    demand = rows.demand(means, cluster, len(agents), by_zone, by_device)
    if siblings:
        places = Zones(agents, (*agents, *known), [task.agent_id for task in siblings])
        take_tickets(cluster, free, by_zone, places, len(names.volumes), len(items))
        rule_out(cluster, demand, tied, places, len(items))
    if tied.facts:
        cluster, demand = keep_together(cluster, demand, free, tied)
    return Problem(agents, items, cluster, demand, free)


def needs_node(request: TaskRequest) -> bool:
    """Whether a node must be chosen for the task: for its cores, or for a device with affinity.

    Devices with affinity of a task that pins no core hang on one common node.
    """
    if request.cores or request.numa_share:
        return True
    return any(gpu.affinity for gpu in request.gpus) or any(nic.affinity for nic in request.nics)


NODES, AGENTS, CACHES = range(3)
"""Where a task looks for its place."""


class _Rows:
    """Requests being laid out, task by task.

    Rows lie one behind the other in flat lists: lists of rows keep the garbage collector busy on large graphs.
    """

    def __init__(self, names: Names, tied: Ties) -> None:
        self.names, self.tied = names, tied
        self.own: list[int] = []
        self.task: list[int] = []
        self.want: list[int] = []
        self.asked: list[GpuRequest | NicRequest] = []
        self.n_tasks = 0
        self.volumes: dict[int, list[tuple[int, int]]] = {}

    def add(self, number: int, request: TaskRequest) -> None:
        names, cores, want = self.names, len(request.cores), len(self.asked)
        cpus = min(request.cpus + 1000 * cores, MOST)
        disk, ports = min(request.disk, MOST), len(request.ports)
        self.own += (cpus, min(request.mem, MOST), disk, ports)
        for gpu in request.gpus:
            service = names.gpu_service(gpu)
            self.want += (min(gpu.compute, MOST), min(gpu.mem, MOST), gpu.affinity, service)
        for nic in request.nics:
            bandwidth = min(nic.bandwidth_in, MOST), min(nic.bandwidth_out, MOST)
            self.want += (*bandwidth, nic.affinity, names.nic_service(nic))
        self.asked += (*request.gpus, *request.nics)
        if request.volumes:
            found = [(names.volume(v.name), min(v.disk, MOST)) for v in request.volumes]
            self.volumes[number] = found
        names.whole_cores |= request.whole_cores
        names.one_l3 |= request.one_l3
        admission = names.admission(request, self.tied.of_task.get(number, ()))
        where = CACHES if request.one_l3 else NODES if needs_node(request) else AGENTS
        spans = want, len(self.asked)
        self.n_tasks += 1
        whole = cores if request.whole_cores else 0
        self.task += (cores, admission, where, *spans, whole, request.numa_share)

    def demand(
        self, means: Floats, cluster: Cluster, n_agents: int, by_zone: Tickets, by_device: Tickets
    ) -> Demand:
        own = np.array(self.own, np.int64).reshape(-1, 4)
        rows = np.array(self.task, np.int64).reshape(-1, 7)
        volume, volume_spans = self._volumes(by_zone)
        want, want_ticket = self._wants(by_device)
        task = np.column_stack(
            (
                rows[:, :2],
                _place_spans(rows[:, 2], cluster, n_agents),
                rows[:, 3:5],
                volume_spans,
                rows[:, 5:7],
                _may_break(rows),
                (rows[:, 2] == CACHES) | (rows[:, 5:7] > 0).any(axis=1),
            )
        )
        return Demand(
            own=own,
            task=np.ascontiguousarray(task),
            want=want,
            want_ticket=want_ticket,
            volume=volume,
            tie=self._tied(),
            size=_sizes(own, task, want, self._on_nic(), means, cluster),
        )

    def _on_nic(self) -> NDArray[np.bool_]:
        return np.array([type(want) is NicRequest for want in self.asked], np.bool_)

    def _volumes(self, tickets: Tickets) -> tuple[Ints, Ints]:
        """Return requests for volumes and tickets of all tasks, and where those of each begin and end."""
        first_ticket = len(self.names.volumes)
        for number, shares in tickets.shares.items():
            drawn = [(first_ticket + ticket, amount) for ticket, amount in shares]
            self.volumes.setdefault(number, []).extend(drawn)
        rows = [self.volumes.get(number, ()) for number in range(self.n_tasks)]
        flat = [row for of_task in rows for row in of_task]
        return np.array(flat, np.int64).reshape(-1, 2), _spans(list(map(len, rows)))

    def _wants(self, tickets: Tickets) -> tuple[Ints, Ints]:
        """Return wants with the spans of their tickets, and these tickets."""
        shares = [tickets.shares.get(number, ()) for number in range(len(self.asked))]
        flat = [share for of_want in shares for share in of_want]
        want = np.array(self.want, np.int64).reshape(-1, 4)
        spans = _spans(list(map(len, shares)))
        return np.hstack((want, spans)), np.array(flat, np.int64).reshape(-1, 2)

    def _tied(self) -> Ints:
        """Return the ties of each task, filled up with NOWHERE."""
        most = max(map(len, self.tied.of_task.values()), default=0)
        tie = np.full((self.n_tasks, most), NOWHERE, np.int64)
        for number in range(self.n_tasks):
            found = self.tied.of_task.get(number, ())
            tie[number, : len(found)] = found
        return tie


def _spans(lengths: Sequence[int]) -> Ints:
    """Return (n, 2) where each of `n` runs of these lengths begins and ends, one behind the other."""
    ends = np.cumsum(np.array(lengths, np.int64))
    return np.column_stack((ends - np.array(lengths, np.int64), ends)).astype(np.int64)


def _place_spans(where: Ints, cluster: Cluster, n_agents: int) -> Ints:
    """Return (tasks, 2) the first and the end of the places for tasks that look there."""
    n_caches = int(np.count_nonzero(cluster.places[:, L3] != NOWHERE))
    n_nodes = len(cluster.places) - n_agents - n_caches
    spans: Ints = _spans([n_nodes, n_agents, n_caches])[where]
    return spans


def _may_break(rows: Ints) -> Ints:
    """Return for each task whether its cores of one cache may break whole cores that others count on.

    Those are others that take whole cores of any cache of the node. Then whole cores are counted as if none
    were broken already: no more is promised than is there.
    """
    in_cache, whole = rows[:, 2] == CACHES, rows[:, 5] > 0
    found: Ints = (in_cache & ~whole & np.any(whole & ~in_cache)).astype(np.int64)
    return found


def _sizes(
    own: Ints,
    task: Ints,
    want: Ints,
    on_nic: NDArray[np.bool_],
    means: Floats,
    cluster: Cluster,
) -> Floats:
    """Return all that each task asks for, relative to the mean that is free in slots of that kind."""
    weights = np.divide(1, means, out=np.zeros_like(means), where=means > 0)
    first = np.where(on_nic, weights[Kind.NIC_IN], weights[Kind.GPU_COMPUTE])
    second = np.where(on_nic, weights[Kind.NIC_OUT], weights[Kind.GPU_MEM])
    of_want = np.append(0.0, np.cumsum(want[:, 0] * first + want[:, 1] * second))
    size: Floats = (own * weights[Kind.CPUS : Kind.PORTS + 1]).sum(axis=1)
    size += _mean_cores(task, cluster) * weights[Kind.CORES]
    size += of_want[task[:, WANT_END]] - of_want[task[:, WANT]]
    return size


def _mean_cores(task: Ints, cluster: Cluster) -> Floats:
    """Return how many logical CPUs each task takes on a node such as there are."""
    nodes = cluster.places[cluster.places[:, NODE] != NOWHERE]
    if not len(nodes):
        return task[:, N_CORES].astype(np.float64)
    width, cores = nodes[:, WIDTH].mean(), nodes[:, NODE_CORES].mean()
    share = task[:, NODE_SHARE] / MAX_SHARE * cores
    taken: Floats = np.maximum(task[:, N_CORES] + (width - 1) * task[:, N_WHOLE], share)
    return taken
