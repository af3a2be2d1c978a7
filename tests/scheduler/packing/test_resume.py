"""A later attempt goes on from the fullest plan of an earlier one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.packing import Shortage, missing, pack, violations
from scheduler.packing.answer import assignments
from scheduler.packing.arrays import NOWHERE
from scheduler.packing.flat import flatten
from scheduler.packing.resume import resumed
from scheduler.placement import Assignment, Placement
from scheduler.requests import GpuRequest, TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing.machines import clusters, graphs, make_agent

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]


def _placement(answer: Placement | Shortage) -> Placement:
    return answer.partial if isinstance(answer, Shortage) else answer


@settings(max_examples=80, deadline=None)
@given(clusters(), graphs(5))
def test_all_that_still_holds_is_laid_where_it_was(agents: Cluster, tasks: Tasks) -> None:
    before = _placement(pack(agents, tasks, iterations=200))
    problem = flatten(agents, tasks)
    plan = resumed(problem, before)
    assert (plan.free >= 0).all()
    again = assignments(problem, plan.where, plan.device)
    assert {n: _choice(a) for n, a in again.items()} == {
        n: _choice(a) for n, a in before.assignments.items()
    }


def _choice(a: Assignment) -> tuple[object, ...]:
    return a.agent_id, a.numa, a.gpus, a.nics, a.volumes


@settings(max_examples=80, deadline=None)
@given(clusters(), clusters(), graphs(5), st.integers(0, 3))
def test_a_start_that_does_not_hold_any_more_does_no_harm(
    before: Cluster, now: Cluster, tasks: Tasks, seed: int
) -> None:
    start = _placement(pack(before, tasks, iterations=100))
    answer = pack(now, tasks, iterations=300, start=start, seed=seed)
    assert violations(now, tasks, _placement(answer)) == []
    assert isinstance(answer, Shortage) or not missing(tasks, answer)


def test_no_steps_are_needed_for_what_is_solved() -> None:
    """What greedy orders miss, but the search found, is found again in one step."""
    agents = [make_agent(str(n), cores=(7,), gpu_nodes=(), networks=()) for n in range(2)]
    sizes = [3, 3, 2, 2, 2, 2]
    tasks = {f"t{n}": TaskRequest.of(cores=size) for n, size in enumerate(sizes)}
    assert isinstance(pack(agents, tasks, iterations=0), Shortage)
    solved = pack(agents, tasks)
    assert isinstance(solved, Placement)
    assert isinstance(pack(agents, tasks, iterations=1, start=solved), Placement)


def test_what_an_agent_has_no_more_is_passed_over() -> None:
    agent, poorer = make_agent(gpu_nodes=(0, 1)), make_agent(gpu_nodes=(0,))
    tasks = {n: TaskRequest.of(gpus=[GpuRequest.of(0.6, 1, affinity=True)]) for n in "ab"}
    before = pack([agent], tasks)
    assert isinstance(before, Placement)
    assert sum(resumed(flatten([poorer], tasks), before).where != NOWHERE) == 1
    elsewhere = {n: replace(a, agent_id="gone") for n, a in before.assignments.items()}
    assert (resumed(flatten([agent], tasks), Placement(elsewhere)).where == NOWHERE).all()


def test_a_search_without_time_is_not_begun() -> None:
    agents = [make_agent(str(n), cores=(7,), gpu_nodes=(), networks=()) for n in range(2)]
    tasks = {f"t{n}": TaskRequest.of(cores=size) for n, size in enumerate([3, 3, 2, 2, 2, 2])}
    assert isinstance(pack(agents, tasks, seconds=-1.0), Shortage)
