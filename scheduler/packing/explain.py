"""From a search that failed to a :class:`~scheduler.packing.shortage.Shortage`."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from scheduler.packing.admission import Admission
from scheduler.packing.flat import flatten
from scheduler.packing.greedy import fits_alone
from scheduler.packing.lacks import MBITS, MIB, Need, lacks, needs
from scheduler.packing.shortage import ADMISSION, Lack, Nearest, Shortage, TooBig, Total, listed
from scheduler.placement import Placement
from scheduler.quantities import Millis, Ranges, Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

_EXPLAINED = 64
"""Tasks for which the nearest agent is looked for; more would not be read."""

_LOOKS = 40_000
"""Agents that are looked at for all of them together; each takes some 20 µs."""

_HOSTS = 3
"""Agents that are named for each of these tasks."""

_NO_ROOM = Lack("room", 0, 0, fact="no room")
"""Said of tasks that fit nowhere, where there are too many different ones to look for more."""

Tasks = Mapping[str, TaskRequest]


def explain(
    agents: Sequence[AgentSnapshot],
    tasks: Tasks,
    partial: Placement,
    capacity: Sequence[AgentSnapshot] | None,
) -> Shortage:
    """Say why the tasks that `partial` leaves out are left out."""
    unplaced = tuple(name for name in tasks if name not in partial.assignments)
    alone = unfit(agents, tasks, unplaced)
    never = [] if capacity is None else unfit(capacity, tasks, alone)
    free = _remaining(agents, tasks, partial)
    return Shortage(
        n_tasks=len(tasks),
        partial=partial,
        unplaced=unplaced,
        never=_too_big_of_all(capacity or (), tasks, never),
        too_big=_too_big_of_all(agents, tasks, [name for name in alone if name not in never]),
        totals=cluster_totals(agents, tasks),
        nearest=_nearest_of_all(agents, free, tasks, unplaced[: _explained(len(agents))]),
    )


def _explained(n_agents: int) -> int:
    """Return for how many tasks the nearest agent is looked for."""
    return max(1, min(_EXPLAINED, _LOOKS // max(1, n_agents)))


def unfit(agents: Sequence[AgentSnapshot], tasks: Tasks, names: Sequence[str]) -> list[str]:
    """Return those of the named tasks that would not fit even if each were the only one."""
    problem = flatten(agents, {name: tasks[name] for name in names})
    plan = problem.empty_plan()
    return [
        name
        for task, name in enumerate(names)
        if not fits_alone(problem.cluster, problem.demand, plan, task)
    ]


def _remaining(
    agents: Sequence[AgentSnapshot], tasks: Tasks, placement: Placement
) -> dict[str, Resources]:
    free = {agent.agent_id: agent.free for agent in agents}
    for name, assignment in placement.assignments.items():
        free[assignment.agent_id] -= assignment.resources(tasks[name])
    return free


def _nearest_of_all(
    agents: Sequence[AgentSnapshot],
    free: Mapping[str, Resources],
    tasks: Tasks,
    names: Sequence[str],
) -> dict[str, tuple[Nearest, ...]]:
    """Look for the nearest agents of each task, once for those that ask for the same."""
    known: dict[TaskRequest, tuple[Nearest, ...]] = {}
    for name in names:
        if (request := tasks[name]) not in known:
            known[request] = _nearest(agents, free, request)
    return {name: known[tasks[name]] for name in names}


def _nearest(
    agents: Sequence[AgentSnapshot], free: Mapping[str, Resources], request: TaskRequest
) -> tuple[Nearest, ...]:
    """Return the agents that lack the smallest part of what is asked, the first of equal ones first."""
    found = []
    for n, agent in enumerate(agents):
        missing = lacks(agent, free[agent.agent_id], request)
        found.append((sum(map(_severity, missing)), n, missing))
    nearest = heapq.nsmallest(_HOSTS, found, key=lambda entry: entry[:2])
    return tuple(Nearest(agents[n].agent_id, agents[n].place, missing) for _, n, missing in nearest)


def _severity(lack: Lack) -> float:
    """Weigh a lack: what cannot be made up by freeing something is worse than any amount."""
    return 10.0 if lack.fact else lack.by / lack.asked


def _too_big_of_all(
    agents: Sequence[AgentSnapshot], tasks: Tasks, names: Sequence[str]
) -> tuple[TooBig, ...]:
    """Say of each task what no agent has enough of, once for those that ask for the same."""
    most = max(1, _LOOKS // 4 // max(1, len(agents)))  # each agent is looked at twice
    known: dict[TaskRequest, TooBig] = {}
    for name in names:
        if (request := tasks[name]) not in known:
            known[request] = (
                _too_big(agents, name, request)
                if len(known) < most
                else TooBig(name, _NO_ROOM, "", None)
            )
    return tuple(replace(known[tasks[name]], task=name) for name in names)


def _too_big(agents: Sequence[AgentSnapshot], name: str, request: TaskRequest) -> TooBig:
    """Say what no agent has enough of for the task."""
    whole = {agent.agent_id: agent.free for agent in agents}
    nearest = next(iter(_nearest(agents, whole, request)), None)
    admitting = [a for a in agents if not _admission_lack(a, request)]
    rows = [(agent.place, list(needs(agent, agent.free, request))) for agent in admitting]
    if not rows:
        return TooBig(name, _admission_lack_of_all(agents, request), "", nearest)
    for column in zip(*(row for _, row in rows), strict=True):
        lack, host = _least(column, [host for host, _ in rows])
        if lack is not None:
            return TooBig(name, lack, host, nearest)
    return TooBig(name, None, "", nearest)


def _admission_lack(agent: AgentSnapshot, request: TaskRequest) -> Lack | None:
    first = next(needs(agent, agent.free, request))
    return first.lack if first.resource == ADMISSION else None


def _admission_lack_of_all(agents: Sequence[AgentSnapshot], request: TaskRequest) -> Lack | None:
    """Say what is asked of agents that none of them is, and what they are instead."""
    admission = Admission.of(request)
    hosts = {agent.host for agent in agents}
    if request.host is not None and request.host not in hosts:
        near = get_close_matches(request.host, hosts, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        fact = f"asks for host {request.host}, which is none of the agents{hint}"
        return Lack(ADMISSION, 0, 0, fact=fact)
    told: dict[str, dict[str, None]] = {}
    for agent in agents:
        if (contrary := admission.contrary(agent)) is not None and contrary[
            0
        ] != f"host {request.host}":
            told.setdefault(contrary[0], {})[contrary[1]] = None
    said = [f"asks for {a}, there it is {listed(sorted(has))}" for a, has in told.items()]
    return Lack(ADMISSION, 0, 0, fact="; or ".join(said)) if said else None


def _least(column: Sequence[Need], hosts: Sequence[str]) -> tuple[Lack | None, str]:
    """Return the smallest lack of one thing over all agents, and where; None if one agent has enough."""
    best: tuple[Lack, str] | None = None
    for need, host in zip(column, hosts, strict=True):
        if need.lack is None:
            return None, ""
        if best is None or (bool(need.absent), -need.free) < (bool(best[0].fact), -best[0].free):
            best = (need.lack, host)
    return best if best is not None else (None, "")


def cluster_totals(agents: Sequence[AgentSnapshot], tasks: Tasks) -> tuple[Total, ...]:
    """Add up what all tasks ask for and what all agents have, by resource.

    What is asked of interfaces is added up by network; an interface counts for each network that it is on.
    Each total that is short proves by itself that the tasks do not fit.
    """
    asked = _asked(tasks)
    return tuple(
        _total(resource, unit, amount, agents)
        for (resource, unit), amount in asked.items()
        if amount > 0
    )


def _asked(tasks: Tasks) -> dict[tuple[str, str], Millis]:
    asked: dict[tuple[str, str], Millis] = {}

    def add(resource: str, unit: str, amount: Millis) -> None:
        asked[resource, unit] = asked.get((resource, unit), 0) + amount

    for request in tasks.values():
        add("cores", "", 1000 * len(request.cores))
        add("cpus", "", request.cpus + 1000 * len(request.cores))
        add("mem", MIB, request.mem)
        add("disk", MIB, request.disk)
        add("ports", "", 1000 * len(request.ports))
        for gpu in request.gpus:
            add("gpu.compute", "", gpu.compute)
            add("gpu.mem", MIB, gpu.mem)
        for nic in request.nics:
            add(f"bandwidth in of {nic.network}", MBITS, nic.bandwidth_in)
            add(f"bandwidth out of {nic.network}", MBITS, nic.bandwidth_out)
    return asked


def _total(resource: str, unit: str, asked: Millis, agents: Sequence[AgentSnapshot]) -> Total:
    largest, host, free = 0, "", 0
    for agent in agents:
        amount = _free_of(agent, resource)
        free += amount
        if amount > largest:
            largest, host = amount, agent.place
    return Total(resource, asked, free, largest, host, unit)


def _free_of(agent: AgentSnapshot, resource: str) -> Millis:
    scalars, ranges = agent.free.scalars, agent.free.ranges
    if resource in ("cores", "ports"):
        return 1000 * len(ranges.get(resource, Ranges()))
    if resource.startswith("gpu."):
        field = resource.partition(".")[2]
        return sum(scalars.get(f"gpu.{n}.{field}", 0) for n in range(len(agent.topology.gpus)))
    if resource.startswith("bandwidth "):
        _, direction, _, network = resource.split(" ", 3)
        return sum(
            scalars.get(f"nic.{n}.{direction}", 0)
            for n, nic in enumerate(agent.topology.nics)
            if network in nic.networks
        )
    return scalars.get(resource, 0)
