"""Recorded conversations with a real Mesos 1.12 master: one line, one thing that happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
