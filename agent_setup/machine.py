"""What the processors and memory of a machine look like, whoever tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_setup.errors import DiscoveryError
from scheduler.quantities import Ranges
from scheduler.topology import NumaNode

MIB = 1 << 20

_PCI = re.compile(r"([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")


def pci_address(text: str) -> str:
    """Write a PCI address as Linux and hwloc do, ``0000:3b:00.0``; NVML says ``00000000:3B:00.0``.

    Raises
    ------
    ValueError
        If it is none.
    """
    match = _PCI.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a PCI address such as 0000:3b:00.0")
    domain, bus, device, function = (int(part, 16) for part in match.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function:x}"


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """A NUMA node as the operating system numbers it."""

    cpus: Ranges
    memory: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Processors and memory of a machine."""

    nodes: Mapping[int, MemoryNode]
    """By the operating system's number."""
    smt: tuple[Ranges, ...]
    """Logical CPUs of each physical core."""
    l3: tuple[Ranges, ...] = ()
    """Logical CPUs of each L3 cache."""
    nic_nodes: Mapping[str, int] = field(default_factory=dict)
    """NUMA node of network interfaces, where it is known."""
    pci_nodes: Mapping[str, int] = field(default_factory=dict)
    """NUMA node of PCI devices by their address, where it is known."""
    source: str = ""
    """Who told: for people."""

    def numa(self) -> tuple[NumaNode, ...]:
        """Return the nodes by number.

        Nodes without processors (memory alone, as CXL has it) at the end are left out: nothing can be pinned
        there.

        Raises
        ------
        DiscoveryError
            If a number in between is missing: the numbers are those that tasks bind their memory to, so
            they cannot be changed.
        """
        last = max((number for number, node in self.nodes.items() if node.cpus), default=-1)
        if last < 0:
            raise DiscoveryError(f"{self.source}: no NUMA node has a processor")
        if gaps := sorted(set(range(last + 1)) - set(self.nodes)):
            raise DiscoveryError(
                f"{self.source}: there is a NUMA node {last}, but none with number {gaps[0]}; "
                "nodes must be numbered without gaps"
            )
        return tuple(
            NumaNode(self.nodes[number].cpus, self.nodes[number].memory // MIB)
            for number in range(last + 1)
        )

    @property
    def memory(self) -> int:
        """Bytes of all nodes."""
        return sum(node.memory for node in self.nodes.values())

    @property
    def far_memory(self) -> int:
        """Bytes of the nodes that :meth:`numa` leaves out."""
        kept = len(self.numa())
        return sum(node.memory for number, node in self.nodes.items() if number >= kept)

    def several_l3(self) -> bool:
        """Whether a node has more than one L3 cache, so that it matters which."""
        return any(
            sum(1 for group in self.l3 if group & node.cpus) > 1 for node in self.nodes.values()
        )
