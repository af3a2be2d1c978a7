"""On large clusters not every place is looked at, and all rules hold all the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from benchmarks.packing_scale import cluster, graph
from scheduler.constraints import DataAt
from scheduler.packing import missing, pack, violations
from scheduler.packing.answer import assignments
from scheduler.packing.arrays import FIRST, HUMBLEST, NOWHERE, TIGHTEST
from scheduler.packing.flat import flatten
from scheduler.packing.greedy import insert_all
from scheduler.packing.indexed import LARGE, insert_all_indexed, make_index
from scheduler.placement import Placement
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing.machines import clusters, graphs

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]


@settings(max_examples=100, deadline=None)
@given(clusters(), graphs(5))
def test_the_index_places_no_fewer_than_looking_everywhere(agents: Cluster, tasks: Tasks) -> None:
    """Of few places all are looked at."""
    problem = flatten(agents, tasks)
    order = np.argsort(-problem.demand.size, kind="stable")
    for rule in (HUMBLEST, TIGHTEST):
        plan, other = problem.empty_plan(), problem.empty_plan()
        index = make_index(problem.cluster, problem.demand, plan, large=0)
        assert index is not None
        missed = insert_all_indexed(problem.cluster, problem.demand, plan, index, order, rule)
        assert missed == np.count_nonzero(plan.where == NOWHERE)
        placed = Placement(assignments(problem, plan.where, plan.device))
        assert violations(agents, tasks, placed) == []
        if insert_all(problem.cluster, problem.demand, other, order[:1], FIRST) == 0:
            assert plan.where[order[0]] != NOWHERE


def test_a_large_cluster_is_filled_to_nine_tenths() -> None:
    agents = cluster(LARGE)
    tasks = graph(agents, 0.9, 2 * LARGE)
    answer = pack(agents, tasks, iterations=0)
    assert isinstance(answer, Placement)
    assert violations(agents, tasks, answer) == []
    assert missing(tasks, answer) == []
    assert pack(agents, tasks, iterations=0) == answer


def test_agents_with_devices_are_kept_free_of_tasks_without() -> None:
    agents = cluster(LARGE)
    tasks = {f"t{n}": TaskRequest.of(cores=1 + n % 4) for n in range(LARGE)}
    answer = pack(agents, tasks)
    assert isinstance(answer, Placement)
    plain = {agent.agent_id for agent in agents if not agent.topology.gpus}
    assert {a.agent_id for a in answer.assignments.values()} <= plain


def test_data_are_gone_to_on_large_clusters_too() -> None:
    """Found by review: the index ended at the humblest agents, wherever the data were."""
    agents = cluster(LARGE)
    rich = next(agent for agent in agents if agent.topology.gpus)
    tasks = {f"t{n}": TaskRequest.of(cores=1) for n in range(20)}
    tasks["at-data"] = TaskRequest.of(cores=1, data=[DataAt("host", (rich.host,))])
    answer = pack(agents, tasks)
    assert isinstance(answer, Placement)
    assert answer.assignments["at-data"].host == rich.host
