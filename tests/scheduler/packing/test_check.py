"""The checker finds every kind of wrong placement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler.packing import missing, pack, violations
from scheduler.placement import Assignment, Placement
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from tests.scheduler.packing.machines import make_agent

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
