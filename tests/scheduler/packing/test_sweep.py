"""Looking at all places at once finds what looking at one after the other does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks.instances import draw
from benchmarks.packing import read_instance
from scheduler.packing import placing, sweep
from scheduler.packing.arrays import (
    ADMISSION,
    AGENT,
    HUMBLEST,
    NO,
    NOWHERE,
    PLACE,
    PLACE_END,
    RATHER_ELSEWHERE,
    TIGHTEST,
    Plan,
)
from scheduler.packing.flat import Problem, flatten
from scheduler.packing.greedy import insert_all
from scheduler.packing.solve import places_of_each
from scheduler.packing.sweep import columns_of, insert_all_swept
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing import rich
from tests.scheduler.packing.machines import clusters, graphs
from tests.scheduler.packing.reached import reached

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]

left_at = reached(placing.left_at)
sweepable = reached(sweep.sweepable)


def _swept(problem: Problem, rule: int) -> Plan:
    plan, order = problem.empty_plan(), np.argsort(-problem.demand.size, kind="stable")
    columns = columns_of(problem.cluster, problem.free)
    missed = insert_all_swept(problem.cluster, problem.demand, plan, columns, order, rule)
    assert missed == np.count_nonzero(plan.where == NOWHERE)
    return plan


def _one_by_one(problem: Problem, rule: int) -> Plan:
    plan, order = problem.empty_plan(), np.argsort(-problem.demand.size, kind="stable")
    insert_all(problem.cluster, problem.demand, plan, order, rule)
    return plan


def _assert_same(problem: Problem) -> None:
    for rule in (HUMBLEST, TIGHTEST):
        one, other = _swept(problem, rule), _one_by_one(problem, rule)
        assert one.where.tolist() == other.where.tolist()
        assert one.device.tolist() == other.device.tolist()
        assert one.free.tolist() == other.free.tolist()


@settings(max_examples=100, deadline=None)
@given(clusters(), graphs(6))
def test_it_places_as_looking_at_one_place_after_the_other_does(
    agents: Cluster, tasks: Tasks
) -> None:
    _assert_same(flatten(agents, tasks))


@settings(max_examples=60, deadline=None)
@given(rich.clusters(), rich.graphs(5))
def test_it_does_so_whatever_is_asked_for(agents: Cluster, tasks: Tasks) -> None:
    problem = flatten(agents, tasks)
    if not (problem.cluster.admits == RATHER_ELSEWHERE).any():  # there it sees smaller differences
        _assert_same(problem)


@settings(max_examples=60, deadline=None)
@given(rich.clusters(), rich.graphs(5))
def test_it_knows_where_each_task_fits_alone(agents: Cluster, tasks: Tasks) -> None:
    problem = flatten(agents, tasks)
    cluster, demand, plan = problem.cluster, problem.demand, problem.empty_plan()
    fits = places_of_each(problem)
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    for task, row in enumerate(demand.task):
        expected = np.zeros(len(cluster.places), np.uint8)
        for place in range(row[PLACE], row[PLACE_END]):
            admitted = cluster.admits[row[ADMISSION], cluster.places[place, AGENT]] != NO
            left = left_at(cluster, demand, plan.free, task, place, needs)
            expected[place] = admitted and left < np.inf
        assert fits[task].tolist() == expected.tolist()


@pytest.mark.parametrize("family", ["mixed-120-90", "tight-60-85"])
def test_it_is_used_for_all_tasks_of_ordinary_graphs(family: str) -> None:
    instance = read_instance(draw(family, 3))
    problem = flatten(instance.agents, instance.tasks)
    columns = columns_of(problem.cluster, problem.free)
    tasks = range(len(problem.tasks))
    assert all(sweepable(problem.cluster, problem.demand, columns, task) for task in tasks)
    _assert_same(problem)


def test_what_would_be_too_many_columns_is_looked_at_one_by_one() -> None:
    instance = read_instance(draw("mixed-60-85", 3))
    problem = flatten(instance.agents, instance.tasks)
    many = np.repeat(problem.cluster.serves, sweep.MOST_COLUMNS, axis=1)
    crowded = problem.cluster._replace(serves=many)
    columns = columns_of(crowded, problem.free)
    assert len(columns.room) == 0
    assert not sweepable(crowded, problem.demand, columns, 0)
