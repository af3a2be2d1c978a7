"""What one agent lacks for one task, in the words that people use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from scheduler.packing.admission import Admission, GpuService, Multicast, NicService, untouched
from scheduler.packing.cores import caches, n_held, physical_cores, whole_ones, wholly_free
from scheduler.packing.counting import count_common
from scheduler.packing.shortage import ADMISSION, Lack, listed
from scheduler.packing.slots import PORTS
from scheduler.quantities import Millis, Ranges, Resources
from scheduler.requests import GpuRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Topology

MIB, MBITS = "MiB", "Mbit/s"
CPUS_AND_CORES: Final = "cpus with its cores"
"""Of a task that has pinned cores: each of them is one of the cpus that it draws."""
CPUS_AND_HELD: Final = "cpus with its cores and those held for it"
CORES_AND_HELD: Final = "cores with those held for it"
"""Of a task that keeps others off: from siblings of its cores, or from its share of the node."""


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
    if refusal := Admission.of(request).refusal(agent):
        yield Need(ADMISSION, 0, 0, absent=refusal)
    scalars, ranges = free.scalars, free.ranges
    taken = _taken(agent, request)
    cores = min(taken, default=len(request.cores))
    cpus = CPUS_AND_HELD if cores > len(request.cores) else CPUS_AND_CORES if cores else "cpus"
    yield Need(cpus, request.cpus + 1000 * cores, scalars.get("cpus", 0))
    yield Need("mem", request.mem, scalars.get("mem", 0), MIB)
    yield Need("disk", request.disk, scalars.get("disk", 0), MIB)
    yield Need(
        "ports",
        1000 * len(request.ports),
        1000 * count_common(ranges.get("ports", Ranges()), PORTS),
    )
    if request.cores or request.numa_share:
        yield from _node_needs(agent, free, request, taken)
    yield from _gpu_needs(agent, free, request)
    yield from _nic_needs(agent, free, request)
    for volume in request.volumes:
        yield _volume_need(agent, free, volume.name, volume.disk)


def lacks(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> tuple[Lack, ...]:
    """Return what keeps a task off an agent; at least one thing, also when only the combination does."""
    found = tuple(lack for need in needs(agent, free, request) if (lack := need.lack))
    if found:
        return found
    combined = ", or ".join(_combinations(agent, free, request)) or "not in one place"
    return (Lack("combination", 0, 0, fact=f"each thing asked for is there, but {combined}"),)


def _combinations(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> Iterator[str]:
    """Say what of a task can be there thing by thing, and still not as it wants it together."""
    if said := _node_by_node(agent, free, request):
        yield said
    if len(request.gpus) > 1 or len(request.nics) > 1:
        yield "not from separate devices"
    relations = (*request.together, *request.apart, *request.at_most)
    if relations:
        yield f"not where this holds, too: {listed(list(map(str, relations)))}"
    if groups := _kept_apart(agent, request):
        yield (
            "not on an interface of its own: without loopback of multicast, one that sends"
            f" {groups} by ibverbs and one that receives it are kept apart"
        )


def _node_by_node(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> str:
    """Say what each NUMA node lacks of what must be on one; empty, if that is not the reason."""
    gpus = tuple(gpu for gpu in request.gpus if gpu.affinity)
    nics = tuple(nic for nic in request.nics if nic.affinity)
    bound = replace(request, gpus=gpus, nics=nics, volumes=())
    said = []
    for node in range(len(agent.topology.numa)):
        there = _of_node(agent, free, node)
        lack = next((lack for need in needs(agent, there, bound) if (lack := need.lack)), None)
        if lack is None:
            return ""
        said.append(f"on NUMA node {node} {lack}")
    return "not on one NUMA node: " + "; ".join(said) if said else ""


def _of_node(agent: AgentSnapshot, free: Resources, node: int) -> Resources:
    """Return what is free on one NUMA node, and what belongs to none."""
    topology = agent.topology
    elsewhere = {f"gpu.{n}." for n, gpu in enumerate(topology.gpus) if gpu.numa != node}
    elsewhere |= {f"nic.{n}." for n, nic in enumerate(topology.nics) if nic.numa != node}
    elsewhere |= {f"numa.{n}." for n in range(len(topology.numa)) if n != node}
    scalars = {k: v for k, v in free.scalars.items() if not k.startswith(tuple(elsewhere))}
    cores = free.ranges.get("cores", Ranges()) & topology.numa[node].cores
    return Resources(scalars, {**free.ranges, "cores": cores})


def _kept_apart(agent: AgentSnapshot, request: TaskRequest) -> str:
    """Return the multicast groups of a task that an interface of the agent does not loop back."""
    networks = {
        n for nic in agent.topology.nics if not nic.multicast_loopback for n in nic.networks
    }
    groups = {
        group
        for nic in request.nics
        if nic.network in networks
        for group in (*(nic.sends if nic.ibverbs else ()), *nic.receives)
    }
    return listed(sorted(groups))


def _whole(topology: Topology, node: int) -> tuple[list[frozenset[int]], int]:
    return whole_ones(physical_cores(topology, node))


def _taken(agent: AgentSnapshot, request: TaskRequest) -> list[int]:
    """Return how many cores of each node a task would take, those with it that it holds and does not name."""
    named, nodes = len(request.cores), agent.topology.numa
    if not request.whole_cores and not request.numa_share:
        return [named] * len(nodes)
    return [
        named + n_held(request, _whole(agent.topology, n)[1], len(node.cores))
        for n, node in enumerate(nodes)
    ]


def _node_needs(
    agent: AgentSnapshot, free: Resources, request: TaskRequest, taken: Sequence[int]
) -> Iterator[Need]:
    offered, topology = free.ranges.get("cores", Ranges()), agent.topology
    free_cores = [count_common(offered, node.cores) for node in topology.numa]
    most = max(zip(free_cores, taken, strict=True), key=lambda n: n[0] - n[1], default=None)
    have, asked = most if most is not None else (0, max(1, len(request.cores)))
    cores = "cores" if asked <= len(request.cores) else CORES_AND_HELD
    yield Need(f"{cores} on one NUMA node", 1000 * asked, 1000 * have)
    counted = [
        free.scalars.get(f"numa.{n}.mem", 0) if node.mem_mib is not None else request.mem
        for n, node in enumerate(topology.numa)
    ]
    yield Need("mem on one NUMA node", request.mem, max(counted, default=request.mem), MIB)
    if request.whole_cores:
        whole = [_whole(topology, n)[0] for n in range(len(topology.numa))]
        most_whole = max((len(wholly_free(of_node, offered)) for of_node in whole), default=0)
        yield Need("whole cores on one NUMA node", 1000 * len(request.cores), 1000 * most_whole)
    if request.one_l3:
        groups = [cache for n in range(len(topology.numa)) for cache in caches(topology, n)]
        in_one = max((count_common(offered, cache) for cache in groups), default=0)
        yield Need("cores on one L3 cache", 1000 * len(request.cores), 1000 * in_one)


def _absent_gpu(gpu: GpuRequest) -> str:
    """Say what GPU there is none of, for people."""
    like = f" like {gpu.name}" if gpu.name is not None else ""
    if gpu.min_capability is not None:
        like += " of compute capability {}.{} or higher".format(*gpu.min_capability)
    return f"no GPU{like}" + (" that nobody uses" if gpu.exclusive else "")


def _gpu_needs(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> Iterator[Need]:
    def amount(number: int, field: str) -> Millis:
        return free.scalars.get(f"gpu.{number}.{field}", 0)

    for gpu in request.gpus:
        service = GpuService.of(gpu)
        numbers = [
            n
            for n, there in enumerate(agent.topology.gpus)
            if service.given_by(
                there, untouched=untouched(there, amount(n, "compute"), amount(n, "mem"))
            )
        ]
        absent = "" if numbers else _absent_gpu(gpu)
        for field, asked, unit in (("compute", gpu.compute, ""), ("mem", gpu.mem, MIB)):
            most = max((amount(n, field) for n in numbers), default=0)
            yield Need(f"gpu.{field} on one GPU", asked, most, unit, absent)
    if len(request.gpus) > 1:
        every = range(len(agent.topology.gpus))
        for field, unit in (("compute", ""), ("mem", MIB)):
            wanted = sum(getattr(gpu, field) for gpu in request.gpus)
            there_is = sum(amount(n, field) for n in every)
            yield Need(f"gpu.{field} on all GPUs together", wanted, there_is, unit)


def _nic_needs(agent: AgentSnapshot, free: Resources, request: TaskRequest) -> Iterator[Need]:
    for nic in request.nics:
        service = NicService.of(nic, Multicast())
        numbers = [
            n for n, there in enumerate(agent.topology.nics) if service.given_by(there, Multicast())
        ]
        verbs = " with an InfiniBand device" if nic.ibverbs else ""
        absent = "" if numbers else f"no interface on network {nic.network}{verbs}"
        for field, asked in (("in", nic.bandwidth_in), ("out", nic.bandwidth_out)):
            most = max((free.scalars.get(f"nic.{n}.{field}", 0) for n in numbers), default=0)
            resource = f"bandwidth {field} on one interface of {nic.network}"
            yield Need(resource, asked, most, MBITS, absent)
    if len(request.nics) > 1:
        networks = dict.fromkeys(nic.network for nic in request.nics)
        serving = [
            n
            for n, there in enumerate(agent.topology.nics)
            if not networks.keys().isdisjoint(there.networks)
        ]
        for field in ("in", "out"):
            wanted = sum(getattr(nic, f"bandwidth_{field}") for nic in request.nics)
            there_is = sum(free.scalars.get(f"nic.{n}.{field}", 0) for n in serving)
            resource = f"bandwidth {field} on all interfaces of {'/'.join(networks)}"
            yield Need(resource, wanted, there_is, MBITS)


def _volume_need(agent: AgentSnapshot, free: Resources, name: str, disk: Millis) -> Need:
    for n, volume in enumerate(agent.topology.volumes):
        if volume.name == name:
            counted = volume.disk_mib is not None
            room = free.scalars.get(f"volume.{n}.disk", 0) if counted else disk
            return Need(f"space on volume {name}", disk, room, MIB)
    return Need(f"space on volume {name}", disk, 0, MIB, f"no volume {name}")
