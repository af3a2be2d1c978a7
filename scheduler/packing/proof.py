"""What shows at once, in the arrays, that no search can place everything.

All that :class:`~scheduler.packing.shortage.Shortage` calls proven shows here; and what no longer fits beside
running siblings or in the zone of a tie does, too.
"""

from __future__ import annotations

from scheduler.packing.arrays import Ints
from scheduler.packing.flat import Problem
from scheduler.packing.greedy import each_fits_alone
from scheduler.packing.totals import short_of_devices, short_of_own


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
