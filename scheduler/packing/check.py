"""An independent check of placements: what they draw is added up anew, by the names that agents advertise.

It shares nothing with the search but the vocabulary, so that a slip in the arrays shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from scheduler.constraints import Rule
from scheduler.errors import QuantityError
from scheduler.packing.check_relations import Placed, between, unheard
from scheduler.placement import Assignment, Placement, Running
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot, Topology


def violations(
    agents: Sequence[AgentSnapshot],
    tasks: Mapping[str, TaskRequest],
    placement: Placement,
    running: Sequence[Running] = (),
) -> list[str]:
    """Return everything that is wrong with a placement of (some of) the tasks, one sentence each.

    Parameters
    ----------
    running
        What runs on the agents already, as :func:`~scheduler.packing.pack` takes it.
    """
    by_id = {agent.agent_id: agent for agent in agents}
    free: dict[str, Resources] = {agent.agent_id: agent.free for agent in agents}
    found: list[str] = []
    placed: list[Placed] = []
    for name, assignment in placement.assignments.items():
        agent, request = by_id.get(assignment.agent_id), tasks.get(name)
        if agent is None or request is None or assignment.task != name:
            found.append(f"{name}: there is no such task or agent")
            continue
        problems = list(_shape(agent, request, assignment)) or list(
            _rules(agent, request, assignment)
        )
        found += (f"{name}: {problem}" for problem in problems)
        if problems:
            continue
        try:
            free[agent.agent_id] -= assignment.resources(request)
        except QuantityError as exc:
            found.append(f"{name} on {agent.host}: {exc}")
        placed.append(Placed(name, request, assignment, agent))
    beside = {a.mesos_agent_id: a for a in agents}
    siblings = [
        Placed(task.name, task.request, task.assignment, beside[task.agent_id])
        for task in running
        if task.sibling and task.name not in tasks and task.agent_id in beside
    ]
    everyone = {**tasks, **{one.name: one.request for one in siblings}}
    related = between([*placed, *siblings], everyone)
    return [*found, *related, *unheard(placed, running)]


def missing(tasks: Mapping[str, TaskRequest], placement: Placement) -> list[str]:
    """Return the tasks that a placement leaves out."""
    return [name for name in tasks if name not in placement.assignments]


def _shape(agent: AgentSnapshot, request: TaskRequest, got: Assignment) -> Iterator[str]:
    """Yield what makes the assignment meaningless: wrong counts, things that are not there."""
    pairs = (
        ("cores", request.cores, got.cores),
        ("ports", request.ports, got.ports),
        ("GPUs", request.gpus, got.gpus),
        ("interfaces", request.nics, got.nics),
        ("volumes", request.volumes, got.volumes),
        ("volumes", request.volumes, got.volume_disk),
    )
    for what, asked, given in pairs:
        if len(asked) != len(given):
            yield f"asks for {len(asked)} {what}, got {len(given)}"
    if got.whole_gpu_mem and len(got.whole_gpu_mem) != len(got.gpus):
        yield "tells the whole memory of some GPUs only"
    if len(set(got.cpuset)) != len(got.cpuset) or len(set(got.ports)) != len(got.ports):
        yield "has a core or a port twice"
    topology = agent.topology
    if got.numa is not None and not 0 <= got.numa < len(topology.numa):
        yield f"there is no node {got.numa}"
    for numbers, parts in (
        (got.gpus, topology.gpus),
        (got.nics, topology.nics),
        (got.volumes, topology.volumes),
    ):
        if any(not 0 <= number < len(parts) for number in numbers):
            yield f"there is no such device: {numbers}"


def _rules(agent: AgentSnapshot, request: TaskRequest, got: Assignment) -> Iterator[str]:
    """Yield the rules that the assignment breaks, amounts apart."""
    topology = agent.topology
    if got.host != agent.host or request.host not in (None, agent.host):
        yield f"is on {agent.host}, assigned {got.host}, asks for {request.host}"
    if topology.subsystems and request.subsystem not in topology.subsystems:
        yield f"is of subsystem {request.subsystem}, {agent.host} serves {topology.subsystems}"
    yield from _facts(agent, request)
    node = None if got.numa is None else topology.numa[got.numa]
    yield from _cores(topology, request, got)
    if got.numa_mem != (node is not None and node.mem_mib is not None):
        yield "draws memory of its node though it is not counted, or the reverse"
    for nic, number in zip(request.nics, got.nics, strict=True):
        there = topology.nics[number]
        if nic.network not in there.networks:
            yield f"{there.name} is not on {nic.network}"
        if nic.ibverbs and not there.infiniband:
            yield f"{there.name} has no InfiniBand device"
    for volume, number, counted in zip(request.volumes, got.volumes, got.volume_disk, strict=True):
        found = topology.volumes[number]
        if found.name != volume.name or counted != (found.disk_mib is not None):
            yield f"volume {found.name} for {volume.name}, counted: {counted}"
    yield from _gpus(agent, request, got)
    yield from _affinity(agent, request, got)


def _facts(agent: AgentSnapshot, request: TaskRequest) -> Iterator[str]:
    for constraint in request.constraints:
        told = agent.fact(constraint.fact)
        holds = {
            Rule.EQUAL: told == constraint.value,
            Rule.NOT: told != constraint.value,
            Rule.LIKE: told is not None
            and constraint.rule is Rule.LIKE
            and re.fullmatch(constraint.value, told) is not None,
        }
        if not holds[constraint.rule]:
            yield f"asks for {constraint}, {agent.host} tells {told}"
    for data in request.data:
        if data.required and agent.fact(data.fact) not in data.values:
            yield f"asks for {data}, {agent.host} is at {agent.fact(data.fact)}"


def _cores(topology: Topology, request: TaskRequest, got: Assignment) -> Iterator[str]:
    """Yield what is wrong with the logical CPUs: where they are, how many, and their siblings."""
    if (got.numa is None) != (not request.cores and not request.numa_share):
        yield f"pins {len(request.cores)} cores, node {got.numa}"
    if got.numa is None:
        if got.cpuset:
            yield f"has the cores {got.cpuset}, but no node"
        return
    node = set(topology.numa[got.numa].cores)
    if not set(got.cpuset) <= node:
        yield f"cores {got.cpuset} are not all on node {got.numa}"
    siblings = {cpu: set(group) for group in topology.smt for cpu in group if cpu in node}
    of_core = [siblings.get(cpu, {cpu}) for cpu in got.cores]
    owned = set().union(*of_core) if request.whole_cores else set(got.cores)
    share = -(-len(node) * request.numa_share // 1000)
    if not owned <= set(got.cpuset) or len(got.cpuset) != max(len(owned), share):
        yield f"has the cores {got.cpuset}, should have {owned} and {share} of the node's {len(node)}"
    if request.whole_cores:
        widest = max(map(len, siblings.values()), default=1)
        if len(owned) != widest * len(got.cores):
            yield f"cores {got.cores} are not as many whole physical ones"
    if request.one_l3 and topology.l3:
        groups = [set(group) & node for group in topology.l3 if set(group) & node]
        if groups and not any(set(got.cores) <= group for group in groups):
            yield f"cores {got.cores} do not share an L3 cache"


def _gpus(agent: AgentSnapshot, request: TaskRequest, got: Assignment) -> Iterator[str]:
    for n, (gpu, number) in enumerate(zip(request.gpus, got.gpus, strict=True)):
        there = agent.topology.gpus[number]
        if gpu.name is not None and not fnmatchcase(there.name.lower(), gpu.name.lower()):
            yield f"GPU {number} is a {there.name}, not like {gpu.name}"
        if gpu.min_capability is not None and gpu.min_capability > (
            there.compute_capability or (-1, 0)
        ):
            yield f"GPU {number} has compute capability {there.compute_capability}"
        all_free = agent.free.scalars.get(f"gpu.{number}.mem", 0)
        drawn = got.whole_gpu_mem[n] if got.whole_gpu_mem else 0
        if drawn != (all_free if gpu.exclusive else 0):
            yield f"draws {drawn} of the memory of GPU {number} as a whole, it has {all_free}"
        if gpu.exclusive and all_free < 1000 * (there.mem_mib or 0):
            yield f"GPU {number} is exclusive, but used already"


def _affinity(agent: AgentSnapshot, request: TaskRequest, got: Assignment) -> Iterator[str]:
    near = [
        agent.topology.gpus[number].numa
        for gpu, number in zip(request.gpus, got.gpus, strict=True)
        if gpu.affinity
    ]
    near += [
        agent.topology.nics[number].numa
        for nic, number in zip(request.nics, got.nics, strict=True)
        if nic.affinity
    ]
    nodes = set(near) if got.numa is None else {got.numa, *near}
    if near and (None in nodes or len(nodes) > 1):
        yield f"devices with affinity hang on nodes {near}, the cores are on {got.numa}"
