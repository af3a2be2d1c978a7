"""Many things in one sentence."""

from __future__ import annotations

from collections.abc import Sequence


def some(items: Sequence[str], most: int, between: str = ", ") -> str:
    """Name the first of several things for people, and how many there are more.

    Parameters
    ----------
    most
        How many are named.
    between
        What stands between them: ``; `` where they are sentences.
    """
    named, more = between.join(items[:most]), len(items) - most
    if more <= 0:
        return named
    return f"{named} and {more} more" if between == ", " else f"{named}{between}{more} more"
