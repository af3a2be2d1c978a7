"""Tasks that must be in one zone: in which zones that could be at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scheduler.packing.arrays import (
    ADMISSION,
    AGENT,
    NODE,
    NOWHERE,
    OWN,
    OWN_SLOTS,
    Cluster,
    Demand,
    Ints,
    empty_plan,
)
from scheduler.packing.ejection import find_candidates
from scheduler.packing.relations import Ties


def keep_together(
    cluster: Cluster, demand: Demand, free: Ints, ties: Ties
) -> tuple[Cluster, Demand]:
    """Admit the tasks of a tie only to zones in which each of them fits, and the totals suffice for all.

    They count as large as all of them together, so that they are placed one after the other, and early.
    """
    admits, size = cluster.admits.copy(), demand.size.copy()
    plan = empty_plan(free, cluster.admits.shape[1], demand)
    room = np.empty(len(cluster.places), np.int64)
    for tie in range(len(ties.facts)):
        anew = [task for task in ties.members(tie) if task < len(demand.own)]
        zone, members = cluster.zone[tie], np.array(anew, np.int64)
        allowed = _sufficing(cluster, demand, free, members, zone)
        for task in members:
            n = find_candidates(cluster, demand, plan, task, free, room)
            reached = np.unique(zone[cluster.places[room[:n], AGENT]])
            allowed &= np.isin(np.arange(len(allowed)), reached)
        outside = (zone == NOWHERE) | ~allowed[np.maximum(zone, 0)]
        rows = np.unique(demand.task[members, ADMISSION])
        admits[np.ix_(rows, outside)] = 0
        size[members] = np.maximum(size[members], demand.size[members].sum())
    return cluster._replace(admits=admits), demand._replace(size=size)


def _sufficing(
    cluster: Cluster, demand: Demand, free: Ints, members: Ints, zone: Ints
) -> NDArray[np.bool_]:
    """Return for each zone whether its agents have the CPUs, memory, disk and ports for all members."""
    n_zones = max(int(zone.max(initial=NOWHERE)) + 1, 1)
    is_agent = (cluster.places[:, NODE] == NOWHERE) & (zone[cluster.places[:, AGENT]] != NOWHERE)
    agents = cluster.places[is_agent]
    suffices = np.ones(n_zones, np.bool_)
    for i in range(OWN_SLOTS):
        total = np.zeros(n_zones, np.int64)
        np.add.at(total, zone[agents[:, AGENT]], free[agents[:, OWN] + i])
        suffices &= total >= demand.own[members, i].sum()
    return suffices
