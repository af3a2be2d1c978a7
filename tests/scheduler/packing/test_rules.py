"""Conditions, relations, whole cores and devices: kept by every placement, and met where they can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.constraints import Apart, AtMost, Constraint, DataAt, Rule, Together
from scheduler.packing import Shortage, missing, pack, violations
from scheduler.placement import Assignment, Placement, Running
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing.rich import (
    A100,
    L40,
    OLD,
    clusters,
    core_requests,
    feasible,
    graphs,
    interface,
    machine,
    split_caches,
)

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]

pinned = core_requests.map(lambda asked: TaskRequest.of(**asked))
in_caches = st.builds(
    TaskRequest.of, cores=st.integers(1, 2), whole_cores=st.booleans(), one_l3=st.just(True)
) | st.builds(TaskRequest.of, cores=st.integers(1, 3))


def placed(agents: Cluster | list[AgentSnapshot], tasks: Tasks) -> dict[str, Assignment]:
    answer = pack(agents, tasks)
    assert isinstance(answer, Placement), str(answer)
    assert violations(agents, tasks, answer) == []
    assert not missing(tasks, answer)
    return dict(answer.assignments)


def refused(agents: Cluster | list[AgentSnapshot], tasks: Tasks) -> Shortage:
    answer = pack(agents, tasks, iterations=2000)
    assert isinstance(answer, Shortage), str(answer)
    assert violations(agents, tasks, answer.partial) == []
    return answer


@settings(max_examples=150, deadline=None)
@given(clusters(), graphs(5))
def test_a_placement_keeps_every_rule(agents: Cluster, tasks: Tasks) -> None:
    answer = pack(agents, tasks, iterations=300)
    placement = answer.partial if isinstance(answer, Shortage) else answer
    assert violations(agents, tasks, placement) == []
    left_out = missing(tasks, placement)
    assert left_out == (list(answer.unplaced) if isinstance(answer, Shortage) else [])
    assert str(answer)


@settings(max_examples=100, deadline=None)
@given(clusters(most=2), graphs(3))
def test_what_can_be_placed_is_placed(agents: Cluster, tasks: Tasks) -> None:
    answer = pack(agents, tasks, iterations=2000)
    possible = feasible(agents, tasks)
    assert isinstance(answer, Placement) == possible
    assert not (possible and isinstance(answer, Shortage) and answer.proven)


def holds_back(tasks: Tasks) -> bool:
    """Whether cores of one cache may break whole ones of any: then more is held back than must be."""
    in_one = any(r.one_l3 and not r.whole_cores for r in tasks.values())
    return in_one and any(r.whole_cores and not r.one_l3 for r in tasks.values())


@settings(max_examples=60, deadline=None)
@given(
    clusters(split_caches, most=1),
    (graphs(3, in_caches) | graphs(3, pinned)).filter(lambda tasks: not holds_back(tasks)),
)
def test_cores_that_can_be_found_are_found(agents: Cluster, tasks: Tasks) -> None:
    answer = pack(agents, tasks, iterations=500)
    assert isinstance(answer, Placement) == feasible(agents, tasks)


@settings(max_examples=60, deadline=None)
@given(clusters(split_caches), graphs(6, in_caches | pinned))
def test_mixed_cores_are_right_wherever_they_are_given(agents: Cluster, tasks: Tasks) -> None:
    """Caches, whole cores and shares all at once: then more is held back than must be, never less."""
    answer = pack(agents, tasks, iterations=300)
    placement = answer.partial if isinstance(answer, Shortage) else answer
    assert violations(agents, tasks, placement) == []


@settings(max_examples=40, deadline=None)
@given(clusters(), graphs(4), st.integers(0, 2**32))
def test_the_same_input_has_the_same_answer(agents: Cluster, tasks: Tasks, seed: int) -> None:
    answers = [pack(agents, tasks, seed=seed, iterations=200) for _ in range(2)]
    assert answers[0] == answers[1]


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(8)), st.permutations(range(4)))
def test_an_easy_graph_fits_in_any_order(task_order: list[int], agent_order: list[int]) -> None:
    agents = [
        machine(str(n), rack=f"r{n // 2}", gpus=[A100], nics=[interface()]) for n in agent_order
    ]
    multicast = {"sends": ["m"], "receives": []}, {"sends": [], "receives": ["m"]}
    tasks = {
        f"t{n}": TaskRequest.of(
            cores=1,
            whole_cores=True,
            gpus=[GpuRequest.of(0.5, 50)],
            nics=[NicRequest.of("cbf", ibverbs=True, **multicast[n % 4 == 0])],
            groups=[f"pair{n // 2}"],
            at_most=[AtMost(f"pair{n // 2}", 1)],
        )
        for n in task_order
    }
    tasks = {n: replace(r, nics=()) if n not in ("t0", "t4") else r for n, r in tasks.items()}
    placed(agents, tasks)


# ---- cores


def test_a_whole_core_has_its_siblings_and_its_first_is_the_named_one() -> None:
    agent = machine(nodes=((0, 1, 2, 3, 16, 17, 18, 19),), smt=1)
    smt = tuple(type(agent.topology.numa[0].cores).of_values((n, n + 16)) for n in range(4))
    agent = replace(agent, topology=replace(agent.topology, smt=smt))
    found = placed([agent], {"a": TaskRequest.of(cores=["rx", "tx"], whole_cores=True)})["a"]
    assert (found.cores, found.held_cores) == ((0, 1), (16, 17))
    assert found.cpuset == (0, 1, 16, 17)
    assert found.resources(TaskRequest.of(cores=2)).scalars["cpus"] == 4000


def test_a_core_with_a_sibling_that_is_taken_is_not_whole() -> None:
    whole = TaskRequest.of(cores=1, whole_cores=True)
    agents = [machine(taken=(0,))]
    assert placed(agents, {"a": whole})["a"].cpuset == (2, 3)
    answer = refused(agents, {"a": whole, "b": whole})
    assert "whole cores on one NUMA node" in str(answer)


def test_a_core_of_which_the_agent_keeps_a_sibling_is_not_whole() -> None:
    agents = [machine(nodes=((1, 2, 3),), smt=2)]
    whole = TaskRequest.of(cores=1, whole_cores=True)
    assert placed(agents, {"a": whole})["a"].cpuset == (1, 2)
    refused(agents, {"a": whole, "b": whole})


def test_cores_fill_up_physical_cores_and_caches_before_others_are_begun() -> None:
    agent = machine(nodes=(range(12),), l3=[range(4), range(4, 8), range(8, 12)], taken=(0, 8, 9))
    one, two, four = (TaskRequest.of(cores=n) for n in (1, 2, 4))
    assert placed([agent], {"a": one})["a"].cores == (1,), "its sibling is taken already"
    assert placed([agent], {"a": two})["a"].cores == (10, 11), "the fullest cache has just that"
    found = placed([agent], {"a": two, "b": one, "c": four})
    assert (found["a"].cores, found["b"].cores) == ((10, 11), (1,))
    assert found["c"].cores == (4, 5, 6, 7)
    broken = machine(taken=(1,))
    assert placed([broken], {"a": one})["a"].cores == (0,), "the other physical core stays whole"


def test_cores_of_one_cache() -> None:
    agent = machine(l3=[(0, 1), (2, 3)], taken=(0,))
    asked = TaskRequest.of(cores=2, one_l3=True)
    assert placed([agent], {"a": asked})["a"].cores == (2, 3)
    assert placed([agent], {"b": TaskRequest.of(cores=1), "a": asked})["b"].cores == (1,)
    answer = refused([agent], {"a": TaskRequest.of(cores=3, one_l3=True)})
    assert "cores on one L3 cache" in str(answer)


def test_cores_of_one_cache_do_not_break_whole_ones_that_were_promised() -> None:
    agent = machine(nodes=(range(8),), l3=[range(4), range(4, 8)])
    three, whole = TaskRequest.of(cores=3, one_l3=True), TaskRequest.of(cores=1, whole_cores=True)
    refused([agent], {"a": three, "b": three, "w": whole})
    found = placed([agent], {"a": three, "w": whole, "v": whole})
    assert len({cpu for a in found.values() for cpu in a.cpuset}) == 7


def test_a_node_for_itself() -> None:
    agent = machine(nodes=((0, 1), (2, 3)))
    engine = TaskRequest.of(cores=["main"], numa_share=1)
    other = TaskRequest.of(cores=1)
    found = placed([agent], {"a": other, "engine": engine})
    assert len(found["engine"].cpuset) == 2
    assert found["engine"].numa != found["a"].numa
    assert found["engine"].resources(engine).scalars["cpus"] == 2000
    refused([agent], {"a": other, "b": engine, "c": engine})
    refused([machine(nodes=((0, 1),), taken=(1,))], {"a": engine})
    half = TaskRequest.of(numa_share=0.5)
    assert len(placed([agent], {"a": half})["a"].held_cores) == 1, "also without naming a core"


# ---- devices


def test_a_gpu_by_name_and_capability() -> None:
    agents = [machine(gpus=[OLD, A100, L40])]
    by_name = TaskRequest.of(gpus=[GpuRequest.of(0.1, 1, name="NVIDIA-A100*")])
    newer = TaskRequest.of(gpus=[GpuRequest.of(0.1, 1, min_capability="8.6")])
    assert placed(agents, {"a": by_name})["a"].gpus == (1,)
    assert placed(agents, {"a": newer})["a"].gpus == (2,)
    answer = refused([machine(gpus=[OLD])], {"a": by_name, "b": newer})
    assert "no GPU like NVIDIA-A100*" in str(answer)
    assert "compute capability 8.6 or higher" in str(answer)


def test_an_exclusive_gpu_is_nobody_elses() -> None:
    agents = [machine(gpus=[A100, A100], gpu_mem=(50, 100))]
    alone = TaskRequest.of(gpus=[GpuRequest.of(1, 10, exclusive=True)])
    little = TaskRequest.of(gpus=[GpuRequest.of(0, 0)])
    found = placed(agents, {"b": little, "a": alone})
    assert found["a"].gpus == (1,), "somebody has memory of the other one"
    assert found["b"].gpus == (0,)
    drawn = found["a"].resources(alone).scalars
    assert (drawn["gpu.1.compute"], drawn["gpu.1.mem"]) == (1000, 100_000)
    refused(agents, {"a": alone, "b": alone})
    refused([machine(gpus=[A100])], {"a": alone, "b": little})


def test_an_interface_with_ibverbs() -> None:
    agents = [machine(nics=[interface(0, verbs=False), interface(1)])]
    asked = TaskRequest.of(nics=[NicRequest.of("cbf", ibverbs=True)])
    assert placed(agents, {"a": asked})["a"].nics == (1,)
    answer = refused([machine(nics=[interface(verbs=False)])], {"a": asked})
    assert "no interface on network cbf with an InfiniBand device" in str(answer)


SENDER = TaskRequest.of(nics=[NicRequest.of("cbf", ibverbs=True, sends=["239.0.0.1"])])
RECEIVER = TaskRequest.of(nics=[NicRequest.of("cbf", receives=["239.0.0.1"])])


def test_multicast_is_not_sent_where_its_receiver_would_not_see_it() -> None:
    two = [machine(nics=[interface(0), interface(1)])]
    found = placed(two, {"s": SENDER, "r": RECEIVER, "q": RECEIVER})
    assert found["s"].nics != found["r"].nics == found["q"].nics
    one = [machine(nics=[interface()])]
    refused(one, {"s": SENDER, "r": RECEIVER})
    placed([machine(nics=[interface(loopback=True)])], {"s": SENDER, "r": RECEIVER})
    kernel = replace(SENDER, nics=(replace(SENDER.nics[0], ibverbs=False),))
    placed(one, {"s": kernel, "r": RECEIVER})
    placed(
        one,
        {"s": SENDER, "r": replace(RECEIVER, nics=(replace(RECEIVER.nics[0], receives=("x",)),))},
    )
    both = NicRequest.of("cbf", ibverbs=True, sends=["m"], receives=["m"])
    refused(one, {"a": TaskRequest.of(nics=[both])})


def test_multicast_of_what_runs_already_counts() -> None:
    agents = [machine(nics=[interface()])]
    on_it = Assignment("old", "a-id", "a", nics=(0,))
    for new, old in ((SENDER, RECEIVER), (RECEIVER, SENDER)):
        running = [Running(old, on_it)]
        answer = pack(agents, {"new": new}, running=running)
        assert isinstance(answer, Shortage)
        alone = pack(agents, {"new": new})
        assert isinstance(alone, Placement)
        assert "does not see" in violations(agents, {"new": new}, alone, running)[0]
        same = pack(agents, {"new": old}, running=running)
        assert isinstance(same, Placement)


def test_one_interface_of_two_roles_is_one_interface() -> None:
    agent = machine(nics=[interface()])
    other = replace(agent, agent_id="a-id/sdp")
    agent = replace(agent, agent_id="a-id/*")
    refused([agent, other], {"s": SENDER, "r": RECEIVER})


def test_many_senders_and_many_receivers() -> None:
    agents = [machine(str(n), nics=[interface(0), interface(1)]) for n in range(4)]
    tasks: Tasks = {}
    for n in range(6):
        sends = NicRequest.of("cbf", ibverbs=True, sends=[f"m{n}", "all"])
        tasks[f"s{n}"] = TaskRequest.of(nics=[sends])
        receives = NicRequest.of("cbf", in_mbps=300, receives=[f"m{n}", f"m{(n + 1) % 6}"])
        tasks[f"r{n}"] = TaskRequest.of(nics=[receives])
    placed(agents, tasks)


# ---- conditions and relations


def racks() -> list[AgentSnapshot]:
    where = {"a": "r1", "b": "r1", "c": "r2", "d": None}
    return [machine(host, rack=rack, os=f"os-{host}") for host, rack in where.items()]


@pytest.mark.parametrize(
    ("constraint", "hosts"),
    [
        (Constraint("rack", Rule.EQUAL, "r2"), {"c"}),
        (Constraint("rack", Rule.NOT, "r1"), {"c", "d"}),
        (Constraint("os", Rule.LIKE, "os-[ab]"), {"a", "b"}),
        (Constraint("host", Rule.LIKE, "d|e"), {"d"}),
        (DataAt("rack", ("r2", "r3"), required=True), {"c"}),
    ],
)
def test_conditions_are_kept_to(constraint: Constraint | DataAt, hosts: set[str]) -> None:
    key = "constraints" if isinstance(constraint, Constraint) else "data"
    request = TaskRequest.of(cpus=16, **{key: [constraint]})
    tasks = {f"t{n}": request for n in range(len(hosts))}
    assert {a.host for a in placed(racks(), tasks).values()} == hosts
    answer = refused(racks(), {**tasks, "more": request})
    assert not answer.proven or answer.totals
    nowhere = [agent for agent in racks() if agent.host not in hosts]
    assert "asks for" in str(refused(nowhere, {"t": request}))


def test_data_are_gone_to_where_there_is_room() -> None:
    near = TaskRequest.of(cpus=16, data=[DataAt("host", ("c",))])
    assert placed(racks(), {"t": near})["t"].host == "c"
    found = placed(racks(), {"t": near, "u": near})
    assert "c" in {found["t"].host, found["u"].host}
    scarce = machine("c", gpus=[A100], nics=[interface()])
    assert placed([machine("a"), scarce], {"t": near})["t"].host == "c", "though it is scarce"


def test_a_group_is_in_one_rack() -> None:
    member = TaskRequest.of(cpus=10, groups=["beam"], together=[Together("beam", "rack")])
    found = placed(racks(), {"t": member, "u": member})
    assert {a.host for a in found.values()} == {"a", "b"}, "r2 has room for one only"
    refused(racks(), {"t": member, "u": member, "v": member})
    assert placed(racks(), {"t": replace(member, groups=())})["t"].host != "d"


def test_groups_that_fill_their_racks_do_not_get_into_each_others_way() -> None:
    agents = [machine(f"{rack}.{n}", rack=f"r{rack}") for rack in range(4) for n in range(5)]
    tasks = {
        f"b{beam}.{n}": TaskRequest.of(cores=2, together=[Together(f"b{beam}.0", "rack")])
        for beam in range(4)
        for n in range(9)
    }
    found = placed(agents, tasks)
    for beam in range(4):
        of_beam = {a.host[0] for name, a in found.items() if name.startswith(f"b{beam}.")}
        assert len(of_beam) == 1


def test_together_with_a_task_by_its_name() -> None:
    writer = TaskRequest.of(cpus=8, together=[Together("ingest")])
    ingest = TaskRequest.of(cpus=8, constraints=[Constraint("rack", Rule.EQUAL, "r2")])
    found = placed(racks(), {"writer": writer, "ingest": ingest})
    assert found["writer"].host == found["ingest"].host == "c"


def test_many_pairs_each_on_one_host() -> None:
    agents = [machine(str(n)) for n in range(12)]
    tasks: Tasks = {}
    for n in range(24):
        tasks[f"a{n}"] = TaskRequest.of(cpus=5 if n % 2 else 2)
        tasks[f"b{n}"] = TaskRequest.of(cpus=3, together=[Together(f"a{n}")])
    found = placed(agents, tasks)
    assert all(found[f"a{n}"].host == found[f"b{n}"].host for n in range(24))


def test_apart_and_at_most() -> None:
    lonely = TaskRequest.of(groups=["store"], apart=[Apart("store")])
    found = placed(racks(), {f"t{n}": lonely for n in range(4)})
    assert len({a.host for a in found.values()}) == 4
    refused(racks(), {f"t{n}": lonely for n in range(5)})
    by_rack = TaskRequest.of(groups=["s"], at_most=[AtMost("s", 2, "rack"), AtMost("s", 1)])
    found = placed(racks(), {f"t{n}": by_rack for n in range(3)})
    assert {a.host for a in found.values()} == {"a", "b", "c"}, "the rack of d is not known"
    refused(racks(), {f"t{n}": by_rack for n in range(4)})


def test_apart_from_others_that_may_be_together() -> None:
    noisy = TaskRequest.of(apart=[Apart("quiet")])
    quiet = TaskRequest.of(groups=["quiet"])
    tasks = {**{f"n{n}": noisy for n in range(3)}, **{f"q{n}": quiet for n in range(3)}}
    found = placed(racks(), tasks)
    hosts = [{a.host for name, a in found.items() if name[0] == kind} for kind in "nq"]
    assert not hosts[0] & hosts[1]
    refused([machine("a")], {"n": noisy, "q": quiet})
    placed([machine("a")], {"n": noisy, "m": noisy})


def test_relations_hold_to_tasks_of_the_graph_that_run_already() -> None:
    def runs(host: str, **asked: Any) -> list[Running]:
        request = TaskRequest.of(groups=["g"], **asked)
        return [Running(request, Assignment("old", f"{host}-id", host), sibling=True)]

    def host(request: TaskRequest, running: list[Running]) -> str | None:
        answer = pack(racks(), {"new": request}, running=running)
        if isinstance(answer, Shortage):
            return None
        assert violations(racks(), {"new": request}, answer, running) == []
        return answer.assignments["new"].host

    assert host(TaskRequest.of(together=[Together("old")]), runs("b")) == "b"
    assert host(TaskRequest.of(together=[Together("g", "rack")]), runs("c")) == "c"
    assert host(TaskRequest.of(groups=["new"]), runs("b", together=[Together("new")])) == "b"
    assert host(TaskRequest.of(apart=[Apart("g")]), runs("a")) == "b"
    assert host(TaskRequest.of(apart=[Apart("g", "rack")]), runs("a")) == "c"
    assert host(TaskRequest.of(), runs("a", apart=[Apart("new")])) == "b"
    assert host(TaskRequest.of(groups=["g"], at_most=[AtMost("g", 1, "rack")]), runs("a")) == "c"
    lone = replace(runs("a")[0], sibling=False)
    assert host(TaskRequest.of(apart=[Apart("g")]), [lone]) == "a", "relations end with their graph"
    assert host(TaskRequest.of(together=[Together("old")]), runs("e")) is None, "nobody knows e"


@settings(max_examples=80, deadline=None)
@given(clusters(), graphs(5), st.data())
def test_what_runs_is_kept_beside(agents: Cluster, tasks: Tasks, data: st.DataObject) -> None:
    """Some tasks of a graph run; the rest is placed beside them as it could be placed with them."""
    whole = pack(agents, tasks, iterations=200)
    if isinstance(whole, Shortage):
        return
    fixed = data.draw(st.sets(st.sampled_from(sorted(tasks))))
    running = [Running(tasks[name], whole.assignments[name], sibling=True) for name in fixed]
    free = {agent.agent_id: agent.free for agent in agents}
    for task in running:
        free[task.assignment.agent_id] -= task.assignment.resources(task.request)
    left = [replace(agent, free=free[agent.agent_id]) for agent in agents]
    anew = {name: request for name, request in tasks.items() if name not in fixed}
    answer = pack(left, anew, iterations=2000, running=running)
    assert isinstance(answer, Placement), "it was possible"
    assert violations(left, anew, answer, running) == []
    together = Placement({**answer.assignments, **{t.name: t.assignment for t in running}})
    assert violations(agents, tasks, together) == []
