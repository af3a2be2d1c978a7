"""The search among plans that draw too much: what it returns draws no more than there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.instances import draw
from benchmarks.packing import read_instance
from scheduler.packing import Shortage, missing, pack, violations
from scheduler.packing.arrays import NOWHERE, Plan
from scheduler.packing.flat import Problem, flatten
from scheduler.packing.relaxed import NEVER, mark_places, relax
from scheduler.placement import Placement
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing.machines import clusters, graphs

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]


def _relaxed(problem: Problem, steps: int, seed: int = 1) -> tuple[bool, Plan]:
    plan = problem.empty_plan()
    until = np.empty((len(problem.tasks), len(problem.cluster.places)), np.int64)
    mark_places(problem.cluster, problem.demand, plan, problem.free, until)
    random = np.array([seed], np.uint64)
    cluster, demand = problem.cluster, problem.demand
    return relax(cluster, demand, plan, problem.free, until, random, steps), plan


@settings(max_examples=100, deadline=None)
@given(clusters(), graphs(5), st.integers(1, 2**32))
def test_a_plan_that_it_calls_done_is_whole_and_holds(
    agents: Cluster, tasks: Tasks, seed: int
) -> None:
    problem = flatten(agents, tasks)
    done, plan = _relaxed(problem, 200, seed)
    drawn = np.zeros_like(plan.free)
    for task, draws in enumerate(plan.draws):
        np.add.at(drawn, plan.slot[task, :draws], plan.amount[task, :draws])
    placed = plan.where != NOWHERE
    assert (plan.free + drawn == problem.free).all()
    assert (plan.draws[~placed] == 0).all()
    if done:
        assert placed.all()
        assert (plan.free >= 0).all()


def test_places_where_a_task_never_fits_are_marked() -> None:
    instance = read_instance(draw("mixed-60-95", 0))
    problem = flatten(instance.agents, instance.tasks)
    until = np.empty((len(problem.tasks), len(problem.cluster.places)), np.int64)
    plan = problem.empty_plan()
    mark_places(problem.cluster, problem.demand, plan, problem.free, until)
    free = [len(node.cores) for agent in instance.agents for node in agent.topology.numa]
    for task, request in enumerate(instance.tasks.values()):
        for node, cores in enumerate(free):
            if until[task, node] != NEVER:
                assert len(request.cores) <= cores
    assert ((until == 0).any(axis=1)).all()


def test_what_fills_the_cluster_is_placed() -> None:
    """Greedy orders leave tasks out of each of these."""
    for family, seed in (("mixed-60-98", 3), ("mixed-400-98", 1), ("tight-120-90", 2)):
        instance = read_instance(draw(family, seed))
        assert isinstance(pack(instance.agents, instance.tasks, iterations=0), Shortage)
        done, plan = _relaxed(flatten(instance.agents, instance.tasks), 20_000)
        assert done, family
        assert (plan.free >= 0).all()
        answer = pack(instance.agents, instance.tasks)
        assert isinstance(answer, Placement)
        assert violations(instance.agents, instance.tasks, answer) == []
        assert missing(instance.tasks, answer) == []


@pytest.mark.parametrize("family", ["mixed-120-90", "tight-60-75", "infeasible-cores"])
def test_instances_are_drawn_alike_for_a_seed_and_unlike_for_others(family: str) -> None:
    assert draw(family, 5) == draw(family, 5)
    assert draw(family, 5)["tasks"] != draw(family, 6)["tasks"]
    instance = read_instance(draw(family, 5))
    free = sum(len(node.cores) for agent in instance.agents for node in agent.topology.numa)
    asked = sum(len(task.cores) for task in instance.tasks.values())
    assert (asked <= free) == instance.feasible
