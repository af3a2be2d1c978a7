"""Several agents on one machine, for a cluster that runs in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from agent_setup.errors import DiscoveryError
from scheduler.quantities import Ranges, Resources
from scheduler.topology import NumaNode, Topology

FIRST_ADDRESS: Final = IPv4Address("127.0.1.1")
PORTS: Final = Ranges(((20_000, 31_999),))
"""Below Linux' ephemeral ports (32768 and up), which a client's socket may take at any time."""
MIN_CPUS: Final = 4


class SharedAgent(NamedTuple):
    """One of several agents on a machine."""

    hostname: str
    """Its own loopback address."""
    resources: Resources
    attributes: dict[str, str]


def share_machine(
    topology: Topology,
    agents: int,
    *,
    mem_mib: int | None = None,
    disk_mib: int = 16_384,
    cpus: int | None = None,
    ports: Ranges = PORTS,
) -> list[SharedAgent]:
    """Let several agents share one machine, as if each were a machine of its own.

    Each agent has a copy of the machine's topology. What can be divided is divided: memory, disk, ports, and
    whole GPUs (in turn). What cannot be divided is advertised by every agent, though it is there once:
    *cores*, the speed of interfaces and volumes. So two tasks that are pinned to the same core by two agents
    do share it; this is for development, demonstrations and tests, not for measurements. ``cpus`` is nominal:
    Mesos counts it, and on a machine with fewer processors tasks are merely slower.

    Parameters
    ----------
    agents
        How many, 1 to 250. Their host names, and the addresses of their interfaces, are 127.0.1.1,
        127.0.1.2 and so on.
    mem_mib, disk_mib
        What all agents together have, MiB; by default all memory of the topology.
    cpus
        Of each agent; by default as many as there are logical CPUs, and at least 4. Pinned cores are taken
        from these.
    ports
        What all agents together have; each gets a contiguous part.

    Raises
    ------
    DiscoveryError
        If there is not at least 1 MiB and one port for each agent.
    """
    total = sum(node.mem_mib or 0 for node in topology.numa)
    mem = total if mem_mib is None else mem_mib
    n_ports = len(ports) // max(agents, 1)
    if not 1 <= agents <= 250:
        raise DiscoveryError(f"{agents} agents on one machine: expected 1 to 250")
    if mem < agents or n_ports < 1 or disk_mib < 0:
        raise DiscoveryError(f"{agents} agents cannot share {mem} MiB and {len(ports)} ports")
    nominal = max(len(topology.cores), MIN_CPUS) if cpus is None else cpus
    shared = []
    for i in range(agents):
        host = str(FIRST_ADDRESS + i)
        scalars = {"cpus": nominal, "mem": mem // agents, "disk": disk_mib // agents}
        part = _part(topology, i, agents, host, {"have": total, "give": mem})
        ports_of = ports.take(n_ports)
        ports -= ports_of
        own = Resources({k: 1000 * v for k, v in scalars.items()}, {"ports": ports_of})
        shared.append(SharedAgent(host, own + part.resources(), part.to_attributes()))
    return shared


def _part(
    topology: Topology, index: int, agents: int, address: str, memory: Mapping[str, int]
) -> Topology:
    """Return the machine as one of its agents shows it."""

    def share(node: NumaNode) -> NumaNode:
        """Return a node with the part of its memory that one agent may give away."""
        if node.mem_mib is None:
            return node
        return replace(
            node, mem_mib=node.mem_mib * memory["give"] // (max(memory["have"], 1) * agents)
        )

    return replace(
        topology,
        numa=tuple(share(node) for node in topology.numa),
        gpus=topology.gpus[index::agents],
        nics=tuple(replace(nic, address=address) for nic in topology.nics),
    )
