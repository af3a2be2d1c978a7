"""Differences from Mesos that are on purpose: the table in ``docs/embedded-cluster.md``, and nothing else."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.contract.compare import Difference

DOCUMENT = Path(__file__).parents[2] / "docs" / "embedded-cluster.md"
_ROW = re.compile(r"\|\s*`(?P<scenario>[^`]+)`\s*\|\s*`(?P<what>[^`]+)`\s*\|(?P<why>.+)\|\s*")


@dataclass(frozen=True)
class Intended:
    """One row: scenario and what may differ there, as patterns, and why."""

    scenario: str
    what: str
    why: str

    def covers(self, difference: Difference) -> bool:
        """Whether this row allows a difference."""
        return _matches(difference.scenario, self.scenario) and _matches(difference.what, self.what)


def _matches(text: str, patterns: str) -> bool:
    """Whether one of several patterns fits; in them ``[`` stands for itself."""
    return any(
        fnmatch.fnmatchcase(text, pattern.strip().replace("[", "[[]"))
        for pattern in patterns.split(",")
    )


def intended() -> list[Intended]:
    """Read the table."""
    rows = map(_ROW.fullmatch, DOCUMENT.read_text().splitlines())
    return [Intended(r["scenario"], r["what"], r["why"].strip()) for r in rows if r is not None]


def split(
    differences: Iterable[Difference], rows: list[Intended]
) -> tuple[list[Difference], set[Intended]]:
    """Return the differences that no row allows, and the rows that allow some."""
    left: list[Difference] = []
    used: set[Intended] = set()
    for difference in differences:
        row = next((row for row in rows if row.covers(difference)), None)
        if row is None:
            left.append(difference)
        else:
            used.add(row)
    return left, used
