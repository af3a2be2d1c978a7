"""Agents and requests laid out in arrays: what is kept between calls does not change what comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.packing import Shortage, pack, shapes
from scheduler.packing.arrays import NODE_CORES, NOWHERE
from scheduler.packing.counting import Pools, count_all, count_common, deal, laid, packed
from scheduler.packing.flat import Problem, flatten
from scheduler.packing.readings import read, read_all
from scheduler.packing.shapes import frame_of
from scheduler.placement import Placement
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, TaskRequest
from scheduler.topology import AgentSnapshot, NumaNode
from tests.scheduler.packing.machines import clusters, graphs, make_agent

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]

intervals = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=4)
ranges = st.builds(lambda found: Ranges.of((b, b + n) for b, n in found), intervals)


def _forget() -> None:
    shapes._frames.clear()
    shapes._shapes.clear()


def _assert_same(one: Problem, other: Problem) -> None:
    for mine, theirs in zip(
        (*one.cluster, *one.demand, one.free),
        (*other.cluster, *other.demand, other.free),
        strict=True,
    ):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=50, deadline=None)
@given(clusters(), graphs(5))
def test_agents_seen_before_are_laid_out_as_the_first_time(agents: Cluster, tasks: Tasks) -> None:
    _forget()
    first = flatten(agents, tasks)
    _assert_same(first, flatten(agents, tasks))
    read_again = tuple(replace(agent, topology=replace(agent.topology)) for agent in agents)
    _assert_same(first, flatten(read_again, tasks))


def test_what_is_free_is_read_anew_each_time() -> None:
    agent, tasks = make_agent(), {"a": TaskRequest.of(cores=3)}
    assert isinstance(pack([agent], tasks), Placement)
    less = replace(agent, free=replace(agent.free, ranges={"cores": Ranges(((1, 2), (5, 6)))}))
    assert isinstance(pack([less], tasks), Shortage)


def test_an_agent_is_read_once_and_another_snapshot_of_it_anew() -> None:
    agent = make_agent()
    read_all([agent])
    assert read(agent) is read(agent)
    other = replace(agent, free=replace(agent.free, scalars={**agent.free.scalars, "mem": 1000}))
    assert agent == replace(agent)  # what was read is no part of it
    assert read(other).amounts != read(agent).amounts
    assert read(other).frame is read(agent).frame


def test_machines_that_differ_are_laid_out_differently() -> None:
    agent = make_agent(node_mem=3)
    topology = agent.topology
    gpu, nic, node = topology.gpus[0], topology.nics[0], topology.numa[0]
    others = (
        replace(topology, gpus=(replace(gpu, numa=1), *topology.gpus[1:])),
        replace(topology, gpus=(replace(gpu, name="other"), *topology.gpus[1:])),
        replace(topology, gpus=(replace(gpu, mem_mib=7), *topology.gpus[1:])),
        replace(topology, nics=(replace(nic, networks=("x",)), *topology.nics[1:])),
        replace(topology, nics=(replace(nic, infiniband=("/dev/x",)), *topology.nics[1:])),
        replace(topology, nics=(replace(nic, multicast_loopback=False), *topology.nics[1:])),
        replace(topology, numa=(replace(node, mem_mib=None), *topology.numa[1:])),
    )
    assert len({frame_of(other).shape for other in (topology, *others)}) == 1 + len(others)
    fewer = replace(topology, numa=(NumaNode(Ranges(((0, 2),)), 3), *topology.numa[1:]))
    assert frame_of(fewer).shape is frame_of(topology).shape
    assert frame_of(fewer).cores == packed(((0, 2),), topology.numa[1].cores.intervals)
    laid_out = flatten([replace(agent, topology=fewer)], {}).cluster.places
    assert laid_out[:2, NODE_CORES].tolist() == [3, 4]
    named = replace(topology, gpus=(replace(gpu, uuid="u", device="/dev/g"), *topology.gpus[1:]))
    assert frame_of(named).shape is frame_of(topology).shape


def test_no_more_topologies_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget()
    monkeypatch.setattr(shapes, "MOST_KNOWN", 3)
    agents = [make_agent(str(n), cores=(n + 1, 4), gpu_nodes=(0,) * n) for n in range(10)]
    tasks = {str(n): TaskRequest.of(cores=4) for n in range(17)}
    answer = pack(agents, tasks)
    assert isinstance(answer, Placement)
    assert len(shapes._frames) <= 3
    assert len(shapes._shapes) <= 3
    assert pack(agents, tasks) == answer


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(ranges, st.lists(ranges, max_size=3)), max_size=4), st.data())
def test_what_sets_have_in_common_is_counted_and_dealt_out(
    sets: list[tuple[Ranges, list[Ranges]]], data: st.DataObject
) -> None:
    others = [other for _, of_one in sets for other in of_one]
    owner = np.repeat(np.arange(len(sets)), [len(of_one) for _, of_one in sets])
    one = laid([packed(one.intervals) for one, _ in sets])
    pools = Pools(*one, owner, *laid([packed(other.intervals) for other in others]))
    common = [sorted(set(one) & set(other)) for one, of_one in sets for other in of_one]
    assert count_all(pools).tolist() == [len(members) for members in common]
    pairs = [(one, other) for one, of_one in sets for other in of_one]
    assert [count_common(*pair) for pair in pairs] == [len(members) for members in common]
    draws = st.lists(st.tuples(st.integers(0, len(others) - 1), st.integers(0, 5)), max_size=6)
    drawn = data.draw(draws if others else st.just([]))
    pool, count = np.array(drawn, np.int64).reshape(-1, 2).T.copy()
    dealt = iter(deal(pools, pool, count).tolist())
    for p, n in drawn:
        taken, common[p] = common[p][:n], common[p][n:]
        assert [next(dealt) for _ in range(n)] == taken + [NOWHERE] * (n - len(taken))
    assert next(dealt, None) is None


@pytest.mark.parametrize(
    "request_", [TaskRequest(mem=1 << 70), TaskRequest(gpus=(GpuRequest(1, 1 << 70),))]
)
def test_more_than_an_integer_of_the_arrays_holds_is_asked_for_in_vain(
    request_: TaskRequest,
) -> None:
    answer = pack([make_agent()], {"a": request_, "b": TaskRequest(mem=1)})
    assert isinstance(answer, Shortage)
    assert answer.proven
    assert answer.unplaced == ("a",)


def test_an_agent_may_have_more_than_an_integer_of_the_arrays_holds() -> None:
    agent = make_agent()
    free = Resources({**agent.free.scalars, "mem": 1 << 70}, agent.free.ranges)
    answer = pack([replace(agent, free=free)], {"a": TaskRequest.of(mem_mib=2**29)})
    assert isinstance(answer, Placement)
