"""Compiled: how much an amount of each kind is beside what is free of it, and how large tasks are by that."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.packing.arrays import (
    N_CORES,
    N_WHOLE,
    NODE,
    NODE_CORES,
    NODE_SHARE,
    NOWHERE,
    OWN_SLOTS,
    PLENTY,
    WANT,
    WANT_END,
    WIDTH,
    Floats,
    Ints,
    Kind,
)
from scheduler.packing.compiled import compiled
from scheduler.requests import MAX_SHARE

_CORES: Final = int(Kind.CORES)
_GPU: Final = int(Kind.GPU_COMPUTE)
_NIC: Final = int(Kind.NIC_IN)
_TICKET: Final = int(Kind.TICKET)


@compiled
def weigh(free: Ints, kinds: Ints, n_kinds: int) -> tuple[Floats, Floats]:
    """Return one over the mean that is free in the counted slots of each kind, and that of each slot.

    0 where nothing is free, and for slots that are not counted and tickets.
    """
    numbers, sums = np.zeros(n_kinds, np.int64), np.zeros(n_kinds)
    for slot in range(len(free)):
        if free[slot] < PLENTY and kinds[slot] != _TICKET:
            numbers[kinds[slot]] += 1
            sums[kinds[slot]] += free[slot]
    by_kind, weight = np.zeros(n_kinds), np.zeros(len(free))
    for kind in range(n_kinds):
        if sums[kind] > 0:
            by_kind[kind] = numbers[kind] / sums[kind]
    for slot in range(len(free)):
        if free[slot] < PLENTY and kinds[slot] != _TICKET:
            weight[slot] = by_kind[kinds[slot]]
    return by_kind, weight


@compiled
def sizes(
    own: Ints,
    task: Ints,
    want: Ints,
    on_nic: NDArray[np.bool_],
    places: Ints,
    by_kind: Floats,
) -> Floats:
    """Return all that each task asks for, each by the weight of its kind.

    Cores are the logical CPUs that it takes on a node such as there are, in the mean.

    Parameters
    ----------
    own, task, want
        As in `Demand`.
    on_nic
        (wants,)
    places
        As in `Cluster`.
    by_kind
        As :func:`weigh` returns it.
    """
    n_nodes, width, cores = 0, 0, 0
    for place in range(len(places)):
        if places[place, NODE] != NOWHERE:
            n_nodes += 1
            width += places[place, WIDTH]
            cores += places[place, NODE_CORES]
    more = width / n_nodes - 1 if n_nodes > 0 else 0.0
    of_share = cores / n_nodes / MAX_SHARE if n_nodes > 0 else 0.0
    found = np.zeros(len(task))
    for t in range(len(task)):
        for i in range(OWN_SLOTS):
            found[t] += own[t, i] * by_kind[i]
        named = task[t, N_CORES] + more * task[t, N_WHOLE]
        found[t] += max(named, of_share * task[t, NODE_SHARE]) * by_kind[_CORES]
        for w in range(task[t, WANT], task[t, WANT_END]):
            kind = _NIC if on_nic[w] else _GPU
            found[t] += want[w, 0] * by_kind[kind] + want[w, 1] * by_kind[kind + 1]
    return found
