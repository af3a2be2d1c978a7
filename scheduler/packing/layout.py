"""Agents laid out in arrays."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from scheduler.packing.admission import (
    Admission,
    GpuService,
    Multicast,
    NicService,
    Traffic,
    untouched,
)
from scheduler.packing.arrays import MOST, NOWHERE, PLENTY, Cluster, Floats, Ints
from scheduler.packing.cores import caches, physical_cores, whole_ones, wholly_free
from scheduler.packing.relations import EXCLUSIVE, MULTICAST, Tickets
from scheduler.quantities import Millis, Ranges
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, Topology

PORTS: Final = Ranges(((1, 65535),))
"""Port numbers that a task can be given; 0 would mean any."""


class Kind(enum.IntEnum):
    """Kinds of slots: amounts of one kind can be compared over agents."""

    CPUS = 0
    MEM = 1
    DISK = 2
    PORTS = 3
    CORES = 4
    NODE_MEM = 5
    WHOLE_CORES = 6
    GPU_COMPUTE = 7
    GPU_MEM = 8
    NIC_IN = 9
    NIC_OUT = 10
    VOLUME = 11
    L3_CORES = 12
    L3_WHOLE_CORES = 13
    TICKET = 14


class Names:
    """Numbers for what requests name, and what of an agent is worth being looked at.

    What most requests share is found by what they say, without being made anew for each.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.services: dict[GpuService | NicService, int] = {}
        self.volumes: dict[str, int] = {}
        self.admissions: list[Admission] = []
        self._gpus: dict[tuple[object, ...], int] = {}
        self._nics: dict[tuple[object, ...], int] = {}
        self._admissions: dict[tuple[object, ...], int] = {}
        self.whole_cores = False
        """Whether anybody asks for whole physical cores."""
        self.one_l3 = False
        """Whether anybody asks for cores that share a cache."""

    def gpu_service(self, request: GpuRequest) -> int:
        """Number of what a GPU must be to serve a request."""
        key = request.name, request.min_capability, request.exclusive
        if (number := self._gpus.get(key)) is None:
            service = GpuService.of(request)
            number = self._gpus[key] = self.services.setdefault(service, len(self.services))
        return number

    def nic_service(self, request: NicRequest) -> int:
        """Number of what an interface must be to serve a request."""
        key = request.network, request.ibverbs, request.sends, request.receives
        if (number := self._nics.get(key)) is None:
            service = NicService.of(request, self.traffic.all)
            number = self._nics[key] = self.services.setdefault(service, len(self.services))
        return number

    def volume(self, name: str) -> int:
        """Number of a volume's name."""
        return self.volumes.setdefault(name, len(self.volumes))

    def admission(self, request: TaskRequest, ties: Sequence[int]) -> int:
        """Row of the table of which agents admit the task: its ties rule out agents, too."""
        key = request.host, request.subsystem, request.constraints, request.data, *ties
        if (number := self._admissions.get(key)) is None:
            number = self._admissions[key] = len(self.admissions)
            self.admissions.append(Admission.of(request))
        return number


def lay_out(
    agents: Sequence[AgentSnapshot],
    names: Names,
    tickets: tuple[Tickets, Tickets],
    tie_facts: Sequence[str],
) -> tuple[Cluster, Ints, Floats]:
    """Lay agents out.

    Parameters
    ----------
    tickets
        Those of zones and those of devices.
    tie_facts
        By tie: what makes its zones.

    Returns
    -------
    Cluster
    free
        (slots,) what is free.
    means
        (kinds,) mean of what is free in the counted slots of each :class:`Kind`, 0 where there is none.
    """
    slots = _Slots(names, tickets[1])
    for agent in agents:
        slots.add(agent)
    return slots.cluster(agents, tickets[0], tie_facts)


def count_common(one: Ranges, other: Ranges) -> int:
    """Return how many integers are in both: ``len(one & other)`` without making the set."""
    count = 0
    for begin, end in one.intervals:
        for other_begin, other_end in other.intervals:
            count += max(0, min(end, other_end) - max(begin, other_begin) + 1)
    return count


def zones(agents: Sequence[AgentSnapshot], fact: str) -> list[int]:
    """Number the zones of a fact: agents with the same value have the same, NOWHERE those that do not tell."""
    numbers: dict[str, int] = {}
    told = [agent.fact(fact) for agent in agents]
    return [NOWHERE if v is None else numbers.setdefault(v, len(numbers)) for v in told]


