"""Compiled: what all tasks ask for together, beside all that there is, and each of them alone."""

from __future__ import annotations

import numpy as np

from scheduler.packing.arrays import (
    CORES,
    L3,
    N_CORES,
    NODE,
    NOWHERE,
    OWN,
    OWN_SLOTS,
    SERVICE,
    Cluster,
    Demand,
    Ints,
    Plan,
)
from scheduler.packing.compiled import compiled, inlined, within
from scheduler.packing.greedy import fits_alone


@within
def short_of_own(cluster: Cluster, demand: Demand, free: Ints) -> bool:
    """Whether more CPUs, memory, disk, ports or cores are asked for than all agents have."""
    spare, cores = np.zeros(OWN_SLOTS, np.int64), 0
    for place in cluster.places:
        for i in range(OWN_SLOTS if place[NODE] == NOWHERE else 0):
            spare[i] += free[place[OWN] + i]
        if place[NODE] != NOWHERE and place[L3] == NOWHERE:
            cores += free[place[CORES]]
    for task in range(len(demand.own)):
        cores -= demand.task[task, N_CORES]
        for i in range(OWN_SLOTS):
            spare[i] -= demand.own[task, i]
    return bool(cores < 0 or any_below_zero(spare))


@inlined
def any_below_zero(amounts: Ints) -> bool:
    """Whether one of these amounts is."""
    found = False
    for amount in amounts:
        found = found or amount < 0
    return bool(found)


@within
def short_of_devices(cluster: Cluster, demand: Demand, free: Ints, family: Ints) -> bool:
    """Whether more is asked of GPUs, or of the interfaces of one network, than those have that can serve it.

    Parameters
    ----------
    family
        As in :class:`~scheduler.packing.flat.Problem`.
    """
    n_services = len(family)
    first, second = np.zeros(n_services, np.int64), np.zeros(n_services, np.int64)  # by family
    last = np.full(n_services, np.int64(NOWHERE), np.int64)  # device that was counted
    for d in range(len(cluster.device)):
        slot = cluster.device[d, 0]
        for service in range(n_services):
            f = family[service]
            if cluster.serves[d, service] != 0 and last[f] != d:
                last[f] = d
                first[f] += free[slot]
                second[f] += free[slot + 1]
    for w in range(len(demand.want)):
        f = family[demand.want[w, SERVICE]]
        first[f] -= demand.want[w, 0]
        second[f] -= demand.want[w, 1]
    return any_below_zero(first) or any_below_zero(second)


@compiled
def show(cluster: Cluster, demand: Demand, plan: Plan, family: Ints, missing: Ints) -> bool:
    """Whether the totals, or one of the missing tasks alone, show that not everything can be placed.

    Parameters
    ----------
    plan
        With nothing placed.
    family
        As in :class:`~scheduler.packing.flat.Problem`.
    """
    if short_of_own(cluster, demand, plan.free):
        return True
    if short_of_devices(cluster, demand, plan.free, family):
        return True
    fit = True
    for task in missing:
        fit = fit and fits_alone(cluster, demand, plan, task)
    return not fit
