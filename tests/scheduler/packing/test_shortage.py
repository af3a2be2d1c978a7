"""A graph that does not fit says which resource is short, where it nearly fits, and whether it ever can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings

from scheduler.constraints import Constraint, Rule
from scheduler.packing import Shortage, explain, pack
from scheduler.packing.lacks import needs
from scheduler.quantities import Ranges
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing.machines import clusters, graphs, make_agent


def shortage(
    agents: Sequence[AgentSnapshot],
    tasks: dict[str, TaskRequest],
    capacity: Sequence[AgentSnapshot] | None = None,
) -> Shortage:
    answer = pack(agents, tasks, iterations=200, capacity=capacity)
    assert isinstance(answer, Shortage)
    return answer


def test_cores_that_no_node_has() -> None:
    agents = [make_agent("127.0.1.1", cores=(2, 3)), make_agent("127.0.1.2", cores=(4, 1))]
    found = shortage(agents, {"ingest.sdp_l0.0": TaskRequest.of(cores=8), "cal": TaskRequest.of()})
    assert str(found).splitlines() == [
        "1 of 2 tasks cannot be placed.",
        "cores on one NUMA node: ingest.sdp_l0.0 asks for 8, the most free on one NUMA node is 4 "
        "(agent 127.0.1.2)",
    ]
    (too_big,) = found.too_big
    assert too_big.lack is not None
    assert (too_big.lack.asked, too_big.lack.free, too_big.lack.by) == (8000, 4000, 4000)
    assert found.proven
    assert not found.never, "the capacity of the cluster is not known"
    assert "cal" in found.partial.assignments


def test_memory_is_named_with_its_unit() -> None:
    found = shortage([make_agent(mem=3000)], {"cal": TaskRequest.of(mem_mib=5)})
    assert "mem: cal asks for 5 MiB, the most free on one agent is 3 MiB (agent a)" in str(found)


def test_a_share_of_a_gpu_that_is_spread_over_two() -> None:
    agent = make_agent(gpu_0_compute=400, gpu_1_compute=400)
    found = shortage([agent], {"beam": TaskRequest.of(gpus=[GpuRequest.of(0.6, 10)])})
    assert "gpu.compute on one GPU: beam asks for 0.6, the most free on one GPU is 0.4" in str(
        found
    )


def test_a_network_that_no_interface_reaches() -> None:
    found = shortage([make_agent()], {"x": TaskRequest.of(nics=[NicRequest.of("cam", in_mbps=1)])})
    assert "x: no interface on network cam on any agent that may run it" in str(found)


def test_a_host_that_is_not_there() -> None:
    found = shortage([make_agent()], {"x": TaskRequest.of(host="elsewhere")})
    assert "x: no agent that takes tasks will do: asks for host elsewhere" in str(found)


def test_a_subsystem_that_nobody_serves() -> None:
    agent = make_agent(subsystems=["cam"])
    found = shortage([agent], {"x": TaskRequest.of(subsystem="sdp")})
    assert "asks for subsystem sdp, there it is for cam only" in str(found)


def test_never_apart_from_not_now() -> None:
    empty = make_agent("a")
    busy = make_agent("a", cores=(4, 4), cpus=1000)
    tasks = {
        "wide": TaskRequest.of(cores=5),
        "busy": TaskRequest.of(cpus=3),
        "ok": TaskRequest.of(),
    }
    found = shortage([busy], tasks, capacity=[empty])
    assert [task.task for task in found.never] == ["wide"]
    assert [task.task for task in found.too_big] == ["busy"]
    text = str(found)
    assert (
        "Never: cores on one NUMA node: wide asks for 5, the most free on one NUMA node is 4"
        in text
    )
    assert "even with the cluster empty" in text
    assert "cpus: busy asks for 3, the most free on one agent is 1 (agent a)" in text


def test_totals_that_are_exceeded_though_each_task_fits() -> None:
    tasks = {f"t{n}": TaskRequest.of(mem_mib=600) for n in range(4)}
    found = shortage([make_agent("a"), make_agent("b")], tasks)
    assert not found.too_big
    assert "mem: all tasks together ask for 2400 MiB, 2000 MiB free on all agents" in str(found)
    (total,) = [total for total in found.totals if total.short]
    assert (total.largest, total.host) == (1_000_000, "a")
    assert found.proven


def test_what_fits_neither_by_totals_nor_alone_is_not_called_proven() -> None:
    """Three tasks of 600 on two agents of 1000: enough in sum, but not in pieces."""
    tasks = {f"t{n}": TaskRequest.of(mem_mib=600) for n in range(3)}
    found = shortage([make_agent("a"), make_agent("b")], tasks)
    assert not found.proven
    assert len(found.partial.assignments) == 2
    (name,) = found.unplaced
    assert (
        f"{name}: nearest is agent a (mem: asks for 600 MiB, 400 MiB free, 200 MiB missing)"
        in str(found)
    )


def test_the_nearest_agent_is_the_one_that_lacks_least() -> None:
    agents = [make_agent("far", mem=1000), make_agent("near", mem=3500), make_agent("no", mem=0)]
    found = shortage(agents, {"t": TaskRequest.of(mem_mib=4)})
    near, *others = found.nearest["t"]
    assert near.host == "near"
    assert [other.host for other in others] == ["far", "no"]
    assert [lack.by for lack in near.lacks] == [500]


def test_the_text_is_bounded() -> None:
    tasks = {f"t{n}": TaskRequest.of(cores=9 + n) for n in range(300)}
    found = shortage([make_agent()], tasks)
    assert len(found.unplaced) == 300
    assert len(str(found).splitlines()) < 40
    assert "and 290 more of this kind" in str(found)


def test_what_is_true_of_several_tasks_is_told_once() -> None:
    tasks = {f"t{n}": TaskRequest.of(cores=9) for n in range(300)}
    assert "t0, t1, t2 and 297 more each ask for 9, the most free on one NUMA node is 4" in str(
        shortage([make_agent()], tasks)
    )


@settings(max_examples=80, deadline=None)
@given(clusters(), graphs(5))
def test_the_nearest_agent_lacks_something(
    agents: tuple[AgentSnapshot, ...], tasks: dict[str, TaskRequest]
) -> None:
    answer = pack(agents, tasks, iterations=50, capacity=agents)
    if isinstance(answer, Shortage):
        assert set(answer.nearest) == set(answer.unplaced)
        nearest = [near for several in answer.nearest.values() for near in several]
        assert all(near.lacks for near in nearest)
        assert all(lack.by > 0 or lack.fact for near in nearest for lack in near.lacks)
        assert not answer.too_big, "what does not fit when nothing else runs never does"
        assert set(answer.partial.assignments) | set(answer.unplaced) == set(tasks)


def test_many_that_ask_for_the_same_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    monkeypatch.setattr(explain, "needs", lambda *a: looks.append(a[0].host) or needs(*a))
    found = shortage([make_agent()], {f"big.{n}": TaskRequest.of(cores=99) for n in range(200)})
    assert {entry.task for entry in found.too_big} == {f"big.{n}" for n in range(200)}
    assert len({entry.lack for entry in found.too_big}) == 1
    assert len(looks) <= 4, "in all, not for each"


def test_of_many_different_ones_that_fit_nowhere_some_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others are told too, without a number that would take seconds to find."""
    monkeypatch.setattr(explain, "_LOOKS", 16)
    tasks = {f"big.{n}": TaskRequest.of(cores=99 + n) for n in range(9)}
    found = shortage([make_agent("a"), make_agent("b")], tasks)
    assert [entry.task for entry in found.too_big] == list(tasks)
    text = str(found)
    assert "big.0 asks for 99" in text
    assert "big.2, big.3" in text
    assert "no room on any agent that may run it" in text
    assert "big.8 asks for" not in text


