"""The slots of agents: those that are always there, and those that are there because somebody asks."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from scheduler.packing.arrays import (
    AGENT,
    CORES,
    DEVICE,
    DEVICE_END,
    L3,
    MOST,
    NODE,
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
from scheduler.packing.counting import (
    Intervals,
    count_all,
    count_common,
    count_within,
    laid,
    runs,
    starts,
)
from scheduler.packing.relations import EXCLUSIVE, MULTICAST, Tickets
from scheduler.packing.shapes import Frame, Shape
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


def bounded(amounts: Sequence[int], most: int) -> Ints:
    """Return amounts as an array, none larger than `most`."""
    try:
        return np.minimum(np.fromiter(amounts, np.int64, len(amounts)), most)
    except OverflowError:  # more than 64 bits hold
        return np.array([min(amount, most) for amount in amounts], np.int64)


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


class Fleet:
    """The shapes of agents, and which of them each agent has."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        numbers: dict[Shape, int] = {}
        found = [numbers.setdefault(frame.shape, len(numbers)) for frame in frames]
        self.shapes: Final = tuple(numbers)
        self.which: Final[Ints] = np.array(found, np.int64)

    def count(self, parts: Sequence[Sized]) -> Ints:
        """Return (agents,) how much is in each agent's part; there is one for each shape."""
        return np.array([len(part) for part in parts], np.int64)[self.which]

    def spread(self, parts: Sequence[NDArray[N]], none: NDArray[N]) -> NDArray[N]:
        """Return the part of each agent, one behind the other; `none`, if there is no agent."""
        if not parts:
            return none
        lengths = np.array([len(part) for part in parts], np.int64)
        rows = runs(starts(lengths)[self.which], lengths[self.which])
        found: NDArray[N] = np.concatenate(parts)[rows]
        return found


def main_slots(agents: Agents, frames: Sequence[Frame], fleet: Fleet) -> MainSlots:
    """Lay out agents, of which the topologies are known, one behind the other."""
    shapes, n_agents = fleet.shapes, len(agents)
    nodes = fleet.spread([shape.nodes for shape in shapes], _none(PLACE_COLUMNS))
    own = fleet.spread([shape.agent for shape in shapes], _none(PLACE_COLUMNS))
    device = fleet.spread([shape.device for shape in shapes], _none(2))
    n_nodes, n_devices = (
        fleet.count([shape.nodes for shape in shapes]),
        fleet.count([shape.device for shape in shapes]),
    )
    offset = np.zeros((n_agents, PLACE_COLUMNS), np.int64)
    offset[:, AGENT], offset[:, NODE] = np.arange(n_agents), starts(n_nodes)[:-1]
    first_slot = starts(fleet.count([shape.kinds for shape in shapes]))[:-1]
    offset[:, OWN] = offset[:, CORES] = first_slot
    offset[:, DEVICE] = offset[:, DEVICE_END] = starts(n_devices)[:-1]
    nodes += np.repeat(offset, n_nodes, axis=0)
    cores = laid(list(chain.from_iterable(frame.cores for frame in frames)))
    nodes[:, NODE_CORES] = count_within(*cores, 0, _MOST)
    own += offset
    own[:, NODE] = own[:, CORES] = NOWHERE
    unknown = device[:, 1] == NOWHERE
    device += np.repeat(offset[:, (OWN, NODE)], n_devices, axis=0)
    device[unknown, 1] = NOWHERE
    free = _free(agents, frames, fleet, first_slot)
    _count_sets(free, agents, nodes, own, cores)
    kinds = fleet.spread([shape.kinds for shape in shapes], _none())
    return MainSlots(free, kinds, nodes, own, device)


def _none(columns: int | None = None) -> Ints:
    """Return no rows: of no agents nothing could be joined otherwise."""
    return np.zeros(0 if columns is None else (0, columns), np.int64)


def _free(agents: Agents, frames: Sequence[Frame], fleet: Fleet, first_slot: Ints) -> Ints:
    """Return what is free in every slot, but for what is a set of integers."""
    amounts: list[int] = []
    for agent, frame in zip(agents, frames, strict=True):
        amounts += map(agent.free.scalars.get, frame.shape.names, repeat(0))
    named = [shape.named for shape in fleet.shapes]
    slots = fleet.spread(named, _none()) + np.repeat(first_slot, fleet.count(named))
    free = fleet.spread([shape.blank for shape in fleet.shapes], _none())
    free[slots] = bounded(amounts, MOST - 1)
    return free


def _count_sets(
    free: Ints, agents: Agents, nodes: Ints, own: Ints, of_nodes: tuple[Ints, Ints]
) -> None:
    """Enter how many cores are free on each node, and how many ports on each agent."""
    ports = laid(_intervals(agents, "ports"))
    free[own[:, OWN] + Kind.PORTS] = count_within(*ports, *PORTS.intervals[0])
    cores, first = laid(_intervals(agents, "cores"))
    free[nodes[:, CORES]] = count_all(cores, first, nodes[:, AGENT], *of_nodes)


_NOTHING: Final = Ranges()
_MOST: Final = 1 << 62
"""No member of a range is larger."""


def _intervals(agents: Agents, name: str) -> list[Intervals]:
    """Return what each agent has free of a resource that is a set of integers."""
    return [agent.free.ranges.get(name, _NOTHING).intervals for agent in agents]


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
