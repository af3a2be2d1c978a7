"""Whose antennas these are."""

from __future__ import annotations

import re
from collections.abc import Iterable


def telescope_of(antennas: Iterable[str]) -> str:
    """Whose antennas these are, by their names; empty where that is not known.

    The format has no field for it: MeerKAT's antennas are m000 to m063, and a replayed observation of another
    array keeps its own names.

    >>> telescope_of(["m000", "m063"])
    'MeerKAT'
    """
    names = list(antennas)
    ours = bool(names) and all(re.fullmatch(r"m0[0-6][0-9]", name) for name in names)
    return "MeerKAT" if ours else ""