def test_devices_that_hang_on_different_nodes_are_told_node_by_node() -> None:
    agent = make_agent(gpu_nodes=(1,), networks=(("cbf",),))  # the interface is on node 0
    gpu, nic = (
        GpuRequest.of(0.5, 10, affinity=True),
        NicRequest.of("cbf", in_mbps=10, affinity=True),
    )
    tasks = {"f": TaskRequest.of(cores=1, gpus=[gpu], nics=[nic])}
    text = str(shortage([agent], tasks))
    assert "on NUMA node 0 gpu.compute on one GPU: asks for 0.5, 0 free, 0.5 missing" in text
    assert "on NUMA node 1 bandwidth in on one interface of cbf: asks for 10 Mbit/s, 0" in text


def test_a_node_that_lacks_nothing_is_not_blamed() -> None:
    agent = make_agent(gpu_nodes=(0, 0), networks=(("cbf",),), gpu_0_compute=900, gpu_1_compute=400)
    twice = [GpuRequest.of(0.5, 10, affinity=True)] * 2
    text = str(shortage([agent], {"f": TaskRequest.of(cores=1, gpus=twice)}))
    assert "each thing asked for is there, but not from separate devices)" in text
    assert "on NUMA node 0" not in text


def test_requests_that_one_device_must_serve_together_are_added_up() -> None:
    agent = make_agent(gpu_nodes=(0,), networks=(("cbf", "sdp"),))
    gpus = [GpuRequest.of(0.6, 10), GpuRequest.of(0.6, 10)]
    text = str(shortage([agent], {"f": TaskRequest.of(gpus=gpus)}))
    assert "gpu.compute on all GPUs together: f asks for 1.2" in text
    nics = [NicRequest.of("cbf", in_mbps=600), NicRequest.of("sdp", in_mbps=600)]
    text = str(shortage([agent], {"f": TaskRequest.of(nics=nics)}))
    assert "bandwidth in on all interfaces of cbf/sdp: f asks for 1200 Mbit/s" in text


