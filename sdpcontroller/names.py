"""What products can be called: their names become parts of sensor names, task ids and folders."""

from __future__ import annotations

import itertools
import re
from collections.abc import Container
from typing import Final

from sdpcontroller.errors import CommandError

MAX_NAME: Final = 63
"""Characters of the longest name."""
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}")
_RULE: Final = f"letters, digits, '_' and '-', the first a letter or digit, at most {MAX_NAME}"


def check(name: str) -> None:
    """Refuse what can be no product's name.

    Raises
    ------
    CommandError
        If it is none.
    """
    if _NAME.fullmatch(name) is None:
        raise CommandError(f"{name[:80]!r} is no product name: {_RULE}")


def free(pattern: str, taken: Container[str]) -> str:
    """Return a name: the pattern, with the first number that is free in the place of a ``*``.

    Raises
    ------
    CommandError
        If it makes no name.
    """
    name = pattern.replace("*", "0")
    if pattern.count("*") > 1 or _NAME.fullmatch(name) is None:
        raise CommandError(
            f"{pattern[:80]!r} is no product name: {_RULE}; and at most one '*' for a number"
        )
    if name == pattern:
        return name
    numbered = (pattern.replace("*", str(number)) for number in itertools.count())
    name = next(candidate for candidate in numbered if candidate not in taken)
    check(name)  # a number of several digits may make it too long
    return name
