"""What one agent lacks for one task, in the words that people use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.packing.layout import PORTS, admits, count_common
from scheduler.packing.shortage import Lack
from scheduler.quantities import Millis, Ranges, Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

MIB, MBITS = "MiB", "Mbit/s"


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a task asks of an agent, and the most of it that one place there has free."""

    resource: str
    asked: Millis
    free: Millis
    unit: str = ""
    absent: str = ""
    """Said when the agent has no such thing at all; empty when it has."""

    @property
    def lack(self) -> Lack | None:
        """What is missing, if something is."""
        if self.absent:
            return Lack(self.resource, self.asked, 0, self.unit, self.absent)
        if self.asked > self.free:
            return Lack(self.resource, self.asked, self.free, self.unit)
        return None


def needs(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> Iterator[Need]:
    """Yield each thing that a task asks for, looked at by itself, with what `agent` has of it."""
    if not admits(agent, request.host, request.subsystem):
        yield Need("admission", 0, 0, absent=_not_admitted(request))
    scalars, ranges = free.scalars, free.ranges
    yield Need("cpus", request.cpus + 1000 * len(request.cores), scalars.get("cpus", 0))
    yield Need("mem", request.mem, scalars.get("mem", 0), MIB)
    yield Need("disk", request.disk, scalars.get("disk", 0), MIB)
    yield Need(
        "ports",
        1000 * len(request.ports),
        1000 * count_common(ranges.get("ports", Ranges()), PORTS),
    )
    if request.cores:
        yield from _node_needs(agent, free, request)
    yield from _gpu_needs(agent, free, request)
    yield from _nic_needs(agent, free, request)
    for volume in request.volumes:
        yield _volume_need(agent, free, volume.name, volume.disk)


def lacks(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> tuple[Lack, ...]:
    """Return what keeps a task off an agent; at least one thing, also when only the combination does."""
    found = tuple(lack for need in needs(agent, free, request) if (lack := need.lack))
    if found:
        return found
    combined = (
        "each thing asked for is there, but not on one NUMA node or not from separate devices"
    )
    return (Lack("combination", 0, 0, fact=combined),)


def _not_admitted(request: TaskRequest) -> str:
    if request.host is not None:
        return f"asks for host {request.host}"
    return f"does not serve subsystem {request.subsystem or '(none)'}"


def _node_needs(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> Iterator[Need]:
    offered = free.ranges.get("cores", Ranges())
    nodes = agent.topology.numa
    cores = max((count_common(offered, node.cores) for node in nodes), default=0)
    yield Need("cores on one NUMA node", 1000 * len(request.cores), 1000 * cores)
    counted = [
        free.scalars.get(f"numa.{n}.mem", 0) if node.mem_mib is not None else request.mem
        for n, node in enumerate(nodes)
    ]
    yield Need("mem on one NUMA node", request.mem, max(counted, default=request.mem), MIB)


def _gpu_needs(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> Iterator[Need]:
    count = range(len(agent.topology.gpus))
    for gpu in request.gpus:
        absent = "" if count else "no GPU"
        for field, asked, unit in (("compute", gpu.compute, ""), ("mem", gpu.mem, MIB)):
            most = max((free.scalars.get(f"gpu.{n}.{field}", 0) for n in count), default=0)
            yield Need(f"gpu.{field} on one GPU", asked, most, unit, absent)


def _nic_needs(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> Iterator[Need]:
    for nic in request.nics:
        numbers = [n for n, n_ in enumerate(agent.topology.nics) if nic.network in n_.networks]
        absent = "" if numbers else f"no interface on network {nic.network}"
        for field, asked in (("in", nic.bandwidth_in), ("out", nic.bandwidth_out)):
            most = max((free.scalars.get(f"nic.{n}.{field}", 0) for n in numbers), default=0)
            resource = f"bandwidth {field} on one interface of {nic.network}"
            yield Need(resource, asked, most, MBITS, absent)


def _volume_need(agent: AgentSnapshot, free: Resources, name: str, disk: Millis) -> Need:
    for n, volume in enumerate(agent.topology.volumes):
        if volume.name == name:
            counted = volume.disk_mib is not None
            room = free.scalars.get(f"volume.{n}.disk", 0) if counted else disk
            return Need(f"space on volume {name}", disk, room, MIB)
    return Need(f"space on volume {name}", disk, 0, MIB, f"no volume {name}")
