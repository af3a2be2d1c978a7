"""What shows at once, in the arrays, that no search can place everything.

All that :class:`~scheduler.packing.shortage.Shortage` calls proven shows here; and what no longer fits beside
running siblings or in the zone of a tie does, too.
"""

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
)
from scheduler.packing.compiled import compiled
from scheduler.packing.flat import Problem
from scheduler.packing.greedy import each_fits_alone


def hopeless(problem: Problem, missing: Ints) -> bool:
    """Whether it is certain that no search can place all tasks.

    Parameters
    ----------
    missing
        The numbers of those that were hard to place.
    """
    cluster, demand, free = problem.cluster, problem.demand, problem.free
    if short_of_own(cluster, demand, free) or short_of_devices(
        cluster, demand, free, problem.family
    ):
        return True
    return not each_fits_alone(cluster, demand, problem.empty_plan(), missing)


@compiled
def short_of_own(cluster: Cluster, demand: Demand, free: Ints) -> bool:
    """Whether more CPUs, memory, disk, ports or cores are asked for than all agents have."""
    spare, cores = np.zeros(OWN_SLOTS, np.int64), 0
    for place in cluster.places:
        if place[NODE] == NOWHERE:
            spare += free[place[OWN] : place[OWN] + OWN_SLOTS]
        elif place[L3] == NOWHERE:
            cores += free[place[CORES]]
    for task in range(len(demand.own)):
        spare -= demand.own[task]
        cores -= demand.task[task, N_CORES]
    return bool(spare.min() < 0 or cores < 0)


@compiled
def short_of_devices(cluster: Cluster, demand: Demand, free: Ints, family: Ints) -> bool:
    """Whether more is asked of GPUs, or of the interfaces of one network, than those have that can serve it.

    Parameters
    ----------
    family
        As in :class:`~scheduler.packing.flat.Problem`.
    """
    n_families = family.max() + 1 if len(family) > 0 else 0
    spare = np.zeros((n_families, 2), np.int64)
    for d in range(len(cluster.device)):
        slot = cluster.device[d, 0]
        known = np.zeros(n_families, np.bool_)
        for service in range(len(family)):
            f = family[service]
            if cluster.serves[d, service] != 0 and not known[f]:
                known[f] = True
                spare[f] += free[slot : slot + 2]
    for w in range(len(demand.want)):
        spare[family[demand.want[w, SERVICE]]] -= demand.want[w, :2]
    return bool(np.any(spare < 0))