class _Slots:
    """Slots being laid out, agent by agent.

    Rows lie one behind the other in flat lists: lists of rows keep the garbage collector busy.
    """

    def __init__(self, names: Names, tickets: Tickets) -> None:
        self.names, self.tickets = names, tickets
        self.amounts: list[int] = []
        self.kinds: list[int] = []
        self.n_agents = 0
        self.n_nodes = 0
        self.node_places: list[int] = []
        self.agent_places: list[int] = []
        self.cache_places: list[int] = []
        self.device: list[int] = []
        self.serves: list[list[bool]] = []
        self.device_ticket: list[list[int]] = []
        self.ticket_slots: dict[tuple[str, str, int], list[int]] = {}
        self.volume_slot: list[list[int]] = []
        self.rows: dict[tuple[object, ...], list[bool]] = {}
        """Rows of `serves` by what decides on them."""

    def add(self, agent: AgentSnapshot) -> None:
        topology, scalars, ranges = agent.topology, agent.free.scalars, agent.free.ranges
        number, first_node = self.n_agents, self.n_nodes
        own = [scalars.get(name, 0) for name in ("cpus", "mem", "disk")]
        own_slot = self._append(Kind.CPUS, *own, count_common(ranges.get("ports", Ranges()), PORTS))
        first_device = len(self.serves)
        self._add_devices(agent, first_node)
        devices = first_device, len(self.serves)
        self.n_agents += 1
        self.n_nodes += len(topology.numa)
        self.agent_places += (number, NOWHERE, own_slot, NOWHERE, *devices, NOWHERE, 1, 0)
        cores = ranges.get("cores", Ranges())
        for n, node in enumerate(topology.numa):
            mem = PLENTY if node.mem_mib is None else scalars.get(f"numa.{n}.mem", 0)
            n_cores, n_whole, width = count_common(cores, node.cores), PLENTY, 1
            if self.names.whole_cores:
                whole, width = whole_ones(physical_cores(topology, n))
                n_whole = len(wholly_free(whole, cores & node.cores))
            slot = self._append(Kind.CORES, n_cores, mem, n_whole)
            place = number, first_node + n, own_slot, slot, *devices
            self.node_places += (*place, NOWHERE, width, len(node.cores))
            if self.names.one_l3:
                self._add_caches(topology, n, cores & node.cores, place)
        self._add_volumes(topology, scalars)

    def _add_caches(
        self, topology: Topology, node: int, free: Ranges, place: tuple[int, ...]
    ) -> None:
        whole, width = whole_ones(physical_cores(topology, node))
        unbroken = wholly_free(whole, free)
        for cache in caches(topology, node):
            members = frozenset(cache)
            n_whole = sum(core <= members for core in unbroken)
            slot = self._append(Kind.L3_CORES, count_common(free, cache), n_whole)
            row = (*place, slot, width, len(topology.numa[node].cores))
            self.cache_places += row

    def _add_devices(self, agent: AgentSnapshot, first_node: int) -> None:
        topology, scalars = agent.topology, agent.free.scalars
        for n, gpu in enumerate(topology.gpus):
            amounts = scalars.get(f"gpu.{n}.compute", 0), scalars.get(f"gpu.{n}.mem", 0)
            slot = self._append(Kind.GPU_COMPUTE, *amounts)
            self.device += (slot, NOWHERE if gpu.numa is None else first_node + gpu.numa)
            self.serves.append(self._gpu_row(gpu, untouched=untouched(gpu, *amounts)))
            self._add_tickets(EXCLUSIVE, agent, n)
        for n, nic in enumerate(topology.nics):
            amounts = scalars.get(f"nic.{n}.in", 0), scalars.get(f"nic.{n}.out", 0)
            slot = self._append(Kind.NIC_IN, *amounts)
            self.device += (slot, NOWHERE if nic.numa is None else first_node + nic.numa)
            self.serves.append(self._nic_row(nic, self.names.traffic.on(agent, n)))
            self._add_tickets("" if nic.multicast_loopback else MULTICAST, agent, n)

    def _gpu_row(self, gpu: Gpu, *, untouched: bool) -> list[bool]:
        key = gpu.name, gpu.compute_capability, untouched
        if (row := self.rows.get(key)) is None:
            row = self.rows[key] = [
                isinstance(service, GpuService) and service.given_by(gpu, untouched=untouched)
                for service in self.names.services
            ]
        return row

    def _nic_row(self, nic: Nic, traffic: Multicast) -> list[bool]:
        key = nic.networks, bool(nic.infiniband), nic.multicast_loopback, traffic
        if (row := self.rows.get(key)) is None:
            row = self.rows[key] = [
                isinstance(service, NicService) and service.given_by(nic, traffic)
                for service in self.names.services
            ]
        return row

    def _add_tickets(self, what: str, agent: AgentSnapshot, number: int) -> None:
        """Append the tickets of a device; it has the same for all roles in which its agent offers."""
        if not self.tickets.what:
            return
        key = what, agent.mesos_agent_id, number
        if key not in self.ticket_slots:
            self.ticket_slots[key] = [
                self._append(Kind.TICKET, capacity) if kind == what else NOWHERE
                for kind, capacity in zip(self.tickets.what, self.tickets.capacity, strict=True)
            ]
        self.device_ticket.append(self.ticket_slots[key])

    def _add_volumes(self, topology: Topology, scalars: Mapping[str, Millis]) -> None:
        if not self.names.volumes:
            return
        slots = [NOWHERE] * len(self.names.volumes)
        for n, volume in enumerate(topology.volumes):
            number = self.names.volumes.get(volume.name)
            if number is not None:
                counted = volume.disk_mib is not None
                amount = scalars.get(f"volume.{n}.disk", 0) if counted else PLENTY
                slots[number] = self._append(Kind.VOLUME, amount)
        self.volume_slot.append(slots)

    def _add_zone_tickets(self, agents: Sequence[AgentSnapshot], tickets: Tickets) -> None:
        if not self.volume_slot:
            self.volume_slot = [[] for _ in agents] if tickets.what else []
        numbers = {fact: zones(agents, fact) for fact in dict.fromkeys(tickets.what)}
        for fact, capacity in zip(tickets.what, tickets.capacity, strict=True):
            n_zones = max(numbers[fact], default=NOWHERE) + 1
            slots = [self._append(Kind.TICKET, capacity) for _ in range(n_zones)]
            for row, zone in zip(self.volume_slot, numbers[fact], strict=True):
                row.append(NOWHERE if zone == NOWHERE else slots[zone])

    def _append(self, first: Kind, *amounts: int) -> int:
        """Append slots of consecutive kinds; return the first."""
        slot = len(self.amounts)
        if max(amounts) >= MOST:
            amounts = tuple(a if a == PLENTY else min(a, MOST - 1) for a in amounts)
        self.amounts += amounts
        self.kinds += range(first, first + len(amounts))
        return slot

    def cluster(
        self, agents: Sequence[AgentSnapshot], tickets: Tickets, tie_facts: Sequence[str]
    ) -> tuple[Cluster, Ints, Floats]:
        n_columns = len(self.names.volumes) + len(tickets.what)
        self._add_zone_tickets(agents, tickets)
        free = np.array(self.amounts, np.int64)
        kinds = np.array(self.kinds, np.int64)
        counted = (free < PLENTY) & (kinds != Kind.TICKET)
        numbers = np.bincount(kinds[counted], minlength=len(Kind))
        sums = np.bincount(kinds[counted], free[counted], minlength=len(Kind))
        means: Floats = sums / np.maximum(numbers, 1)
        weights = np.divide(1, means, out=np.zeros_like(means), where=means > 0)
        rows = [[key.grade(agent) for agent in agents] for key in self.names.admissions]
        places = self.node_places + self.agent_places + self.cache_places
        n_devices, n_tickets = len(self.serves), len(self.tickets.what)
        cluster = Cluster(
            places=np.array(places, np.int64).reshape(-1, 9),
            device=np.array(self.device, np.int64).reshape(-1, 2),
            serves=np.array(self.serves, np.uint8).reshape(n_devices, len(self.names.services)),
            device_ticket=np.array(self.device_ticket, np.int64).reshape(n_devices, n_tickets),
            volume_slot=np.array(self.volume_slot, np.int64).reshape(len(agents), n_columns),
            admits=np.array(rows, np.uint8).reshape(len(rows), len(agents)),
            zone=np.array([zones(agents, fact) for fact in tie_facts], np.int64).reshape(
                len(tie_facts), len(agents)
            ),
            rank=np.array([agent.topology.effective_priority for agent in agents], np.int64),
            weight=np.where(counted, weights[kinds], 0.0),
        )
        return cluster, free, means
