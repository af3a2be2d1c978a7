"""What tasks tell of a capture of which the database has lost the record. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

Asked = Mapping[str, str]
"""Capture block by task, as tasks tell; empty for none."""

_CBID: Final = re.compile(r"[1-9][0-9]{0,17}")


def blocks(told: Asked, newest: float) -> list[str]:
    """Return the blocks that tasks are at, oldest first.

    Parameters
    ----------
    newest
        Number that none can be beyond, because numbers follow the clock: what a task tells may be anything.
    """
    found = {cbid for cbid in told.values() if _CBID.fullmatch(cbid) and int(cbid) <= newest}
    return sorted(found, key=int)


def captures(told: Asked, cbid: str, needed: Collection[str]) -> bool:
    """Whether all tasks that an observation needs are at a block."""
    return bool(needed) and all(told.get(task) == cbid for task in needed)


def has_ended(
    told: Asked, cbid: str, stages: Sequence[Collection[str]], expendable: Collection[str]
) -> bool:
    """Whether a block that is recorded as capturing was told to end: that begins at the sources.

    Those of the sources that answer are not at it any more. One that does not answer proves nothing.
    """
    for stage in stages:
        needed = set(stage) - set(expendable)
        if needed:
            answers = [told[task] for task in needed if task in told]
            return bool(answers) and cbid not in answers
    return False
