"""Going on from an earlier placement: what of it still holds is laid into a plan."""

from __future__ import annotations

import numpy as np

from scheduler.packing.arrays import (
    AGENT,
    DEVICE,
    NODE,
    NOWHERE,
    Ints,
    Plan,
)
from scheduler.packing.cores import caches
from scheduler.packing.flat import Problem, needs_node
from scheduler.packing.placing import put_back
from scheduler.placement import Assignment, Placement
from scheduler.topology import AgentSnapshot


def resumed(problem: Problem, start: Placement) -> Plan:
    """Return a plan with those tasks where `start` has them that may be and fit there now.

    Tasks and agents that are not known any more are passed over, so are assignments to what an agent has no
    more; which cores and ports a task had does not matter.
    """
    plan = problem.empty_plan()
    numbers = {agent.agent_id: number for number, agent in enumerate(problem.agents)}
    nodes = problem.cluster.places[: problem.n_nodes, AGENT]
    first_node = np.searchsorted(nodes, np.arange(len(numbers)))
    for task, (name, _) in enumerate(problem.tasks):
        assignment = start.assignments.get(name)
        number = None if assignment is None else numbers.get(assignment.agent_id)
        if assignment is None or number is None:
            continue
        place, devices = _place(problem, task, number, int(first_node[number]), assignment)
        if place != NOWHERE:
            put_back(problem.cluster, problem.demand, plan, task, place, devices)
    return plan


def _place(
    problem: Problem, task: int, number: int, first_node: int, assignment: Assignment
) -> tuple[int, Ints]:
    """Return the place and the devices of an assignment; NOWHERE, if there is no such node."""
    agent, request = problem.agents[number], problem.tasks[task][1]
    agent_place = problem.n_nodes + number
    n_gpus = len(agent.topology.gpus)
    local = (*assignment.gpus, *(n_gpus + nic for nic in assignment.nics))
    devices = problem.cluster.places[agent_place, DEVICE] + np.array(local, np.int64)
    if not needs_node(request):
        return agent_place, devices
    node = assignment.numa
    if node is None:  # no cores: the node on which the devices with affinity hang
        near = [n for gpu, n in zip(request.gpus, assignment.gpus, strict=False) if gpu.affinity]
        nodes = [agent.topology.gpus[n].numa for n in near if n < n_gpus]
        near = [n for nic, n in zip(request.nics, assignment.nics, strict=False) if nic.affinity]
        nodes += [agent.topology.nics[n].numa for n in near if n < len(agent.topology.nics)]
        node = nodes[0] if nodes else None
    if node is None or node >= len(agent.topology.numa):
        return NOWHERE, devices
    if request.one_l3:
        return _cache_place(problem, agent, first_node + node, node, assignment), devices
    return first_node + node, devices


def _cache_place(
    problem: Problem, agent: AgentSnapshot, node_place: int, node: int, assignment: Assignment
) -> int:
    """Return the place of the L3 cache of a node that has the cores of an assignment."""
    first = problem.n_nodes + len(problem.agents)
    nodes = problem.cluster.places[first:, NODE]
    first += int(np.searchsorted(nodes, problem.cluster.places[node_place, NODE]))
    for number, cache in enumerate(caches(agent.topology, node)):
        if assignment.cores and assignment.cores[0] in cache:
            return first + number
    return NOWHERE
