"""Tasks that a real Mesos master has refused, judged again: the same ones, with the same words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.embedded.convert import parse
from scheduler.embedded.model import TaskInfo
from scheduler.embedded.pool import Pool
from scheduler.embedded.task_validation import TaskError, check_task
from scheduler.quantities import Ranges, Resources

RECORDINGS = Path(__file__).parents[2] / "../shared/data/mesos"
pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="the recordings of a real Mesos master are not here"
)
AGENT = Pool.unreserved(
    Resources(
        {"cpus": 4000, "mem": 4_096_000, "disk": 10_000_000, "gpu.0.compute": 1000},
        {"ports": Ranges.parse("[31000-32000]"), "cores": Ranges.parse("[0-7]")},
    )
)
OTHER_CAUSE = ("Task has duplicate ID", "Task uses invalid agent")
"""Refusals that depend on other tasks or agents; they are told in the tests of the master."""


def launched() -> Iterator[list[tuple[dict[str, Any], str | None]]]:
    """Yield the tasks of each recorded LAUNCH, and with which text each was refused, if it was."""
    lines = [json.loads(x) for x in (RECORDINGS / "05_failures.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        body = line.get("body")
        if line["kind"] != "request" or not isinstance(body, dict) or body["type"] != "ACCEPT":
            continue
        for operation in body["accept"].get("operations", []):
            tasks = operation.get("launch", {}).get("task_infos", [])
            yield [(t, refusal(t["task_id"]["value"], lines[number:])) for t in tasks]


def refusal(task_id: str, lines: list[dict[str, Any]]) -> str | None:
    for line in lines:
        if line["kind"] == "event" and line["event"]["type"] == "UPDATE":
            status = line["event"]["update"]["status"]
            if status["task_id"]["value"] == task_id:
                refused = status["state"] == "TASK_ERROR"
                return str(status["message"]) if refused else None
    return None


def judge(task: dict[str, Any], available: Pool) -> TaskInfo | str:
    operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
    call = {"type": "ACCEPT", "accept": {"operations": [operation]}}
    converted = parse(json.dumps(call).encode(), "Call")
    (document,) = converted["accept"]["operations"][0]["launch"]["task_infos"]
    agent_id = document["agent_id"]["value"]
    try:
        return check_task(document, agent_id=agent_id, role="*", available=available, taken_ids=())
    except TaskError as exc:
        return str(exc)


def comparable(message: str) -> str:
    """Leave out what was available, which is another agent's."""
    return re.sub(r"is more than available .*", "is more than available", message)


def test_the_same_tasks_are_refused_in_the_same_words() -> None:
    refused = accepted = 0
    for tasks in launched():
        left = AGENT
        for task, recorded in tasks:
            if recorded is not None and recorded.startswith(OTHER_CAUSE):
                continue
            ours = judge(task, left)
            if recorded is not None:
                assert isinstance(ours, str), (task, recorded)
                assert comparable(ours) == comparable(recorded)
                refused += 1
            else:
                assert not isinstance(ours, str), (task, ours)
                left -= ours.pool
                accepted += 1
    assert refused > 30
    assert accepted > 30
