"""Types of options that several programs have; each says in its message what it expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def bounded(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """Return the type of an option: a number of the given kind from `low` to `high`, both included."""

    def convert(text: str) -> float:
        """Read the number; what is no number, or not finite, is outside of any bounds."""
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is no number from {low:g} to {high:g}")
        return value

    return convert


def channel_range(text: str) -> range:
    """Type of an option: ``A:B``, the channels from A to before B."""
    start, colon, stop = text.partition(":")
    if not colon or not all(x.isascii() and x.isdigit() and len(x) < 10 for x in (start, stop)):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no range of channels: expected A:B")
    return range(int(start), int(stop))
