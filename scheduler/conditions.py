"""Conditions on which nodes of a batch graph run or are skipped, by name.

A node's template names one (``run_if``). It is asked when all that the node needs has been decided, with the
results of these by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from scheduler.errors import SchedulerError
from scheduler.views import NodeResult

Condition = Callable[[Mapping[str, NodeResult]], bool]


def _all_finished(needs: Mapping[str, NodeResult]) -> bool:
    return all(need.finished for need in needs.values())


def _any_finished(needs: Mapping[str, NodeResult]) -> bool:
    return any(need.finished for need in needs.values())


def _any_failed(needs: Mapping[str, NodeResult]) -> bool:
    return any(not need.finished and not need.excused for need in needs.values())


def _none_finished(needs: Mapping[str, NodeResult]) -> bool:
    return not _any_finished(needs)


_REGISTERED: Final[dict[str, Condition]] = {
    "all finished": _all_finished,
    "any finished": _any_finished,
    "any failed": _any_failed,
    "none finished": _none_finished,
}
CONDITIONS: Final[Mapping[str, Condition]] = MappingProxyType(_REGISTERED)
"""All that there are."""


def register(name: str, condition: Condition) -> None:
    """Make a condition known, before any graph names it.

    Raises
    ------
    SchedulerError
        If there is one of that name.
    """
    if name in _REGISTERED:
        raise SchedulerError(f"there is a condition {name!r} already")
    _REGISTERED[name] = condition
