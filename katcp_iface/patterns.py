"""Regular expressions of clients, which must not hold the controller up.

Python's matcher goes back and tries again: with ``(a+)+b`` a name of thirty letters keeps it busy for minutes,
and nothing can interrupt it. What can take that long is refused: it is a repetition of something that can match
the same text in several ways, or one repetition after the other.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, Final

MAX_LENGTH: Final = 1000
MAX_OPEN: Final = 4
"""Repetitions without an end in one pattern."""
_BOUND: Final = 100
"""A repetition that may go on for longer counts as one without an end."""

_REPEATS: Final = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)


class PatternError(ValueError):
    """The pattern is none, or could take too long; says so for people."""


def compiled(text: str) -> re.Pattern[str]:
    """Return a pattern that matches a short text in little time.

    Raises
    ------
    PatternError
        If it is no pattern, or not one of those.
    """
    if len(text) > MAX_LENGTH:
        raise PatternError(f"a pattern of {len(text)} characters: at most {MAX_LENGTH} are taken")
    try:
        tree, pattern = _parsed(text)
    except (re.error, RecursionError, OverflowError) as exc:
        raise PatternError(f"no regular expression: {exc}") from exc
    endless = list(_endless(tree))
    if len(endless) > MAX_OPEN:
        raise PatternError(
            f"a pattern with {len(endless)} repetitions: at most {MAX_OPEN} are taken"
        )
    if any(_ambiguous(body) for body in endless):
        raise PatternError(
            "a pattern that repeats what repeats or has alternatives: it could take for ever"
        )
    return pattern


def _parsed(text: str) -> tuple[Any, re.Pattern[str]]:
    """Return the operations of a pattern, and the pattern."""
    with warnings.catch_warnings():
        # ``[[`` is warned of. It is a client's pattern: nobody who reads the controller's log can change it.
        warnings.simplefilter("ignore", FutureWarning)
        return _parser.parse(text), re.compile(text)


def _endless(tree: Any) -> Iterator[Any]:
    """Yield the bodies of all repetitions that have no end worth the name, the inner ones as well."""
    for operation, argument in tree:
        if operation in _REPEATS and argument[1] > _BOUND:
            yield argument[2]
        for part in _parts(argument):
            yield from _endless(part)


def _ambiguous(tree: Any) -> bool:
    """Whether something can match the same text in several ways, as far as can be seen."""
    return any(
        operation in (*_REPEATS, _constants.BRANCH, _constants.GROUPREF)
        or any(_ambiguous(part) for part in _parts(argument))
        for operation, argument in tree
    )


def _parts(argument: Any) -> Iterator[Any]:
    """Yield the patterns within an operation's argument."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for part in argument:
            yield from _parts(part)
