"""What shows at once, in the arrays, that no search can place everything.

All that :class:`~scheduler.packing.shortage.Shortage` calls proven shows here; and what no longer fits beside
running siblings or in the zone of a tie does, too.
"""

from __future__ import annotations

from scheduler.packing.arrays import Ints
from scheduler.packing.flat import Problem
from scheduler.packing.totals import show


def hopeless(problem: Problem, missing: Ints) -> bool:
    """Whether it is certain that no search can place all tasks.

    Parameters
    ----------
    missing
        The numbers of those that were hard to place.
    """
    plan = problem.empty_plan()
    return bool(show(problem.cluster, problem.demand, plan, problem.family, missing))