def test_cores_that_come_along_are_told_apart_from_those_asked_for() -> None:
    agent = make_agent(cores=(4, 4), cpus=3000)
    text = str(shortage([agent], {"f": TaskRequest.of(cores=4)}))
    assert "cpus with its cores: f asks for 4, the most free on one agent is 3" in text
    share = {name: TaskRequest.of(cpus=1, numa_share=1) for name in "fg"}
    text = str(shortage([make_agent(cores=(4, 4), cpus=8000)], share))
    assert "(cpus with its cores and those held for it: asks for 5, 3 free, 2 missing)" in text
    taken = make_agent(cores=(3,), gpu_nodes=())
    taken = replace(taken, free=replace(taken.free, ranges={"cores": Ranges(((0, 1),))}))
    text = str(shortage([taken], {"f": TaskRequest.of(cores=1, numa_share=1)}))
    assert "cores with those held for it on one NUMA node: f asks for 3" in text


def test_a_host_that_is_none_is_told_with_the_one_that_may_be_meant() -> None:
    agents = [make_agent("gpu01"), make_agent("cpu01")]
    text = str(shortage(agents, {"f": TaskRequest.of(host="gpu1")}))
    assert "asks for host gpu1, which is none of the agents; did you mean gpu01?" in text


def test_what_agents_are_instead_is_told_of_all_of_them() -> None:
    agents = [make_agent(host) for host in "abc"]
    for constraint, told in (("equal", "a, b, c"), ("like", "a, b, c")):
        asked = Constraint("host", Rule(constraint), "x")
        text = str(shortage(agents, {"f": TaskRequest.of(constraints=[asked])}))
        assert f"asks for host {constraint} x, there it is {told}" in text


def test_multicast_that_an_interface_does_not_loop_back_is_told() -> None:
    agent = make_agent(networks=(("cbf",),))
    nics = (
        replace(
            agent.topology.nics[0], multicast_loopback=False, infiniband=("/dev/infiniband/u0",)
        ),
    )
    agent = replace(agent, topology=replace(agent.topology, nics=nics))
    sends = NicRequest.of("cbf", out_mbps=1, ibverbs=True, sends=("239.0.0.1",))
    receives = NicRequest.of("cbf", in_mbps=1, receives=("239.0.0.1",))
    tasks = {"s": TaskRequest.of(nics=[sends]), "r": TaskRequest.of(nics=[receives])}
    assert "one that sends 239.0.0.1 by ibverbs and one that receives it are kept apart" in str(
        shortage([agent], tasks)
    )
