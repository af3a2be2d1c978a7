"""What is given up without a search could not have been placed by one; and all that is proven is given up."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from scheduler.constraints import Apart
from scheduler.packing import Shortage, pack, solve
from scheduler.packing.explain import cluster_totals, unfit
from scheduler.packing.flat import Problem, flatten
from scheduler.packing.proof import hopeless
from scheduler.placement import Assignment, Running
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing import rich
from tests.scheduler.packing.machines import clusters, feasible, graphs, make_agent

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]


def given_up(problem: Problem) -> bool:
    return hopeless(problem, np.arange(len(problem.tasks)))


def proven(agents: Cluster, tasks: Tasks) -> bool:
    """As a shortage has it, from the requests and offers themselves."""
    short = any(total.short for total in cluster_totals(agents, tasks))
    return short or bool(unfit(agents, tasks, list(tasks)))


@settings(max_examples=120, deadline=None)
@given(clusters(max_agents=2), graphs(3))
def test_what_is_given_up_fits_in_no_way_and_all_that_is_proven_is_given_up(
    agents: Cluster, tasks: Tasks
) -> None:
    hope = not given_up(flatten(agents, tasks))
    assert hope or not feasible(agents, tasks)
    assert not (hope and proven(agents, tasks))


@settings(max_examples=120, deadline=None)
@given(rich.clusters(), rich.graphs(4))
def test_no_search_places_what_is_given_up(agents: Cluster, tasks: Tasks) -> None:
    problem = flatten(agents, tasks)
    plan, missing = solve._greedy(problem, searched=True)
    if not given_up(problem):
        assert not any(total.short for total in cluster_totals(agents, tasks))
        return
    assert missing
    effort = solve.Effort(0, 300, None)
    _, missing = solve._search(problem, plan, missing, effort, None, solve._Rooms.of(problem))
    assert missing


def test_totals_are_those_of_gpus_and_of_the_interfaces_of_each_network() -> None:
    agents = [make_agent("a"), make_agent("b")]
    n_gpus = sum(len(agent.topology.gpus) for agent in agents)
    half = TaskRequest.of(gpus=[GpuRequest.of(0.5, 1)])
    fits = {f"t{n}": half for n in range(2 * n_gpus)}
    assert not given_up(flatten(agents, fits))
    assert given_up(flatten(agents, {**fits, "more": half}))
    nic = agents[0].topology.nics[0]
    free = sum(
        agent.free.scalars[f"nic.{n}.in"]
        for agent in agents
        for n, other in enumerate(agent.topology.nics)
        if nic.networks[0] in other.networks
    )
    share = TaskRequest(nics=(NicRequest(nic.networks[0], free // 8, 0),))
    full = {f"t{n}": share for n in range(8)}
    assert not given_up(flatten(agents, full))
    assert given_up(flatten(agents, {**full, "more": share}))


def test_what_no_longer_fits_beside_running_siblings_is_given_up_at_once() -> None:
    """The arrays know of siblings; the totals of offers do not."""
    agents = [rich.machine(host=host, rack="r1") for host in "ab"]
    apart = Apart("g", "rack")
    tasks = {"new": TaskRequest.of(groups=["g"], apart=[apart])}
    old = Running(TaskRequest.of(groups=["g"]), Assignment("old", "a-id", "a"), sibling=True)
    assert not given_up(flatten(agents, tasks))
    assert given_up(flatten(agents, tasks, [old]))
    answer = pack(agents, tasks, running=[old])
    assert isinstance(answer, Shortage)
