"""A packing problem laid out in arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.packing.admission import Traffic
from scheduler.packing.arrays import (
    ADMISSION,
    BREAKS,
    L3,
    N_CORES,
    N_WHOLE,
    NODE_SHARE,
    NOWHERE,
    PLACE,
    PLACE_END,
    SPECIAL,
    TASK_COLUMNS,
    VOLUME,
    VOLUME_END,
    WANT,
    WANT_END,
    Cluster,
    Demand,
    Floats,
    Ints,
    Plan,
    empty_plan,
)
from scheduler.packing.counting import Pools, starts
from scheduler.packing.layout import lay_out
from scheduler.packing.names import Names
from scheduler.packing.readings import Reading, read
from scheduler.packing.relations import Tickets, Ties, device_tickets, ties, zone_tickets
from scheduler.packing.rows import CACHES, Rows, rows_of
from scheduler.packing.siblings import Zones, rule_out, take_tickets
from scheduler.packing.sizes import sizes
from scheduler.packing.ties import keep_together
from scheduler.placement import Running
from scheduler.requests import TaskRequest
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
    family: Ints
    """(services,) number of what each is a service of: GPUs, or interfaces of one network."""
    n_gpus: Ints
    """(tasks,) how many of its wants are for GPUs: the first ones."""
    cores: Pools
    """Of each node those of its logical CPUs that are free."""
    volumes: bool
    """Whether anybody asks for a volume."""
    exclusive: bool
    """Whether anybody asks for a GPU for itself."""

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
    everyone = (*items, *[(task.name, task.request) for task in siblings])
    tied, by_zone = ties(everyone), zone_tickets(everyone)
    names = Names(Traffic.of(running))
    rows = rows_of([request for _, request in items], names, tied)
    readings = list(map(read, agents))
    by_device = _device_tickets(rows, names, readings)
    cluster, free, by_kind, cores = lay_out(
        agents, readings, names, (by_zone, by_device), tied.facts
    )
    demand = _demand(rows, by_kind, cluster, (by_zone, by_device), tied)
    if siblings:
        places = Zones(agents, (*agents, *known), [task.agent_id for task in siblings])
        take_tickets(cluster, free, by_zone, places, len(names.volumes), len(items))
        rule_out(cluster, demand, tied, places, len(items))
    if tied.facts:
        cluster, demand = keep_together(cluster, demand, free, tied)
    return Problem(
        *(agents, items, cluster, demand, free, names.families(), rows.n_gpus, cores),
        volumes=bool(names.volumes),
        exclusive=names.exclusive,
    )


def _device_tickets(rows: Rows, names: Names, readings: Sequence[Reading]) -> Tickets:
    """Return the tickets of devices; in most graphs, nobody asks for anything that needs them."""
    silent = names.multicast and any(of.frame.shape.silent for of in readings)
    if not silent and not names.exclusive:
        return Tickets()
    return device_tickets(rows.asked(), loopback_off=silent)


def needs_node(request: TaskRequest) -> bool:
    """Whether a node must be chosen for the task: for its cores, or for a device with affinity.

    Devices with affinity of a task that pins no core hang on one common node.
    """
    if request.cores or request.numa_share:
        return True
    return any(gpu.affinity for gpu in request.gpus) or any(nic.affinity for nic in request.nics)


def _demand(
    rows: Rows, by_kind: Floats, cluster: Cluster, tickets: tuple[Tickets, Tickets], tied: Ties
) -> Demand:
    by_zone, by_device = tickets
    n_volumes = cluster.volume_slot.shape[1] - len(by_zone.what)
    volume, volume_spans = _with_tickets(rows.volumes, by_zone, n_volumes)
    want_ticket, ticket_spans = _with_tickets([()] * len(rows.want), by_device, 0)
    want = np.hstack((rows.want, ticket_spans))
    task = _task_rows(rows, cluster, volume_spans)
    return Demand(
        own=rows.own,
        task=task,
        want=want,
        want_ticket=want_ticket,
        volume=volume,
        tie=_tied(tied, len(task)),
        size=sizes(rows.own, task, want, rows.on_nic, cluster.places, by_kind),
    )


def _task_rows(rows: Rows, cluster: Cluster, volume_spans: Ints) -> Ints:
    """Return `Demand.task`."""
    task = np.empty((len(rows.own), TASK_COLUMNS), np.int64)
    task[:, N_CORES], task[:, ADMISSION] = rows.n_cores, rows.admission
    task[:, PLACE : PLACE_END + 1] = _place_spans(rows.where, cluster)
    task[:, WANT], task[:, WANT_END] = rows.first_want[:-1], rows.first_want[1:]
    task[:, VOLUME : VOLUME_END + 1] = volume_spans
    task[:, N_WHOLE], task[:, NODE_SHARE] = rows.n_whole, rows.node_share
    in_cache, whole = rows.where == CACHES, rows.n_whole > 0
    task[:, SPECIAL] = in_cache | whole | (rows.node_share > 0)
    # Cores of one cache may break whole cores that others count on, who take whole ones of any cache. Then
    # whole cores are counted as if none were broken already: no more is promised than is there.
    task[:, BREAKS] = in_cache & ~whole & (whole & ~in_cache).any()
    return task


def _with_tickets(
    drawn: Sequence[Sequence[tuple[int, int]]], tickets: Tickets, first: int
) -> tuple[Ints, Ints]:
    """Return what each draws, tickets behind the rest, and where that of each begins and ends.

    Parameters
    ----------
    first
        Number of the first ticket.
    """
    if not tickets.what and not any(drawn):
        return np.zeros((0, 2), np.int64), np.zeros((len(drawn), 2), np.int64)
    rows = [
        (*of_one, *((first + ticket, amount) for ticket, amount in tickets.shares.get(n, ())))
        for n, of_one in enumerate(drawn)
    ]
    flat = [row for of_one in rows for row in of_one]
    return np.array(flat, np.int64).reshape(-1, 2), _spans(list(map(len, rows)))


def _tied(ties: Ties, n_tasks: int) -> Ints:
    """Return the ties of each task, filled up with NOWHERE."""
    most = max(map(len, ties.of_task.values()), default=0)
    tie = np.full((n_tasks, most), NOWHERE, np.int64)
    for number, found in ties.of_task.items():
        if number < n_tasks:  # others run already
            tie[number, : len(found)] = found
    return tie


def _spans(lengths: Sequence[int]) -> Ints:
    """Return (n, 2) where each of `n` runs of these lengths begins and ends, one behind the other."""
    first = starts(np.array(lengths, np.int64))
    return np.column_stack((first[:-1], first[1:]))


def _place_spans(where: Ints, cluster: Cluster) -> Ints:
    """Return (tasks, 2) the first and the end of the places for tasks that look there."""
    n_places, n_agents = len(cluster.places), len(cluster.rank)
    n_caches = int(np.count_nonzero(cluster.places[:, L3] != NOWHERE))
    n_others = n_places - n_caches
    n_nodes = n_others - n_agents
    spans: Ints = np.array(((0, n_nodes), (n_nodes, n_others), (n_others, n_places)))[where]
    return spans
