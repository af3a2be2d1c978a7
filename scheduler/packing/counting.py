"""Counting integers that sets of intervals have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from scheduler.packing.arrays import Ints
from scheduler.packing.compiled import compiled
from scheduler.quantities import Ranges

Intervals = tuple[tuple[int, int], ...]
"""Of a set of integers: disjoint and in order, as in `Ranges`."""


def count_common(one: Ranges, other: Ranges) -> int:
    """Return how many integers are in both: ``len(one & other)`` without making the set."""
    count = 0
    for begin, end in one.intervals:
        for other_begin, other_end in other.intervals:
            count += max(0, min(end, other_end) - max(begin, other_begin) + 1)
    return count


def starts(lengths: Ints) -> Ints:
    """Return where each of several runs of these lengths begins, one behind the other, and the end of all."""
    found = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=found[1:])
    return found


def runs(first: Ints, lengths: Ints) -> Ints:
    """Return the members of runs of consecutive numbers, one behind the other."""
    found: Ints = np.repeat(first - starts(lengths)[:-1], lengths) + np.arange(lengths.sum())
    return found


def laid(sets: Sequence[Intervals]) -> tuple[Ints, Ints]:
    """Return the intervals of all sets (any, 2), and where those of each begin (sets + 1,)."""
    lengths = np.fromiter(map(len, sets), np.int64, len(sets))
    flat = chain.from_iterable(chain.from_iterable(sets))
    return np.fromiter(flat, np.int64).reshape(-1, 2), starts(lengths)


@compiled
def count_within(intervals: Ints, first: Ints, least: int, most: int) -> Ints:
    """Count what of each of many sets, as :func:`laid` returns them, is from `least` to `most`."""
    found = np.zeros(len(first) - 1, np.int64)
    for n in range(len(found)):
        for i in range(first[n], first[n + 1]):
            common = min(intervals[i, 1], most) - max(intervals[i, 0], least) + 1
            found[n] += max(0, common)
    return found


@compiled
def count_all(one: Ints, first: Ints, owner: Ints, other: Ints, other_first: Ints) -> Ints:
    """Count what each of many sets has in common with the one that it belongs to.

    Parameters
    ----------
    one, first
        Sets as :func:`laid` returns them.
    owner
        (others,) number of the set that each other belongs to.
    other, other_first
        The others, in the same form.

    Returns
    -------
    (others,) how many integers are in both.
    """
    found = np.zeros(len(owner), np.int64)
    for n in range(len(owner)):
        for i in range(other_first[n], other_first[n + 1]):
            for j in range(first[owner[n]], first[owner[n] + 1]):
                common = min(one[j, 1], other[i, 1]) - max(one[j, 0], other[i, 0]) + 1
                found[n] += max(0, common)
    return found
