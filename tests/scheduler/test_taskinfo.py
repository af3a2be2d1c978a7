"""What Mesos is told of a task in a container."""

from __future__ import annotations

from typing import Any

from scheduler.graph import LogicalGraph, TaskTemplate, instantiate
from scheduler.offers import Ledger
from scheduler.placement import Assignment
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from scheduler.taskinfo import Bound, shares, task_info
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology, Volume

MACHINE = Topology(
    numa=(NumaNode(Ranges(((0, 3),)), 1000), NumaNode(Ranges(((4, 7),)), 1000)),
    gpus=(Gpu(name="A100", uuid="GPU-7", device="/dev/nvidia0", numa=1, mem_mib=1000),),
    nics=(
        Nic(
            name="ens1",
            networks=("cbf",),
            address="10.0.0.1",
            numa=1,
            infiniband=("/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs0"),
            speed_mbps=1000,
        ),
    ),
    volumes=(Volume(name="data", path="/mnt/data"),),
)
HOST = Resources({"cpus": 8000, "mem": 2_000_000})
REQUEST = TaskRequest.of(
    cpus=1,
    mem_mib=64,
    cores=2,
    gpus=[GpuRequest.of(0.5, 100)],
    nics=[NicRequest.of("cbf", in_mbps=1)],
    volumes=[VolumeRequest.of("data")],
)
ASSIGNMENT = Assignment(
    "t", "S0", "a", numa=1, cores=(5, 6), gpus=(0,), nics=(0,), volumes=(0,), volume_disk=(False,)
)


def info(image: str | None, request: TaskRequest, assignment: Assignment) -> dict[str, Any]:
    template = TaskTemplate(
        name="t", kind="t", command=("python3", "-m", "x"), request=request, image=image
    )
    graph = instantiate(LogicalGraph("g", (template,)), "g-1")
    everything = HOST + MACHINE.resources()
    agent = AgentSnapshot(
        agent_id="S0", host="a", topology=MACHINE, free=everything, address="10.0.0.1"
    )
    ledger = Ledger([{"resources": everything.to_mesos()}])
    bound = Bound(graph.tasks["t"], assignment, agent, assignment.resources(request))
    return task_info(graph, bound, ledger, list(template.command), shares(bound))


def parameters(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(p["key"], p["value"]) for p in told["container"]["docker"]["parameters"]]


def test_a_container_is_bound_to_what_was_chosen() -> None:
    told = info("sdp:1", REQUEST, ASSIGNMENT)
    assert told["container"]["docker"]["network"] == "HOST"
    assert parameters(told) == [
        ("cpuset-cpus", "5,6"),
        ("cpuset-mems", "1"),
        ("device", "/dev/nvidia0"),
        ("runtime", "nvidia"),
    ]
    assert told["container"]["volumes"] == [
        {"host_path": "/mnt/data", "container_path": "/mnt/data", "mode": "RW"}
    ]
    variables = told["command"]["environment"]["variables"]
    environment = {variable["name"]: variable["value"] for variable in variables}
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "GPU-7"
    assert environment["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "50"
    assert environment["SDP_CORES"] == "5,6"


def test_docker_is_given_each_word_of_the_command_once() -> None:
    """Mesos' containerizer hands Docker the value, then all arguments; a process has its own name first."""
    command = info("sdp:1", REQUEST, ASSIGNMENT)["command"]
    assert [command["value"], *command["arguments"]] == ["python3", "-m", "x"]
    command = info(None, REQUEST, ASSIGNMENT)["command"]
    assert (command["value"], command["arguments"]) == ("python3", ["python3", "-m", "x"])


def test_a_task_without_gpu_needs_no_nvidia() -> None:
    told = info("sdp:1", TaskRequest.of(cpus=1, mem_mib=64), Assignment("t", "S0", "a"))
    assert parameters(told) == []
