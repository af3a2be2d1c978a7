"""Agents laid out in arrays."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from scheduler.packing.arrays import MOST, NOWHERE, PLENTY, Cluster, Floats, Ints
from scheduler.quantities import Millis, Ranges
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot, Topology

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
    GPU_COMPUTE = 6
    GPU_MEM = 7
    NIC_IN = 8
    NIC_OUT = 9
    VOLUME = 10


class Names:
    """Numbers for names that requests use: networks, volumes, and (host, subsystem) of admission."""

    def __init__(self) -> None:
        self.networks: dict[str, int] = {}
        self.volumes: dict[str, int] = {}
        self.admissions: dict[tuple[str | None, str | None], int] = {}

    def service(self, network: str) -> int:
        """Number of the service that interfaces on a network give; GPUs are service 0."""
        return 1 + self.networks.setdefault(network, len(self.networks))

    def volume(self, name: str) -> int:
        """Number of a volume's name."""
        return self.volumes.setdefault(name, len(self.volumes))

    def admission(self, request: TaskRequest) -> int:
        """Row of the table of which agents admit the task."""
        key = (request.host, request.subsystem)
        return self.admissions.setdefault(key, len(self.admissions))


def lay_out(agents: Sequence[AgentSnapshot], names: Names) -> tuple[Cluster, Ints, Floats]:
    """Lay agents out.

    Returns
    -------
    Cluster
    free
        (slots,) what is free.
    means
        (kinds,) mean of what is free in the counted slots of each :class:`Kind`, 0 where there is none.
    """
    slots = _Slots(names)
    for agent in agents:
        slots.add(agent)
    return slots.cluster(agents)


def admits(agent: AgentSnapshot, host: str | None, subsystem: str | None) -> bool:
    """Whether tasks for that host and subsystem may run on the agent at all."""
    if host is not None and host != agent.host:
        return False
    return not agent.topology.subsystems or subsystem in agent.topology.subsystems


def count_common(one: Ranges, other: Ranges) -> int:
    """Return how many integers are in both: ``len(one & other)`` without making the set."""
    return sum(
        max(0, min(end, other_end) - max(begin, other_begin) + 1)
        for begin, end in one.intervals
        for other_begin, other_end in other.intervals
    )


class _Slots:
    """Slots being laid out, agent by agent."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.amounts: list[int] = []
        self.kinds: list[int] = []
        self.node_places: list[tuple[int, ...]] = []
        self.agent_places: list[tuple[int, ...]] = []
        self.device: list[tuple[int, int]] = []
        self.serves: list[list[bool]] = []
        self.volume_slot: list[list[int]] = []

    def add(self, agent: AgentSnapshot) -> None:
        topology, scalars, ranges = agent.topology, agent.free.scalars, agent.free.ranges
        number, first_node = len(self.agent_places), len(self.node_places)
        own = [scalars.get(name, 0) for name in ("cpus", "mem", "disk")]
        own_slot = self._append(Kind.CPUS, *own, count_common(ranges.get("ports", Ranges()), PORTS))
        first_device = len(self.device)
        self._add_devices(topology, scalars, first_node)
        devices = first_device, len(self.device)
        self.agent_places.append((number, NOWHERE, own_slot, NOWHERE, *devices))
        cores = ranges.get("cores", Ranges())
        for n, node in enumerate(topology.numa):
            mem = PLENTY if node.mem_mib is None else scalars.get(f"numa.{n}.mem", 0)
            slot = self._append(Kind.CORES, count_common(cores, node.cores), mem)
            self.node_places.append((number, first_node + n, own_slot, slot, *devices))
        self._add_volumes(topology, scalars)

    def _add_devices(
        self, topology: Topology, scalars: Mapping[str, Millis], first_node: int
    ) -> None:
        for n, gpu in enumerate(topology.gpus):
            amounts = scalars.get(f"gpu.{n}.compute", 0), scalars.get(f"gpu.{n}.mem", 0)
            slot = self._append(Kind.GPU_COMPUTE, *amounts)
            self.device.append((slot, NOWHERE if gpu.numa is None else first_node + gpu.numa))
            self.serves.append([True] + [False] * len(self.names.networks))
        for n, nic in enumerate(topology.nics):
            amounts = scalars.get(f"nic.{n}.in", 0), scalars.get(f"nic.{n}.out", 0)
            slot = self._append(Kind.NIC_IN, *amounts)
            self.device.append((slot, NOWHERE if nic.numa is None else first_node + nic.numa))
            self.serves.append([False, *(name in nic.networks for name in self.names.networks)])

    def _add_volumes(self, topology: Topology, scalars: Mapping[str, Millis]) -> None:
        slots = [NOWHERE] * len(self.names.volumes)
        for n, volume in enumerate(topology.volumes):
            number = self.names.volumes.get(volume.name)
            if number is not None:
                counted = volume.disk_mib is not None
                amount = scalars.get(f"volume.{n}.disk", 0) if counted else PLENTY
                slots[number] = self._append(Kind.VOLUME, amount)
        self.volume_slot.append(slots)

    def _append(self, first: Kind, *amounts: int) -> int:
        """Append slots of consecutive kinds; return the first."""
        slot = len(self.amounts)
        self.amounts += [a if a == PLENTY else min(a, MOST - 1) for a in amounts]
        self.kinds += range(first, first + len(amounts))
        return slot

    def cluster(self, agents: Sequence[AgentSnapshot]) -> tuple[Cluster, Ints, Floats]:
        free = np.array(self.amounts, np.int64)
        kinds = np.array(self.kinds, np.int64)
        counted = free < PLENTY
        numbers = np.bincount(kinds[counted], minlength=len(Kind))
        sums = np.bincount(kinds[counted], free[counted], minlength=len(Kind))
        means: Floats = sums / np.maximum(numbers, 1)
        weights = np.divide(1, means, out=np.zeros_like(means), where=means > 0)
        rows = [[admits(agent, *key) for agent in agents] for key in self.names.admissions]
        cluster = Cluster(
            places=np.array(self.node_places + self.agent_places, np.int64).reshape(-1, 6),
            device=np.array(self.device, np.int64).reshape(-1, 2),
            serves=np.array(self.serves, np.uint8).reshape(-1, 1 + len(self.names.networks)),
            volume_slot=np.array(self.volume_slot, np.int64).reshape(
                len(agents), len(self.names.volumes)
            ),
            admits=np.array(rows, np.uint8).reshape(len(rows), len(agents)),
            rank=np.array([agent.topology.effective_priority for agent in agents], np.int64),
            weight=np.where(counted, weights[kinds], 0.0),
        )
        return cluster, free, means
