"""What a task is told of what it was given."""

from __future__ import annotations

import pytest

from scheduler import given, templates
from scheduler.packing import pack
from scheduler.placement import Assignment, Placement
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology, Volume

TOPOLOGY = Topology(
    numa=(NumaNode(Ranges(((0, 1), (8, 9)))), NumaNode(Ranges(((2, 3), (10, 11))))),
    smt=tuple(Ranges.of_values((n, n + 8)) for n in range(4)),
    gpus=(
        Gpu(name="NVIDIA-L40", uuid="GPU-a", device="/dev/nvidia0", mem_mib=100),
        Gpu(name="NVIDIA-A100-SXM4-80GB", device="/dev/nvidia1", compute_capability=(8, 0)),
    ),
    nics=(
        Nic(
            name="e0",
            networks=("cbf",),
            address="10.0.0.1",
            infiniband=("/dev/infiniband/uverbs0", "/dev/infiniband/rdma_cm"),
        ),
        Nic(name="e1", networks=("sdp",), address="10.1.0.1", infiniband=("/dev/ib1",)),
    ),
    volumes=(Volume(name="data", path="/mnt/data"),),
)
REQUEST = TaskRequest.of(
    cpus=0.5,
    mem_mib=10,
    cores=["rx", "tx"],
    whole_cores=True,
    gpus=[GpuRequest.of(0.25, 20), GpuRequest.of(0.1, 5), GpuRequest.of(0.25, 30)],
    nics=[
        NicRequest.of("cbf", in_mbps=100, ibverbs=True),
        NicRequest.of("sdp", out_mbps=5),
        NicRequest.of("cbf", out_mbps=7),
    ],
    volumes=[VolumeRequest.of("data")],
)
GIVEN = Assignment(
    "t",
    "S0",
    "h",
    numa=1,
    cores=(2, 3),
    held_cores=(10, 11),
    gpus=(1, 0, 1),
    nics=(0, 1, 0),
    volumes=(0,),
)


def test_every_template_value_is_there_and_no_other() -> None:
    values = given.fields(REQUEST, GIVEN, TOPOLOGY)
    of_others = {"task.id", "task.name", "graph.id", "host", "address", "sandbox"}
    assert values.keys() | of_others == templates.own_fields(REQUEST)
    assert (values["cores"], values["cpuset"], values["numa"]) == ("2,3", "2,3,10,11", "1")
    assert (values["core[rx]"], values["core[tx]"]) == ("2", "3")
    assert [values[f"gpu[{n}].ordinal"] for n in range(3)] == ["0", "1", "0"]
    assert [values[f"gpu[{n}].name"][:10] for n in range(2)] == ["NVIDIA-A10", "NVIDIA-L40"]
    assert [values[f"nic[{n}].name"] for n in range(3)] == ["e0", "e1", "e0"]
    assert values["interface[sdp].infiniband"] == "/dev/ib1"
    assert values["volume[data].path"] == "/mnt/data"
    none = given.fields(TaskRequest(), Assignment("t", "S0", "h"), TOPOLOGY)
    assert none == {"cores": "", "cpuset": "", "numa": ""}


def test_the_shares_of_one_gpu_are_added_up_and_it_is_named_once() -> None:
    told = given.environment(REQUEST, GIVEN, TOPOLOGY)
    assert told["CUDA_VISIBLE_DEVICES"] == "1,GPU-a"
    assert told["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=50M,1=5M"
    assert told["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "50"
    assert told["SDP_GPU_2_MEM_MIB"] == "30"
    assert (told["SDP_CPUS"], told["SDP_CORES"], told["SDP_CPUSET"]) == ("4.5", "2,3", "2,3,10,11")
    assert told["SDP_NUMA"] == "1"


def test_an_exclusive_gpu_is_told_all_its_memory() -> None:
    request = TaskRequest.of(gpus=[GpuRequest.of(1, 10, exclusive=True)])
    assignment = Assignment("t", "S0", "h", gpus=(0,), whole_gpu_mem=(100_000,))
    told = given.environment(request, assignment, TOPOLOGY)
    assert told["SDP_GPU_0_MEM_MIB"] == "100"
    assert told["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=100M"


def test_a_container_is_bound_to_all_its_cores_and_gets_only_the_devices_that_it_uses() -> None:
    options = [(p["key"], p["value"]) for p in given.docker_parameters(REQUEST, GIVEN, TOPOLOGY)]
    assert options == [
        ("cpuset-cpus", "2,3,10,11"),
        ("cpuset-mems", "1"),
        ("device", "/dev/nvidia1"),
        ("device", "/dev/nvidia0"),
        ("device", "/dev/infiniband/uverbs0"),
        ("device", "/dev/infiniband/rdma_cm"),
        ("runtime", "nvidia"),
        ("cap-add", "NET_RAW"),
        ("ulimit", "memlock=-1"),
    ]
    assert given.docker_parameters(TaskRequest(), Assignment("t", "S0", "h"), TOPOLOGY) == []


@pytest.mark.parametrize(
    ("gpus", "image"),
    [((0,), "for-any"), ((1,), "for-a100"), ((1, 0), "for-a100"), ((), "plain")],
)
def test_the_image_is_that_of_the_gpu(gpus: tuple[int, ...], image: str) -> None:
    by_gpu = {"*a100*": "for-a100", "nvidia-*": "for-any"}
    assignment = Assignment("t", "S0", "h", gpus=gpus)
    assert given.image("plain", by_gpu, assignment, TOPOLOGY) == image
    assert given.image("plain", {}, assignment, TOPOLOGY) == "plain"


def test_what_packing_answers_can_be_told() -> None:
    scalars = {"cpus": 16_000, "mem": 99_000, "gpu.1.mem": 99_000}
    scalars |= {f"nic.{n}.{way}": 10**6 for n in (0, 1) for way in ("in", "out")}
    free = Resources({**TOPOLOGY.resources().scalars, **scalars}, {"cores": TOPOLOGY.cores})
    agent = AgentSnapshot(agent_id="S0", host="h", topology=TOPOLOGY, free=free, address="::1")
    answer = pack([agent], {"t": REQUEST})
    assert isinstance(answer, Placement), str(answer)
    values = given.fields(REQUEST, answer.assignments["t"], TOPOLOGY)
    assert values["core[rx]"] != values["core[tx]"]
    assert len(values["cpuset"].split(",")) == 4
