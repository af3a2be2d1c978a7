"""Requests check themselves, and the reference of them is complete."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.constraints import Apart, AtMost, Constraint, DataAt, Rule, Together
from scheduler.errors import RequestError
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from tests.cpu import least_seconds

REFERENCE = Path(__file__).parents[2] / "docs/reference/requests.md"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TaskRequest(cpus=-1), "cpus is 0.001 below zero"),
        (lambda: TaskRequest.of(cores=2, numa_share=1.5), "numa_share is 1.5"),
        (lambda: TaskRequest.of(whole_cores=True), "asks for none"),
        (lambda: TaskRequest.of(one_l3=True), "asks for none"),
        (lambda: TaskRequest.of(cores=["a", "a"]), "the core 'a' twice"),
        (lambda: TaskRequest.of(ports=["p", "p"]), "the port 'p' twice"),
        (lambda: TaskRequest.of(volumes=[VolumeRequest("v")] * 2), "the volume 'v' twice"),
        (lambda: TaskRequest.of(groups=["g", "g"]), "the group 'g' twice"),
        (lambda: TaskRequest.of(groups=[""]), "expected 1 to 255 printable"),
        (lambda: TaskRequest.of(cores=10_000), "10000 cores"),
        (lambda: TaskRequest.of(gpus=[GpuRequest(1, 1)] * 65), "65 gpus, at most 64"),
        (lambda: GpuRequest.of(2, 1), "compute is 2: expected a share of one GPU, 0 to 1"),
        (lambda: TaskRequest.of(host="a\nb"), "the host 'a\\nb'"),
        (lambda: TaskRequest.of(subsystem=""), "the subsystem ''"),
        (lambda: GpuRequest.of(0.5, 1, exclusive=True), "with compute 1, not 0.5"),
        (lambda: GpuRequest.of(1, 1, min_capability="8"), "expected e.g. '8.0'"),
        (lambda: GpuRequest(1000, 1, min_capability=(-1, 0)), "expected e.g. (8, 0)"),
        (lambda: GpuRequest.of(1, 1, name="x" * 256), "expected 1 to 255"),
        (lambda: NicRequest("", 0, 0), "the network ''"),
        (lambda: NicRequest.of("cbf", sends=["239.0.0.1"] * 2), "'239.0.0.1' twice"),
        (lambda: VolumeRequest("v", -1), "disk is 0.001 below zero"),
        (lambda: Constraint("", Rule.EQUAL, "x"), "the fact ''"),
        (lambda: Constraint("rack", Rule.LIKE, "[z-a]"), "no regular expression"),
        (lambda: Constraint("rack", Rule.LIKE, "(a+)+"), "no groups"),
        (lambda: Constraint("rack", Rule.LIKE, r"(a)\1"), "no groups"),
        (lambda: Constraint("rack", Rule.LIKE, "a*b*c?d+"), "at most 3 repetitions"),
        (lambda: Constraint("rack", Rule.LIKE, "[[a]"), "no pattern"),
        (lambda: DataAt("rack", ()), "its data lie nowhere"),
        (lambda: AtMost("g", 0), "at most 0 of g"),
        (lambda: Together("\n"), "the group"),
        (lambda: Apart("g", ""), "the fact"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        make()
    assert said in str(caught.value)


@pytest.mark.parametrize("pattern", ["r0[1-7]", r"sm\.[0-9]+", "gpu-.*", r"a\*|[^a-c]x?", r"\d\d"])
def test_useful_patterns_are_taken(pattern: str) -> None:
    assert Constraint("rack", Rule.LIKE, pattern).value == pattern


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab(|)*+?[]{1}\\.", min_size=1, max_size=12), st.sampled_from("ab"))
def test_no_pattern_that_is_taken_takes_for_ever(pattern: str, letter: str) -> None:
    try:
        Constraint("rack", Rule.LIKE, pattern)
    except RequestError:
        return
    value = letter * 254 + "!"
    assert least_seconds(lambda: re.fullmatch(pattern, value), enough=1.0) <= 1.0


@pytest.mark.parametrize(
    "kind",
    [
        TaskRequest,
        GpuRequest,
        NicRequest,
        VolumeRequest,
        Constraint,
        DataAt,
        Together,
        Apart,
        AtMost,
    ],
)
def test_the_reference_has_exactly_the_fields_that_there_are(kind: type) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    section = re.search(rf"## {kind.__name__}\n(.*?)(?=\n## |\Z)", text, re.DOTALL)
    assert section is not None, f"{kind.__name__} has no section in {REFERENCE.name}"
    told = re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)
    assert told == [field.name for field in fields(kind)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task))])  # noqa: S301
def test_a_copy_of_a_request_has_its_row(copied: Callable[[TaskRequest], TaskRequest]) -> None:
    task = TaskRequest.of(cores=2, gpus=[GpuRequest.of(0.5, 1)], nics=[NicRequest.of("cbf")])
    assert copied(task) == task
    assert copied(task).row == task.row


def test_requests_that_other_devices_serve_are_told_apart() -> None:
    wants: list[GpuRequest | NicRequest] = [
        GpuRequest(1000, 1),
        GpuRequest(1000, 1, name="None"),
        GpuRequest(1000, 1, name="None None"),
        GpuRequest(1000, 1, min_capability=(8, 0)),
        GpuRequest(1000, 1, exclusive=True),
        NicRequest("cbf", 1, 1),
        NicRequest("cbf", 1, 1, ibverbs=True),
        NicRequest("cbf", 1, 1, sends=("239.0.0.1",)),
        NicRequest("cbf", 1, 1, receives=("239.0.0.1",)),
    ]
    assert len({want.row.service for want in wants}) == len(wants)
    assert GpuRequest(5, 5, affinity=True).row.service == wants[0].row.service
    assert NicRequest("cbf", 5, 5, affinity=True).row.service == wants[5].row.service
