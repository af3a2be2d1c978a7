"""What the relaxation calls impossible is impossible, and what it names is what is short."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from scheduler.constraints import Apart
from scheduler.packing import Shortage, pack, pools, programme, relaxation
from scheduler.packing.pools import classes_of, groups_of
from scheduler.packing.programme import formulate
from scheduler.packing.relaxation import relax
from scheduler.placement import Placement
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing import rich
from tests.scheduler.packing.machines import clusters, feasible, graphs, make_agent


@settings(max_examples=150, deadline=None)
@given(clusters(), graphs(5))
def test_what_can_be_placed_is_never_called_impossible(
    agents: tuple[AgentSnapshot, ...], tasks: dict[str, TaskRequest]
) -> None:
    answer = pack(agents, tasks, iterations=300)
    found = relax(agents, tasks)
    assert found.solved
    if isinstance(answer, Shortage):
        assert found.left_out <= len(answer.unplaced) + 1e-6
        if found.infeasible:
            assert not feasible(agents, tasks)
            assert found.bindings or answer.too_big
    else:
        assert not found.infeasible


@settings(max_examples=150, deadline=None)
@given(rich.clusters(), rich.graphs(4))
def test_nor_is_what_asks_for_everything_that_can_be_asked_for(
    agents: tuple[AgentSnapshot, ...], tasks: dict[str, TaskRequest]
) -> None:
    """Whole cores, caches, shares of nodes, exclusive GPUs, conditions, relations, multicast."""
    answer = pack(agents, tasks, iterations=300)
    found = relax(agents, tasks)
    assert found.solved
    if isinstance(answer, Shortage):
        assert found.left_out <= len(answer.unplaced) + 1e-6
        assert not (found.infeasible and rich.feasible(agents, tasks))
    else:
        assert not found.infeasible


def test_one_task_is_apart_also_where_no_zone_is_told() -> None:
    alone = TaskRequest.of(groups=["g"], apart=[Apart("g", "rack")])
    agents = (make_agent("a"),)
    assert isinstance(pack(agents, {"t": alone}), Placement)
    assert not relax(agents, {"t": alone}).infeasible
    assert relax(agents, {"t": alone, "u": alone}).infeasible


@settings(max_examples=100, deadline=None)
@given(clusters(), graphs(4))
def test_grouping_by_shape_alone_proves_no_more(
    agents: tuple[AgentSnapshot, ...], tasks: dict[str, TaskRequest]
) -> None:
    """Coarse groups pool more, so they can only be more generous."""
    exact = relax(agents, tasks)
    before, pools.MOST_PAIRS = pools.MOST_PAIRS, 0
    try:
        coarse = relax(agents, tasks)
    finally:
        pools.MOST_PAIRS = before
    assert coarse.left_out <= exact.left_out + 1e-6


def test_pieces_that_do_not_go_in_are_proven_not_to() -> None:
    """Three tasks of 600 on two agents of 1000: enough in sum, but not in pieces."""
    tasks = {f"t{n}": TaskRequest.of(mem_mib=600) for n in range(3)}
    found = relax([make_agent("a"), make_agent("b")], tasks)
    assert found.infeasible
    assert 0.99 < found.left_out <= 1.0 + 1e-6
    assert "room for 2" in str(found.bindings[0]) or "at most 2" in str(found.bindings[0])


def test_the_resource_that_is_short_is_named_with_its_tasks_and_hosts() -> None:
    agents = [make_agent(f"g{n}", gpu_nodes=(0, 1)) for n in range(2)]
    agents += [make_agent(f"c{n}", gpu_nodes=()) for n in range(2)]
    tasks = {
        f"beam.{n}": TaskRequest.of(mem_mib=1 + n, gpus=[GpuRequest.of(0.6, 10)]) for n in range(6)
    }
    tasks |= {f"cal.{n}": TaskRequest.of(mem_mib=100) for n in range(6)}
    found = relax(agents, tasks)
    assert found.infeasible
    assert found.left_out <= 2 + 1e-6, "two more than there are GPUs"
    binding = found.bindings[0]
    assert binding.resource == "gpu.compute"
    assert set(binding.tasks) == {f"beam.{n}" for n in range(6)}
    assert set(binding.hosts) == {"g0", "g1"}
    assert (binding.pieces_asked, binding.pieces_free) == (6, 4)


def test_bandwidth_is_counted_by_the_networks_of_the_interfaces() -> None:
    agent = make_agent(networks=(("cbf", "sdp"), ("sdp",)))
    want = NicRequest.of("cbf", in_mbps=0.4)
    tasks = {f"t{n}": TaskRequest.of(mem_mib=1 + n, nics=[want]) for n in range(4)}
    found = relax([agent], tasks)
    assert not found.infeasible
    more = {name: TaskRequest.of(nics=[NicRequest.of("cbf", in_mbps=400)]) for name in tasks}
    found = relax([agent], more)
    assert 1.99 < found.left_out <= 2 + 1e-6
    assert any("cbf" in str(binding) or not binding.resource for binding in found.bindings)


def test_tasks_that_keep_apart_need_a_zone_each() -> None:
    agents = [make_agent(f"a{n}") for n in range(3)]
    tasks = {
        f"copy.{n}": TaskRequest.of(mem_mib=n, groups=["copies"], apart=[Apart("copies")])
        for n in range(5)
    }
    found = relax(agents, tasks)
    assert 1.99 < found.left_out <= 2 + 1e-6
    assert str(found.bindings[0]) == (
        "on another host than group copies: of 5 tasks (copy.0, copy.1, copy.2, …), there is room for 3"
        " on a0, a1, a2"
    )


def test_where_nothing_is_proven_it_is_told_how_full_it_gets() -> None:
    tasks = {f"t{n}": TaskRequest.of(mem_mib=90 + n) for n in range(10)}
    found = relax([make_agent("a")], tasks)
    assert not found.infeasible
    assert found.filled is not None
    assert abs(found.filled - 0.945) < 1e-6
    assert found.bindings[0].resource == "mem"
    assert (found.bindings[0].asked, found.bindings[0].free) == (945_000, 1_000_000)


def test_what_is_alike_is_looked_at_together() -> None:
    agents = [make_agent(f"a{n}") for n in range(50)]
    tasks = {f"t{n}": TaskRequest.of(cores=("x",), mem_mib=n % 2) for n in range(80)}
    tasks["odd"] = TaskRequest.of(cores=("another name",))
    classes = classes_of(tasks)
    assert [len(c.tasks) for c in classes] == [41, 40]
    groups = groups_of(agents, classes)
    assert groups is not None
    (group,) = groups
    assert len(group.agents) == 50
    assert group.copies == [400, 400]


def test_many_different_tasks_make_no_more_rows_than_can_be_solved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of each amount as many rows as there are amounts, each with all tasks: that grew with the square."""
    tasks = {f"t{n}": TaskRequest.of(mem_mib=400 + n) for n in range(60)}
    agents = [make_agent(host) for host in "abcd"]
    classes = classes_of(tasks)
    groups = groups_of(agents, classes)
    assert groups is not None and len(classes) == 60

    def pieces() -> list[int]:
        return [len(row.coefficients) for row in formulate(classes, groups).limits if row.piece]

    assert len(pieces()) > 20 and sum(pieces()) > 1000
    monkeypatch.setattr(programme, "MOST_ENTRIES", 1000)
    assert 0 < sum(pieces()) <= 1000
    assert relax(agents, tasks).infeasible, "those rows are left that lose most"


def test_what_would_take_too_long_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {f"t{n}": TaskRequest.of(mem_mib=600 + n) for n in range(3)}
    agents = [make_agent("a"), make_agent("b")]
    assert relax(agents, tasks).infeasible
    for bound in ("MOST_FITS", "MOST_COPIES"):
        with monkeypatch.context() as patch:
            patch.setattr(pools, bound, 1)
            found = relax(agents, tasks)
        assert not (found.solved or found.infeasible)
    monkeypatch.setattr(relaxation, "MOST_COLUMNS", 1)
    assert not relax(agents, tasks).solved
