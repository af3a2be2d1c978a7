"""Which image a task runs in."""

from __future__ import annotations

import pytest

from scheduler.graph import LogicalGraph, TaskTemplate
from scheduler.requests import TaskRequest
from sdpcontroller.config.options import Options
from sdpcontroller.workflows.containers import in_containers, with_tag


def graph(*kinds: str) -> LogicalGraph:
    request = TaskRequest.of(cpus=1, mem_mib=1)
    return LogicalGraph(
        "g",
        tuple(TaskTemplate(name=f"{k}.0", kind=k, command=(k,), request=request) for k in kinds),
    )


def images(options: Options, image: str | None) -> dict[str, str | None]:
    contained = in_containers(graph("ingest", "cal"), options, image)
    return {task.kind: task.image for task in contained.tasks}


def test_all_programs_are_in_the_controllers_image() -> None:
    assert images(Options(), "sdp:1") == {"ingest": "sdp:1", "cal": "sdp:1"}


def test_a_document_may_ask_for_another_tag_and_other_images() -> None:
    options = Options.model_validate({"image_tag": "2", "image_overrides": {"cal": "mine:3"}})
    assert images(options, "reg:5000/sdp:1") == {"ingest": "reg:5000/sdp:2", "cal": "mine:3"}


def test_without_an_image_programs_are_processes_whatever_the_tag() -> None:
    options = Options.model_validate({"image_tag": "2"})
    assert images(options, None) == {"ingest": None, "cal": None}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("sdp", "sdp:x"),
        ("sdp:1", "sdp:x"),
        ("reg:5000/a/sdp", "reg:5000/a/sdp:x"),
        ("reg:5000/a/sdp:1.2-b", "reg:5000/a/sdp:x"),
        ("sdp@sha256:0123", "sdp:x"),
        ("sdp:1@sha256:0123", "sdp:x"),
    ],
)
def test_a_tag_replaces_tag_and_digest(reference: str, expected: str) -> None:
    assert with_tag(reference, "x") == expected
