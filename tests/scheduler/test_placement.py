"""Assignments draw what was asked for, and say it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from scheduler.placement import Assignment, Placement
from scheduler.quantities import Ranges
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest

REQUEST = TaskRequest.of(
    cpus=0.5,
    mem_mib=100,
    cores=2,
    ports=["katcp"],
    gpus=[GpuRequest.of(0.25, 1000), GpuRequest.of(0.5, 500)],
    nics=[NicRequest.of("cbf", in_mbps=10), NicRequest.of("sdp", out_mbps=5)],
    volumes=[VolumeRequest.of("data", disk_mib=7), VolumeRequest.of("scratch", disk_mib=9)],
)
ASSIGNMENT = Assignment(
    "ingest.0",
    "S0",
    "agent-1",
    numa=1,
    cores=(8, 9),
    ports=(31000,),
    gpus=(2, 2),
    nics=(0, 1),
    volumes=(0, 1),
    numa_mem=True,
    volume_disk=(True, False),
)


def test_draws_from_every_device_that_was_chosen() -> None:
    drawn = ASSIGNMENT.resources(REQUEST)
    assert drawn.ranges == {"cores": Ranges(((8, 9),)), "ports": Ranges(((31000, 31000),))}
    assert drawn.scalars == {
        "cpus": 2500,  # a pinned core is also one of the CPUs
        "mem": 100_000,
        "numa.1.mem": 100_000,
        "gpu.2.compute": 750,  # both requests share the device
        "gpu.2.mem": 1_500_000,
        "nic.0.in": 10_000,
        "nic.1.out": 5000,
        "volume.0.disk": 7000,  # the other volume is not counted
    }


def test_says_where_and_what() -> None:
    other = Assignment("telstate", "S1", "agent-2")
    assert str(Placement({"ingest.0": ASSIGNMENT, "telstate": other})).splitlines() == [
        "ingest.0 on agent-1: NUMA node 1, cores 8 9, gpus 2 2, nics 0 1, volumes 0 1, ports 31000",
        "telstate on agent-2",
    ]


def test_many_are_made_at_once_as_one_by_one() -> None:
    columns = {field.name: [getattr(ASSIGNMENT, field.name)] * 2 for field in fields(Assignment)}
    assert Assignment.of_columns(2, **columns) == [ASSIGNMENT, ASSIGNMENT]
    few = {name: iter(columns[name]) for name in ("task", "agent_id", "host")}
    assert Assignment.of_columns(2, **few) == [Assignment("ingest.0", "S0", "agent-1")] * 2
    with pytest.raises(TypeError, match="has no colour"):
        Assignment.of_columns(0, colour=())


def test_some_fields_of_many_are_changed_at_once() -> None:
    other = replace(ASSIGNMENT, task="cal", host="agent-2")
    changed = Assignment.with_columns([ASSIGNMENT, other], role=["sdp", "*"], agent_id=["S1", "S2"])
    assert changed == [
        replace(ASSIGNMENT, role="sdp", agent_id="S1"),
        replace(other, role="*", agent_id="S2"),
    ]
    assert Assignment.with_columns([], role=[]) == []
