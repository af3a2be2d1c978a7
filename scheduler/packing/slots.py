"""The slots of agents: those that are always there, and those that are there because somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from scheduler.packing.arrays import (
    AGENT,
    CORES,
    L3,
    MOST,
    NODE_CORES,
    NOWHERE,
    OWN,
    PLACE_COLUMNS,
    PLENTY,
    WHOLE,
    WIDTH,
    Ints,
    Kind,
)
from scheduler.packing.cores import caches, physical_cores, whole_ones, wholly_free
from scheduler.packing.counting import Pools, count_all, count_common, count_within, laid, packed
from scheduler.packing.readings import Reading, amounts, read
from scheduler.packing.relations import EXCLUSIVE, MULTICAST, Tickets
from scheduler.packing.shapes import NOTHING, Shape
from scheduler.packing.spreading import Catalogue, spread
from scheduler.quantities import Ranges
from scheduler.topology import AgentSnapshot

PORTS: Final = Ranges(((1, 65535),))
"""Port numbers that a task can be given; 0 would mean any."""

Agents = Sequence[AgentSnapshot]
N = TypeVar("N", bound=np.generic)


def zones(agents: Agents, fact: str) -> list[int]:
    """Number the zones of a fact: agents with the same value have the same, NOWHERE those that do not tell."""
    numbers: dict[str, int] = {}
    told = [agent.fact(fact) for agent in agents]
    return [NOWHERE if v is None else numbers.setdefault(v, len(numbers)) for v in told]


@dataclass(frozen=True, slots=True)
class MainSlots:
    """Slots, places and devices that are there whatever is asked for; the arrays are as in `Cluster`."""

    free: Ints
    kinds: Ints
    """(slots,) :class:`~scheduler.packing.arrays.Kind`."""
    nodes: Ints
    """Places for tasks that need a node."""
    agents: Ints
    """Places for those that do not."""
    device: Ints
    part: Ints
    """(devices,) which it is of those of all shapes, one behind the other."""
    cores: Pools
    """Of each node its logical CPUs, and what is free of those of its agent."""


class Fleet:
    """The shapes of agents, and which of them each agent has."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        numbers: dict[Shape, int] = {}
        found = [numbers.setdefault(one.frame.shape, len(numbers)) for one in readings]
        self.shapes: Final = tuple(numbers) or (NOTHING,)
        self.which: Final[Ints] = np.array(found, np.int64)

    def catalogue(self) -> Catalogue:
        """Return the shapes, one behind the other."""
        shapes = self.shapes
        sizes = [(len(s.nodes), len(s.device), len(s.kinds), len(s.named)) for s in shapes]
        first = np.zeros((len(shapes) + 1, 4), np.int64)
        np.cumsum(sizes, axis=0, out=first[1:])
        columns = zip(
            *[(s.nodes, s.agent, s.device, s.kinds, s.blank, s.named) for s in shapes], strict=True
        )
        return Catalogue(first, *map(joined, columns))


