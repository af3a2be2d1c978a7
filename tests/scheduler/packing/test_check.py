"""The checker finds every kind of wrong placement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler.constraints import Apart, AtMost, Constraint, DataAt, Rule, Together
from scheduler.packing import missing, pack, violations
from scheduler.placement import Assignment, Placement
from scheduler.quantities import Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from tests.scheduler.packing.machines import make_agent
from tests.scheduler.packing.rich import A100, OLD, interface, machine

AGENTS = [make_agent("a", node_mem=10), make_agent("b", node_mem=10, subsystems=["cam"])]
REQUEST = TaskRequest.of(
    cpus=1,
    mem_mib=2,
    cores=2,
    ports=["http"],
    gpus=[GpuRequest.of(0.6, 60, affinity=True)],
    nics=[NicRequest.of("cbf", in_mbps=300, affinity=True)],
    volumes=[VolumeRequest.of("data")],
    host="a",
)


def good() -> Assignment:
    answer = pack(AGENTS, {"t": REQUEST})
    assert isinstance(answer, Placement)
    return answer.assignments["t"]


def test_a_good_placement_passes() -> None:
    assert violations(AGENTS, {"t": REQUEST}, Placement({"t": good()})) == []
    assert good().numa == 0, "the interface on cbf hangs on node 0"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"agent_id": "c"}, "no such task or agent"),
        ({"task": "u"}, "no such task or agent"),
        ({"host": "b"}, "assigned b"),
        ({"agent_id": "b-id", "host": "b"}, "asks for a"),
        ({"cores": (0,)}, "asks for 2 cores, got 1"),
        ({"cores": (0, 0)}, "a core or a port twice"),
        ({"cores": (0, 4)}, "not all on node 0"),
        ({"cores": (0, 99)}, "not all on node 0"),
        ({"numa": 1}, "not all on node 1"),
        ({"numa": None}, "node None"),
        ({"numa": 2}, "there is no node 2"),
        ({"numa_mem": False}, "draws memory of its node"),
        ({"ports": (80,)}, "ports"),
        ({"ports": ()}, "asks for 1 ports, got 0"),
        ({"gpus": (1,)}, "devices with affinity hang on nodes [1, 0]"),
        ({"gpus": (7,)}, "no such device"),
        ({"nics": (1,)}, "e1 is not on cbf"),
        ({"nics": (-1,)}, "no such device"),
        ({"volumes": (3,)}, "no such device"),
        ({"volume_disk": (True,)}, "volume data for data, counted: True"),
    ],
)
def test_a_wrong_assignment_is_found(change: dict[str, Any], said: str) -> None:
    wrong = replace(good(), **change)
    found = violations(AGENTS, {"t": REQUEST}, Placement({"t": wrong}))
    assert said in " ".join(found)


def test_what_is_given_twice_is_found() -> None:
    one = good()
    other = replace(one, task="u", cores=(2, 3), ports=(5001,))
    tasks = {"t": REQUEST, "u": REQUEST}
    found = violations(AGENTS, tasks, Placement({"t": one, "u": other}))
    assert len(found) == 1
    assert "gpu.0.compute: asked for 0.6, there is 0.4" in found[0]
    small = replace(REQUEST, gpus=(), nics=())
    one = replace(one, gpus=(), nics=())
    tasks = {"t": small, "u": small}
    found = violations(AGENTS, tasks, Placement({"t": one, "u": replace(one, task="u")}))
    assert "cores: asked for" in found[0]


def test_a_wrong_subsystem_is_found() -> None:
    request = replace(REQUEST, host=None)
    wrong = replace(good(), agent_id="b-id", host="b")
    found = violations(AGENTS, {"t": request}, Placement({"t": wrong}))
    assert "b serves ('cam',)" in found[0]


def test_tasks_left_out_are_named() -> None:
    assert missing({"t": REQUEST, "u": REQUEST}, Placement({"t": good()})) == ["u"]


# ---- whole cores, devices and relations

RICH = [
    machine(
        "a",
        nodes=((0, 1, 2, 3), (4, 5, 6, 7)),
        l3=((0, 1), (2, 3), (4, 5, 6, 7)),
        gpus=[A100, OLD, A100],
        nics=[interface(0), interface(1), interface(2, verbs=False)],
        rack="r1",
        os="debian-12",
    ),
    machine("b", rack="r2"),
    machine("c"),
]
RIGHT = Assignment("t", "a-id", "a", numa=1, cores=(4, 6), held_cores=(5, 7))


@pytest.mark.parametrize(
    ("asked", "change", "said"),
    [
        ({}, {}, ""),
        ({}, {"held_cores": (5,)}, "should have {4, 5, 6, 7}"),
        ({}, {"held_cores": ()}, "has the cores (4, 6), should have"),
        ({}, {"held_cores": (3, 5, 7)}, "are not all on node 1"),
        ({}, {"cores": (4, 5), "held_cores": (6, 7)}, "are not as many whole physical ones"),
        ({}, {"held_cores": (4, 5, 7)}, "a core or a port twice"),
        ({"numa_share": 1}, {}, ""),
        ({"whole_cores": False}, {}, "should have {4, 6} and 0 of the node's 4"),
        ({"whole_cores": False, "numa_share": 0.75}, {"held_cores": (5,)}, ""),
        ({"whole_cores": False, "numa_share": 0.75}, {"held_cores": ()}, "and 3 of the node's 4"),
        ({"whole_cores": False, "numa_share": 0.75}, {}, "and 3 of the node's 4"),
        ({"one_l3": True}, {}, ""),
        (
            {"one_l3": True},
            {"numa": 0, "cores": (0, 2), "held_cores": (1, 3)},
            "do not share an L3 cache",
        ),
    ],
)
def test_wrong_cores_are_found(asked: dict[str, Any], change: dict[str, Any], said: str) -> None:
    of = {"cores": 2, "whole_cores": True, **asked}
    found = violations(
        RICH, {"t": TaskRequest.of(**of)}, Placement({"t": replace(RIGHT, **change)})
    )
    assert said in " ".join(found)
    assert bool(found) == bool(said)


def test_cores_without_a_node_are_found() -> None:
    stray = Assignment("t", "a-id", "a", held_cores=(5,))
    assert "but no node" in violations(RICH, {"t": TaskRequest()}, Placement({"t": stray}))[0]


GPU, NIC = GpuRequest.of, NicRequest.of


@pytest.mark.parametrize(
    ("asked", "got", "said"),
    [
        ({"gpus": [GPU(0.1, 1, name="*A100*")]}, {"gpus": (0,)}, ""),
        ({"gpus": [GPU(0.1, 1, name="*A100*")]}, {"gpus": (1,)}, "is a Tesla-K80, not like *A100*"),
        (
            {"gpus": [GPU(0.1, 1, min_capability="8.0")]},
            {"gpus": (1,)},
            "has compute capability None",
        ),
        (
            {"gpus": [GPU(0.1, 1, min_capability="8.1")]},
            {"gpus": (0,)},
            "compute capability (8, 0)",
        ),
        (
            {"gpus": [GPU(1, 1, exclusive=True)]},
            {"gpus": (0,), "whole_gpu_mem": (100_000,)},
            "",
        ),
        ({"gpus": [GPU(1, 1, exclusive=True)]}, {"gpus": (0,)}, "draws 0 of the memory"),
        ({"gpus": [GPU(1, 1)]}, {"gpus": (0,), "whole_gpu_mem": (9,)}, "draws 9 of the memory"),
        (
            {"gpus": [GPU(0, 1), GPU(0, 1)]},
            {"gpus": (0, 1), "whole_gpu_mem": (0,)},
            "memory of some GPUs only",
        ),
        ({"nics": [NIC("cbf", ibverbs=True)]}, {"nics": (1,)}, ""),
        ({"nics": [NIC("cbf", ibverbs=True)]}, {"nics": (2,)}, "e2 has no InfiniBand device"),
        ({"constraints": [Constraint("rack", Rule.EQUAL, "r1")]}, {}, ""),
        ({"constraints": [Constraint("rack", Rule.EQUAL, "r2")]}, {}, "asks for rack equal r2"),
        ({"constraints": [Constraint("rack", Rule.NOT, "r1")]}, {}, "asks for rack not r1"),
        ({"constraints": [Constraint("os", Rule.LIKE, "deb")]}, {}, "asks for os like deb"),
        ({"constraints": [Constraint("x", Rule.LIKE, ".*")]}, {}, "a tells None"),
        ({"data": [DataAt("rack", ("r2",))]}, {}, ""),
        ({"data": [DataAt("rack", ("r2",), True)]}, {}, "asks for data at rack r2, a is at r1"),
    ],
)
def test_a_wrong_device_or_agent_is_found(
    asked: dict[str, Any], got: dict[str, Any], said: str
) -> None:
    assignment = Assignment("t", "a-id", "a", **got)
    found = violations(RICH, {"t": TaskRequest.of(**asked)}, Placement({"t": assignment}))
    assert said in " ".join(found)
    assert bool(found) == bool(said)


OF_G: dict[str, Any] = {"groups": ["g"]}
SENDS, HEARS = NIC("cbf", ibverbs=True, sends=["m"]), NIC("cbf", receives=["m"])


@pytest.mark.parametrize(
    ("tasks", "hosts", "said"),
    [
        ({"t": {"together": [Together("u")]}, "u": {}}, "ab", "t: on one host with group u, but u"),
        ({"t": {"together": [Together("u")]}, "u": {}}, "bb", ""),
        ({"t": {"together": [Together("t", "rack")]}}, "c", "c does not tell its rack"),
        ({"t": {"apart": [Apart("u")]}, "u": {}}, "aa", "t: on another host than group u, but u"),
        ({"t": {"apart": [Apart("g")]}, "u": OF_G}, "ab", ""),
        ({"t": {"apart": [Apart("u", "rack")]}, "u": {}}, "cb", "c does not tell its rack"),
        ({"t": {"apart": [Apart("u", "rack")]}, "u": {}}, "bc", "but u is on r2, too"),
        ({"t": {"apart": [Apart("t", "rack")]}}, "c", ""),
        ({"t": {"at_most": [AtMost("g", 1)]}, "u": OF_G, "v": OF_G}, "aaa", "there are 2 on a"),
        (
            {"t": {"at_most": [AtMost("u", 1, "rack")]}, "u": {}},
            "ac",
            "1 are where no rack is told",
        ),
        (
            {"t": {"nics": [SENDS]}, "u": {"nics": [HEARS]}},
            "aa",
            "u: does not see ['m'], which t sends",
        ),
    ],
)
def test_what_is_wrong_between_tasks_is_found(
    tasks: dict[str, dict[str, Any]], hosts: str, said: str
) -> None:
    requests = {name: TaskRequest.of(**asked) for name, asked in tasks.items()}
    placement = Placement(
        {
            name: Assignment(name, f"{host}-id", host, nics=(0,) * len(requests[name].nics))
            for name, host in zip(tasks, hosts, strict=True)
        }
    )
    found = violations(RICH, requests, placement)
    assert said in " ".join(found)
    assert bool(found) == bool(said)


def test_another_user_of_an_exclusive_gpu_is_found() -> None:
    requests = {
        "t": TaskRequest.of(gpus=[GPU(1, 0, exclusive=True)]),
        "u": TaskRequest.of(gpus=[GPU(0, 0)]),
    }
    mine = Assignment("t", "a-id", "a", gpus=(0,), whole_gpu_mem=(100_000,))
    other = Assignment("u", "a-id", "a", gpus=(0,))
    assert "has other users" in violations(RICH, requests, Placement({"t": mine, "u": other}))[0]
    beside = replace(other, gpus=(2,))
    assert violations(RICH, requests, Placement({"t": mine, "u": beside})) == []
    used = replace(RICH[0], free=RICH[0].free - Resources({"gpu.0.mem": 1}))
    taken = replace(mine, whole_gpu_mem=(99_999,))
    assert "used already" in violations([used], requests, Placement({"t": taken}))[0]
