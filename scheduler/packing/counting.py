"""Counting integers that sets of intervals have in common."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scheduler.packing.arrays import NOWHERE, Ints
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


class Sets(NamedTuple):
    """Sets of integers, packed: 64 bits for each number."""

    intervals: bytes
    """Begin and end of the intervals of one set after the other."""
    counts: bytes
    """How many each has."""


def packed(*sets: Intervals) -> Sets:
    """Pack sets."""
    numbers = [number for intervals in sets for pair in intervals for number in pair]
    return Sets(array("q", numbers).tobytes(), array("q", map(len, sets)).tobytes())


def laid(sets: Sequence[Sets]) -> tuple[Ints, Ints]:
    """Return the intervals of all sets (any, 2), and where those of each begin (sets + 1,)."""
    intervals = np.frombuffer(b"".join([of.intervals for of in sets]), np.int64)
    counts = np.frombuffer(b"".join([of.counts for of in sets]), np.int64)
    return intervals.reshape(-1, 2), starts(counts)


@compiled
def count_within(intervals: Ints, first: Ints, least: int, most: int) -> Ints:
    """Count what of each of many sets, as :func:`laid` returns them, is from `least` to `most`."""
    found = np.zeros(len(first) - 1, np.int64)
    for n in range(len(found)):
        for i in range(first[n], first[n + 1]):
            common = min(intervals[i, 1], most) - max(intervals[i, 0], least) + 1
            found[n] += max(0, common)
    return found


class Pools(NamedTuple):
    """Sets of integers, each of which has something in common with the set that it belongs to.

    The cores of NUMA nodes, for example, and the free cores of their agents; sets are as :func:`laid` returns
    them.
    """

    one: Ints
    first: Ints
    """The sets that others belong to."""
    owner: Ints
    """(others,) number of the set that each other belongs to."""
    other: Ints
    other_first: Ints


@compiled
def count_all(pools: Pools) -> Ints:
    """Return (others,) how many integers each has in common with the set that it belongs to."""
    one, first, owner, other, other_first = pools
    found = np.zeros(len(owner), np.int64)
    for n in range(len(owner)):
        for i in range(other_first[n], other_first[n + 1]):
            for j in range(first[owner[n]], first[owner[n] + 1]):
                common = min(one[j, 1], other[i, 1]) - max(one[j, 0], other[i, 0]) + 1
                found[n] += max(0, common)
    return found


@compiled
def deal(pools: Pools, pool: Ints, count: Ints) -> Ints:
    """Deal out what pools have in common with the sets that they belong to, the smallest integers first.

    Parameters
    ----------
    pool, count
        From which pool how many are taken, draw by draw.

    Returns
    -------
    (sum of count,) what is drawn; NOWHERE, where a pool does not have that many.
    """
    one, first, owner, other, other_first = pools
    found = np.full(count.sum(), NOWHERE, np.int64)
    least = np.zeros(len(owner), np.int64)  # smallest that is left
    n = 0
    for draw in range(len(pool)):
        p, end = pool[draw], n + count[draw]
        for i in range(other_first[p], other_first[p + 1]):
            for j in range(first[owner[p]], first[owner[p] + 1]):
                begin = max(one[j, 0], other[i, 0], least[p])
                for member in range(begin, min(one[j, 1], other[i, 1]) + 1):
                    if n == end:
                        break
                    found[n], least[p] = member, member + 1
                    n += 1
        n = end
    return found
