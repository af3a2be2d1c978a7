"""What shows at once, in the arrays, that no search can place everything.

All that :class:`~scheduler.packing.shortage.Shortage` calls proven shows here; and what no longer fits beside
running siblings or in the zone of a tie does, too.
"""

from __future__ import annotations

import numpy as np

from scheduler.packing.arrays import (
    CORES,
    N_CORES,
    OWN,
    OWN_SLOTS,
    SERVICE,
    Ints,
)
from scheduler.packing.flat import Problem
from scheduler.packing.greedy import each_fits_alone


def hopeless(problem: Problem, missing: Ints) -> bool:
    """Whether it is certain that no search can place all tasks.

    Parameters
    ----------
    missing
        The numbers of those that were hard to place.
    """
    if _short_of_own(problem) or _short_of_devices(problem):
        return True
    plan = problem.empty_plan()
    return not each_fits_alone(problem.cluster, problem.demand, plan, missing)


def _short_of_own(problem: Problem) -> bool:
    """Whether more CPUs, memory, disk, ports or cores are asked for than all agents have."""
    places, free, demand = problem.cluster.places, problem.free, problem.demand
    n_nodes, n_agents = problem.n_nodes, len(problem.agents)
    own = places[n_nodes : n_nodes + n_agents, OWN]
    have = free[own[:, None] + np.arange(OWN_SLOTS)].sum(axis=0)
    cores = free[places[:n_nodes, CORES]].sum()
    too_much = demand.own.sum(axis=0) > have
    return bool(too_much.any() or demand.task[:, N_CORES].sum() > cores)


def _short_of_devices(problem: Problem) -> bool:
    """Whether more is asked of GPUs, or of the interfaces of one network, than those have that can serve it."""
    cluster, want = problem.cluster, problem.demand.want
    for family in np.unique(problem.family):
        services = problem.family == family
        asked = want[services[want[:, SERVICE]], :2].sum(axis=0)
        slots = cluster.device[cluster.serves[:, services].any(axis=1), 0]
        have = problem.free[slots].sum(), problem.free[slots + 1].sum()
        if asked[0] > have[0] or asked[1] > have[1]:
            return True
    return False
