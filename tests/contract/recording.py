"""Recorded conversations with a real Mesos 1.12 master: one line, one thing that happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "../shared/data/mesos"
MISSING = "the recordings of a real Mesos master are not here"


@dataclass(frozen=True)
class Line:
    """One recorded thing."""

    number: int
    time: float
    """Seconds since the beginning."""
    kind: str
    body: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.body[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or the default."""
        return self.body.get(name, default)


@dataclass(frozen=True)
class Recording:
    """One file."""

    name: str
    lines: tuple[Line, ...]
    epoch: float
    """Unix time of second 0, from the statuses that reached the framework fastest."""

    def after(self, number: int) -> Iterator[Line]:
        """Yield what was recorded after a line."""
        return (line for line in self.lines if line.number > number)

    def statuses(self, number: int = -1) -> Iterator[tuple[Line, Mapping[str, Any]]]:
        """Yield the statuses that frameworks were told after a line."""
        for line in self.after(number):
            if line.kind == "event" and line["event"]["type"] == "UPDATE":
                yield line, line["event"]["update"]["status"]


@cache
def load(name: str) -> Recording:
    """Read ``NAME.jsonl``."""
    lines = []
    for text in (FOLDER / f"{name}.jsonl").read_text().splitlines():
        body = json.loads(text)
        lines.append(Line(body.pop("n"), body.pop("t"), body.pop("kind"), body))
    recording = Recording(name, tuple(lines), 0.0)
    told = [s["timestamp"] - line.time for line, s in recording.statuses() if "timestamp" in s]
    return Recording(name, tuple(lines), max(told, default=0.0))


def in_order(lines: Sequence[Line]) -> list[Line]:
    """Put a call that was under way when its caller closed the stream before the closing.

    Likewise what was done to a container before the status that tells of it.
    """
    ordered = list(lines)
    for number, line in enumerate(lines):
        if line.kind == "process" and line["action"].startswith("docker rm -f"):
            told = max(
                n
                for n, x in enumerate(lines[:number])
                if x.kind == "event" and x["event"]["type"] == "UPDATE"
            )
            ordered.insert(told, ordered.pop(number))
    for number, line in enumerate(lines):
        teardown = line.kind == "request" and call_type(line) == "TEARDOWN"
        if line.kind != "client_closes_stream" and not teardown:
            continue
        last = number
        for later in range(number + 1, len(lines)):
            if lines[later].time > line.time + 0.005:
                break
            if call_type(lines[later]) == "ACKNOWLEDGE" and _was_accepted(lines, later):
                last = later + 1
        moved = ordered[number : last + 1]
        closing = [x for x in moved if x is line or x.kind == "stream_end"]
        ordered[number : last + 1] = [x for x in moved if x not in closing] + closing
    return ordered


def _was_accepted(lines: Sequence[Line], request: int) -> bool:
    answers = (x for x in lines[request:] if x.kind == "response")
    return any(x["id"] == lines[request]["id"] and x.get("status") == 202 for x in answers)


def acts(line: Line, action: str, which: str) -> bool:
    """Whether a process does something in a line."""
    return line.kind == "process" and (line["action"], line.get("which")) == (action, which)


def starts(line: Line, which: str) -> bool:
    """Whether a process starts in a line."""
    return acts(line, "start", which)


def call_type(line: Line) -> str | None:
    """Return of what kind a call is."""
    body = line.get("body")
    return body.get("type") if isinstance(body, dict) else None
