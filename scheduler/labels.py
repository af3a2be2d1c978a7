"""What a task carries with it, readable by whoever asks Mesos: enough to put its record back.

Labels are public (everybody who may look at the master's pages reads them): of the secret by which a task asks
for its go-ahead there is only the digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from scheduler.goahead import digest
from scheduler.graph import TaskTemplate
from scheduler.placement import Assignment

GRAPH: Final = "sdp.graph"
TASK: Final = "sdp.task"
KIND: Final = "sdp.kind"
PROGRAM: Final = "sdp.program"
"""Digest of what it runs."""
GATE: Final = "sdp.gate"
"""Digest of the secret of its go-ahead; not there when it waits for nothing."""
PLACE: Final = "sdp.place"
"""Its assignment as JSON, what is as usual left out, with the address of its ports and the agent's URL."""

MAX_LABEL: Final = 16 * 1024
"""Bytes of one that is read."""
_ASSIGNMENT: Final = TypeAdapter(Assignment)
_ELSEWHERE: Final = ("task", "agent_id")
"""Fields of an assignment that Mesos tells."""
_IN_ORDER: Final = json.JSONEncoder(sort_keys=True).encode
"""Writes what is digested: in another form, no task that runs would be known as the program that it is."""
_ID: Final = re.compile(r"(?P<graph>[^.]+)\.(?P<name>.+)\.(?P<attempt>[0-9]{1,9})")


def program(template: TaskTemplate) -> str:
    """Return a digest of what a task runs, before its templates are filled in."""
    what = [template.command, dict(template.env), template.image, dict(template.gpu_images)]
    return hashlib.sha256(_IN_ORDER(what).encode()).hexdigest()[:16]


def written(
    template: TaskTemplate,
    graph_id: str,
    assignment: Assignment,
    address: str,
    url: str,
    token: str,
) -> dict[str, str]:
    """Return the labels of a placed task.

    Parameters
    ----------
    address, url
        Where the agent's ports and its HTTP API are reached.
    token
        Secret of its go-ahead; empty when it waits for nothing.
    """
    place = assignment.unusual(*_ELSEWHERE) | {"address": address, "url": url}
    labels = {
        GRAPH: graph_id,
        TASK: template.name,
        KIND: template.kind,
        PROGRAM: program(template),
        PLACE: orjson.dumps(place).decode(),
    }
    if token:
        labels[GATE] = digest(token)
    return labels


@dataclass(frozen=True, slots=True)
class Found:
    """One task of ours, as Mesos knows it."""

    task_id: str
    state: str
    """Mesos' word."""
    agent_id: str
    labels: Mapping[str, str]

    @property
    def graph_id(self) -> str:
        """Of its graph, by its id; empty where the id is none of ours."""
        match = _ID.fullmatch(self.task_id)
        return "" if match is None else match["graph"]

    @property
    def name(self) -> str:
        """Within its graph."""
        match = _ID.fullmatch(self.task_id)
        return "" if match is None else match["name"]

    @property
    def attempt(self) -> int:
        """Number of its attempt."""
        return attempt(self.task_id)


def attempt(task_id: str) -> int:
    """Return which attempt of its task an id is; -1 where it is no id of ours."""
    match = _ID.fullmatch(task_id)
    return -1 if match is None else int(match["attempt"])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task is, and what it was given there."""

    assignment: Assignment
    address: str
    url: str


def place_of(found: Found) -> Place | None:
    """Return where a task is by its labels; None where they do not tell."""
    try:
        told = orjson.loads(found.labels.get(PLACE, ""))
        address, url = str(told.pop("address")), str(told.pop("url"))
        told |= {"task": found.name, "agent_id": found.agent_id}
        return Place(_ASSIGNMENT.validate_python(told), address, url)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


class _Label(TypedDict):
    key: str
    value: str


class _Task(TypedDict):
    id: str
    framework_id: str
    slave_id: str
    state: str
    labels: list[_Label]


_TASK: Final = TypeAdapter(_Task)


def read_page(document: object, framework_id: str) -> tuple[list[Found], int] | None:
    """Read one page of the master's ``/tasks``.

    Returns
    -------
    found, count
        The tasks of a framework, and how many tasks were on the page; None when it is none.
    """
    entries = document.get("tasks") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        return None
    found = (_read(entry, framework_id) for entry in entries)
    return [task for task in found if task is not None], len(entries)


def _read(entry: Any, framework_id: str) -> Found | None:
    try:
        task = _TASK.validate_python({"labels": [], **entry} if isinstance(entry, dict) else entry)
    except ValidationError:
        return None
    if task["framework_id"] != framework_id:
        return None
    labels = {
        label["key"]: label["value"] for label in task["labels"] if len(label["value"]) <= MAX_LABEL
    }
    return Found(task["id"], task["state"], task["slave_id"], labels)
