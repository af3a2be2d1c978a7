"""An independent check of placements: what they draw is added up anew, by the names that agents advertise.

It shares nothing with the search but the vocabulary, so that a slip in the arrays shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from scheduler.errors import QuantityError
from scheduler.placement import Assignment, Placement
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot


def violations(
    agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest], placement: Placement
) -> list[str]:
    """Return everything that is wrong with a placement of (some of) the tasks, one sentence each."""
    by_id = {agent.agent_id: agent for agent in agents}
    free: dict[str, Resources] = {agent.agent_id: agent.free for agent in agents}
    found: list[str] = []
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
    return found


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
    if len(set(got.cores)) != len(got.cores) or len(set(got.ports)) != len(got.ports):
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
    if (got.numa is None) != (not request.cores):
        yield f"pins {len(request.cores)} cores, node {got.numa}"
    node = None if got.numa is None else topology.numa[got.numa]
    if node is not None and not all(core in node.cores for core in got.cores):
        yield f"cores {got.cores} are not all on node {got.numa}"
    if got.numa_mem != (node is not None and node.mem_mib is not None):
        yield "draws memory of its node though it is not counted, or the reverse"
    for nic, number in zip(request.nics, got.nics, strict=True):
        if nic.network not in topology.nics[number].networks:
            yield f"{topology.nics[number].name} is not on {nic.network}"
    for volume, number, counted in zip(request.volumes, got.volumes, got.volume_disk, strict=True):
        there = topology.volumes[number]
        if there.name != volume.name or counted != (there.disk_mib is not None):
            yield f"volume {there.name} for {volume.name}, counted: {counted}"
    yield from _affinity(agent, request, got)


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
