"""The search among plans that draw too much: what it returns draws no more than there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.instances import draw
from benchmarks.packing import read_instance
from scheduler.packing import Shortage, bounds, missing, pack, placing, relaxed, strain, violations
from scheduler.packing.arrays import NOWHERE, PLACE, PLACE_END, Plan
from scheduler.packing.flat import Problem, flatten
from scheduler.packing.relaxed import NEVER, relax
from scheduler.packing.solve import places_of_each
from scheduler.packing.strain import Strain
from scheduler.placement import Placement
from scheduler.requests import GpuRequest, TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing import rich
from tests.scheduler.packing.machines import clusters, graphs, make_agent
from tests.scheduler.packing.reached import reached

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]

bounds_of = reached(bounds.bounds_of)
survey_all = reached(bounds.survey_all)
put_on = reached(placing.put_on)
remove = reached(placing.remove)
forbidden = reached(relaxed.forbidden)
grow = reached(relaxed.grow)
make_move = reached(relaxed.make_move)
place_all = reached(relaxed.place_all)
try_moves = reached(relaxed.try_moves)
users = reached(relaxed.users)
force = reached(strain.force)
overdrawn_slot = reached(strain.overdrawn_slot)
unstrained = reached(strain.unstrained)


def _relaxed(problem: Problem, steps: int, seed: int = 1) -> tuple[bool, Plan]:
    plan = problem.empty_plan()
    until = np.where(places_of_each(problem), 0, NEVER)
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
    fits = places_of_each(problem)
    free = [len(node.cores) for agent in instance.agents for node in agent.topology.numa]
    for task, request in enumerate(instance.tasks.values()):
        for node, cores in enumerate(free):
            if fits[task, node]:
                assert len(request.cores) <= cores
    assert fits.any(axis=1).all()


def test_the_best_move_changes_the_cost_by_what_it_says() -> None:
    """And no other is better: none is passed over for a bound that is wrong."""
    instance = read_instance(draw("mixed-60-98", 1))
    assert _followed(flatten(instance.agents, instance.tasks), steps=60) > 5


@settings(max_examples=60, deadline=None)
@given(rich.clusters(), rich.graphs(5), st.integers(1, 2**32))
def test_bounds_pass_over_nothing_whatever_is_asked_for(
    agents: Cluster, tasks: Tasks, seed: int
) -> None:
    problem = flatten(agents, tasks)
    if not problem.demand.tie.shape[1]:
        _followed(problem, steps=12, seed=seed, exact=False)


def _followed(problem: Problem, steps: int, *, seed: int = 1, exact: bool = True) -> int:
    """Follow the search, looking at every move and swap at every step; return how many steps it took.

    Parameters
    ----------
    exact
        Make each move and take it back to see what it costs. Not so where one slot serves several draws: the
        search takes each for the first then.
    """
    cluster, demand, plan = problem.cluster, problem.demand, problem.empty_plan()
    until = np.where(places_of_each(problem), 0, NEVER)
    strain = unstrained(plan, cluster.weight, problem.free, until)
    random = np.array([seed], np.uint64)
    if not place_all(cluster, demand, plan, strain, random):
        return 0
    bounds = bounds_of(cluster, demand, problem.free)
    survey_all(plan, strain, bounds)
    blind = bounds._replace(need=bounds.need[:0], gain=np.full(len(problem.tasks), np.inf))
    found = np.empty(len(problem.tasks), np.int64)
    for step in range(1, steps):
        slot = overdrawn_slot(plan, strain, random)
        if slot == NOWHERE:
            return step
        n = users(plan, slot, bounds.owner[slot], found)
        assert sorted(found[:n].tolist()) == _all_users(plan, slot)
        best, before = np.inf, _cost(plan, strain)
        unbounded, theirs = np.inf, strain._replace(move=np.full(3, NOWHERE))
        strain.move[0] = NOWHERE
        for task in found[:n].tolist():
            same = random.copy()
            unbounded = try_moves(cluster, demand, plan, theirs, blind, task, step, unbounded, same)
            best = try_moves(cluster, demand, plan, strain, bounds, task, step, best, random)
            assert best == pytest.approx(unbounded)
            if exact:
                assert best <= _best_by_trying(problem, plan, strain, task, step) + 1e-9
        if strain.move[0] != NOWHERE:
            make_move(cluster, demand, plan, strain, bounds, step, random)
            if exact:
                assert _cost(plan, strain) == pytest.approx(before + best)
        grow(plan, strain, bounds, slot)
    return steps


def _all_users(plan: Plan, slot: int) -> list[int]:
    draws = (plan.slot == slot) & (plan.amount > 0)
    drawn = np.arange(plan.slot.shape[1]) < plan.draws[:, np.newaxis]
    return np.flatnonzero((draws & drawn).any(axis=1)).tolist()


def _cost(plan: Plan, strain: Strain) -> float:
    over = np.maximum(-plan.free, 0)
    return float((over * strain.burden + (over > 0) * strain.charge).sum())


def _best_by_trying(problem: Problem, plan: Plan, strain: Strain, task: int, step: int) -> float:
    """Return by how much the best move or swap of a task changes the cost: each is made, and taken back."""
    places, old, before = problem.cluster.places, plan.where[task], _cost(plan, strain)
    span = range(problem.demand.task[task, PLACE], problem.demand.task[task, PLACE_END])
    best = np.inf
    moves = [(place, NOWHERE) for place in span]
    moves += [(plan.where[other], other) for other in range(len(problem.tasks))]
    for place, other in moves:
        if forbidden(places, strain.until, step, task, old, other, place):
            continue
        copy = Plan(*(array.copy() for array in plan))
        mine = strain._replace(
            over=strain.over.copy(), listed=strain.listed.copy(), n_over=strain.n_over.copy()
        )
        remove(problem.cluster, copy, task)
        if other != NOWHERE:
            remove(problem.cluster, copy, other)
        force(problem.cluster, problem.demand, copy, mine, task, place)
        if other != NOWHERE:
            force(problem.cluster, problem.demand, copy, mine, other, old)
        if place == old and (copy.device[task] == plan.device[task]).all():
            continue
        best = min(best, _cost(copy, strain) - before)
    return best


def test_a_task_changes_devices_where_it_is() -> None:
    """The first GPU is for the one with affinity; the other has no other place to go to."""
    agent = make_agent(cores=(1,), gpu_nodes=(0, None))
    near, far = GpuRequest(600, 0, affinity=True), GpuRequest(600, 0)
    tasks = {"a": TaskRequest(cores=("0",), gpus=(far,)), "b": TaskRequest(gpus=(near,))}
    problem = flatten([agent], tasks)
    plan = problem.empty_plan()
    assert put_on(problem.cluster, problem.demand, plan, 0, 0, np.array([0]))
    until = np.zeros((2, len(problem.cluster.places)), np.int64)
    random = np.array([1], np.uint64)
    assert relax(problem.cluster, problem.demand, plan, problem.free, until, random, 20)
    assert plan.device[:, 0].tolist() == [1, 0]


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