def joined(arrays: Sequence[NDArray[N]]) -> NDArray[N]:
    """Return arrays one behind the other; there is at least one."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def main_slots(readings: Sequence[Reading], fleet: Fleet) -> MainSlots:
    """Lay out agents one behind the other."""
    nodes, own, device, part, kinds, free, named = spread(fleet.catalogue(), fleet.which)
    free[named] = amounts(readings)
    of_nodes = laid([reading.frame.cores for reading in readings])
    nodes[:, NODE_CORES] = count_within(*of_nodes, 0, _MOST)
    free_cores = laid([reading.cores for reading in readings])
    cores = Pools(*free_cores, nodes[:, AGENT].copy(), *of_nodes)
    free[nodes[:, CORES]] = count_all(cores)
    ports = laid([reading.ports for reading in readings])
    free[own[:, OWN] + Kind.PORTS] = count_within(*ports, *PORTS.intervals[0])
    return MainSlots(free, kinds, nodes, own, device, part, cores)


_PORTS: Final = packed(PORTS.intervals)


def port_pools(agents: Agents) -> Pools:
    """Return the port numbers of each agent that a task can be given."""
    free = laid([read(agent).ports for agent in agents])
    return Pools(*free, np.arange(len(agents)), *laid([_PORTS] * len(agents)))


_NOTHING: Final = Ranges()
_MOST: Final = 1 << 62
"""No member of a range is larger."""


def count_whole_cores(agents: Agents, main: MainSlots) -> None:
    """Enter how many whole physical cores are free on each node, and how wide they are."""
    parts = ((agent, n) for agent in agents for n in range(len(agent.topology.numa)))
    for row, (agent, node) in zip(main.nodes, parts, strict=True):
        whole, row[WIDTH] = whole_ones(physical_cores(agent.topology, node))
        free = agent.free.ranges.get("cores", _NOTHING) & agent.topology.numa[node].cores
        main.free[row[CORES] + WHOLE] = len(wholly_free(whole, free))


@dataclass(slots=True)
class MoreSlots:
    """Slots that are there because somebody asks, one after the other behind the main ones."""

    first: int
    """Number of the first of them."""
    amounts: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)

    def append(self, first: Kind, *amounts: int) -> int:
        """Append slots of consecutive kinds; return the first."""
        slot = self.first + len(self.amounts)
        self.amounts += (a if a == PLENTY else min(a, MOST - 1) for a in amounts)
        self.kinds += range(first, first + len(amounts))
        return slot

    def caches(self, agents: Agents, nodes: Ints) -> Ints:
        """Append the slots of all L3 caches; return the places in them."""
        rows: list[Ints] = []
        parts = ((agent, n) for agent in agents for n in range(len(agent.topology.numa)))
        for place, (agent, node) in zip(nodes, parts, strict=True):
            topology = agent.topology
            free = agent.free.ranges.get("cores", _NOTHING) & topology.numa[node].cores
            whole, width = whole_ones(physical_cores(topology, node))
            unbroken = wholly_free(whole, free)
            for cache in caches(topology, node):
                members = frozenset(cache)
                n_whole = sum(core <= members for core in unbroken)
                row = place.copy()
                row[L3] = self.append(Kind.L3_CORES, count_common(free, cache), n_whole)
                row[WIDTH] = width
                rows.append(row)
        return np.array(rows, np.int64).reshape(-1, PLACE_COLUMNS)

    def volumes(self, agents: Agents, numbers: dict[str, int]) -> Ints:
        """Append the slots of volumes asked for, by number; return (agents, volumes) where they are."""
        slots = np.full((len(agents), len(numbers)), NOWHERE, np.int64)
        for row, agent in zip(slots, agents if numbers else (), strict=False):
            for n, volume in enumerate(agent.topology.volumes):
                number = numbers.get(volume.name)
                if number is not None:
                    counted = volume.disk_mib is not None
                    amount = agent.free.scalars.get(f"volume.{n}.disk", 0) if counted else PLENTY
                    row[number] = self.append(Kind.VOLUME, amount)
        return slots

    def zone_tickets(self, agents: Agents, tickets: Tickets) -> Ints:
        """Append the tickets of all zones; return (agents, tickets) where they are."""
        slots = np.full((len(agents), len(tickets.what)), NOWHERE, np.int64)
        numbers = {fact: np.array(zones(agents, fact), np.int64) for fact in {*tickets.what}}
        for column, (fact, capacity) in enumerate(zip(tickets.what, tickets.capacity, strict=True)):
            for zone in range(int(numbers[fact].max(initial=NOWHERE)) + 1):
                slots[numbers[fact] == zone, column] = self.append(Kind.TICKET, capacity)
        return slots

    def device_tickets(self, agents: Agents, tickets: Tickets, n_devices: int) -> Ints:
        """Append the tickets of devices; return (devices, tickets) where they are.

        A device has the same for all roles in which its agent offers.
        """
        if not tickets.what:
            return np.zeros((n_devices, 0), np.int64)
        rows: list[list[int]] = []
        known: dict[tuple[str, int], list[int]] = {}
        for agent in agents:
            topology = agent.topology
            whats = [EXCLUSIVE] * len(topology.gpus)
            whats += ["" if nic.multicast_loopback else MULTICAST for nic in topology.nics]
            for number, what in enumerate(whats):
                key = agent.mesos_agent_id, number
                if key not in known:
                    known[key] = [
                        self.append(Kind.TICKET, capacity) if kind == what else NOWHERE
                        for kind, capacity in zip(tickets.what, tickets.capacity, strict=True)
                    ]
                rows.append(known[key])
        return np.array(rows, np.int64).reshape(n_devices, len(tickets.what))
