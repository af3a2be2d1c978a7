"""Compiled: the search among plans that place everything, but draw more than there is.

Where the search by ejection walks among plans that lack tasks, this one lacks none: it starts with every task
somewhere, and moves and swaps tasks until no slot is overdrawn. What is overdrawn costs its amount, relative
to the mean that is free in slots of the kind, times the slot's burden. One step looks at one overdrawn slot and
makes the best of all moves and swaps of the tasks that draw from it, even if that makes things worse; it is not
taken back for some steps (tabu search, Glover 1989, doi:10.1287/ijoc.1.3.190). Where nothing better is found,
that slot becomes dearer, so that the search leaves the hollows in which it is stuck (breakout, Morris 1993).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.packing.arrays import (
    AGENT,
    NOWHERE,
    PLACE,
    PLACE_END,
    WANT,
    WANT_END,
    Cluster,
    Demand,
    Ints,
    Plan,
)
from scheduler.packing.bounds import (
    SHARED,
    Bounds,
    bounds_of,
    least_costs_of_places,
    least_costs_of_swaps,
    survey,
    survey_agent,
    survey_all,
    survey_gains,
)
from scheduler.packing.compiled import Random, below, compiled, inlined, outlined, written_out
from scheduler.packing.placing import remove
from scheduler.packing.strain import (
    Strain,
    cost_at,
    force,
    lay,
    lift,
    overdrawn_slot,
    unstrained,
)

TENURE: Final = 1
"""Steps for which a task does not go back, at least."""
SPREAD: Final = 4
"""Number of steps by which that differs at random."""
GROWTH: Final = 0.3
"""By how much of its first price the burden of the slot that is looked at grows, where no step is better."""
CHARGE_GROWTH: Final = 0.15
"""By how much its charge grows then."""
SWAPS: Final = 150
"""Tasks with which one task is tried to be swapped in a step."""
NEVER: Final = 1 << 60
"""Step before which a task does not go to a place where it never fits."""
BETTER: Final = -1e-12
"""A change of cost below this is one."""


@inlined
def draws_from(plan: Plan, task: int, slot: int) -> bool:
    """Whether a task draws from a slot."""
    found = False
    for i in range(plan.draws[task]):
        found = found or (plan.slot[task, i] == slot and plan.amount[task, i] > 0)
    return found


@written_out
def users(plan: Plan, slot: int, owner: int, found: Ints) -> int:
    """Write the tasks that draw from a slot of an agent, or of several (SHARED); return how many."""
    n = 0
    if owner == SHARED:
        for task in range(len(plan.draws)):
            if draws_from(plan, task, slot):
                found[n] = task
                n += 1
        return n
    task = plan.first[owner]
    while task != NOWHERE:
        if draws_from(plan, task, slot):
            found[n] = task
            n += 1
        task = plan.links[task, 0]
    return n


@inlined
def forbidden(
    places: Ints, until: Ints, step: int, task: int, old: int, other: int, place: int
) -> bool:
    """Whether a task may not go to a place, or the other one, if any, to its old place.

    It may stay in its place if it is for other devices. A swap is not between nodes of one agent: there, both
    would draw from the same slots.
    """
    if other == NOWHERE:
        return bool(until[task, place] > step and place != old)
    if until[task, place] > step or until[other, old] > step:
        return True
    return bool(places[place, AGENT] == places[old, AGENT])


@written_out
def changes(plan: Plan, task: int, place: int, chosen: Ints, n_wants: int) -> bool:
    """Whether a task would draw from other slots in a place, on these devices."""
    other = place != plan.where[task]
    for w in range(n_wants):
        other = other or chosen[w] != plan.device[task, w]
    return bool(other)


@written_out
def cost_of_swap(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    strain: Strain,
    task: int,
    other: int,
    bound: float,
) -> float:
    """Return what it costs that two tasks change places, of which the first is lifted already.

    As soon as it is not below `bound`, what it costs at least.
    """
    old, place = plan.where[task], plan.where[other]
    gain = lift(plan, strain, other)
    rest = bound + gain
    cost = cost_at(cluster, demand, plan.free, strain, task, place, rest)
    if cost <= rest:
        cost += cost_at(cluster, demand, plan.free, strain, other, old, rest - cost)
    lay(plan, other)
    return cost - gain


@written_out
def try_places(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    strain: Strain,
    bounds: Bounds,
    task: int,
    step: int,
    bound: float,
) -> float:
    """Look for the place where a task that is lifted costs least, and less than `bound`; return what."""
    old, begin, end = plan.where[task], demand.task[task, PLACE], demand.task[task, PLACE_END]
    agent = cluster.places[old, AGENT]
    n_wants = demand.task[task, WANT_END] - demand.task[task, WANT]
    least_costs_of_places(bounds, task, begin, end)
    for place in range(begin, end):
        # of its own agent the bounds do not know that the task is lifted
        if bounds.least[place] >= bound and cluster.places[place, AGENT] != agent:
            continue
        if forbidden(cluster.places, strain.until, step, task, old, NOWHERE, place):
            continue
        cost = cost_at(cluster, demand, plan.free, strain, task, place, bound)
        if cost < bound and changes(plan, task, place, strain.chosen, n_wants):
            bound = cost
            strain.move[0], strain.move[1], strain.move[2] = task, place, NOWHERE
    return bound


@written_out
def try_swaps(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    strain: Strain,
    bounds: Bounds,
    task: int,
    step: int,
    bound: float,
    random: Random,
) -> float:
    """Look for the swap of a task that is lifted that costs least, and less than `bound`; return what.

    All tasks are tried, or SWAPS that follow a random one, and the first behind the last.
    """
    where, old, n_tasks = plan.where, plan.where[task], len(plan.where)
    offset, n = below(random, n_tasks), min(SWAPS, n_tasks)
    survey(plan, strain, bounds.slots, old, bounds.here, 0)
    least_costs_of_swaps(bounds, task, offset, min(offset + n, n_tasks))
    least_costs_of_swaps(bounds, task, 0, max(0, offset + n - n_tasks))
    for i in range(n):
        other = offset + i
        if other >= n_tasks:
            other -= n_tasks
        if bounds.least[other] >= bound:
            continue
        if forbidden(cluster.places, strain.until, step, task, old, other, where[other]):
            continue
        cost = cost_of_swap(cluster, demand, plan, strain, task, other, bound)
        if cost < bound:
            bound = cost
            strain.move[0], strain.move[1], strain.move[2] = task, where[other], other
    return bound


@written_out
def try_moves(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    strain: Strain,
    bounds: Bounds,
    task: int,
    step: int,
    best: float,
    random: Random,
) -> float:
    """Look for the best move or swap of a task that is better than `best`; return what it changes."""
    gain = lift(plan, strain, task)
    bound = best + gain
    bound = try_places(cluster, demand, plan, strain, bounds, task, step, bound)
    bound = try_swaps(cluster, demand, plan, strain, bounds, task, step, bound, random)
    lay(plan, task)
    return bound - gain


@written_out
def make_move(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    strain: Strain,
    bounds: Bounds,
    step: int,
    random: Random,
) -> None:
    """Make the move that was found, and forbid for some steps to take it back."""
    task, place, other = strain.move[0], strain.move[1], strain.move[2]
    old = plan.where[task]
    strain.until[task, old] = step + TENURE + below(random, SPREAD)
    if other != NOWHERE:
        strain.until[other, place] = step + TENURE + below(random, SPREAD)
    n_moved = 1 if other == NOWHERE else 2
    for i in range(n_moved):
        remove(cluster, plan, other if i > 0 else task)
    for i in range(n_moved):
        force(cluster, demand, plan, strain, other if i > 0 else task, old if i > 0 else place)
    n_agents = 1 if cluster.places[place, AGENT] == cluster.places[old, AGENT] else 2
    for i in range(n_agents):
        survey_agent(plan, strain, bounds, cluster.places[place if i > 0 else old, AGENT])
    survey_gains(plan, strain, bounds)


@outlined
def place_all(cluster: Cluster, demand: Demand, plan: Plan, strain: Strain, random: Random) -> bool:
    """Put what has no place where it costs least; False, if something fits nowhere at all."""
    for task in range(len(plan.where)):
        if plan.where[task] != NOWHERE:
            continue
        best, equal, chosen_place = np.inf, 0, int(np.int64(NOWHERE))
        for place in range(demand.task[task, PLACE], demand.task[task, PLACE_END]):
            if strain.until[task, place] == NEVER:
                continue
            cost = cost_at(cluster, demand, plan.free, strain, task, place, np.inf)
            equal = 1 if cost < best else equal + 1 if cost == best else equal
            if cost < best or (cost == best and below(random, equal) == 0):
                best, chosen_place = cost, place
        if chosen_place == NOWHERE:
            return False
        force(cluster, demand, plan, strain, task, chosen_place)
    return True


@compiled
def relax(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    start: Ints,
    until: Ints,
    random: Random,
    steps: int,
) -> bool:
    """Place what is not placed, and move tasks until nothing is overdrawn; False, if steps do not suffice.

    The plan is of no use then. Tasks that must be in one zone are not known here.

    Parameters
    ----------
    start
        (slots,) what is free when nothing is placed.
    until
        (tasks, places) 0 where a task fits when nothing is placed, NEVER elsewhere; changed.
    """
    strain = unstrained(plan, cluster.weight, start, until)
    if not place_all(cluster, demand, plan, strain, random):
        return False
    bounds = bounds_of(cluster, demand, start)
    survey_all(plan, strain, bounds)
    found = np.empty(len(demand.own), np.int64)
    return follow(cluster, demand, plan, strain, bounds, random, steps, found)


@outlined
def follow(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    strain: Strain,
    bounds: Bounds,
    random: Random,
    steps: int,
    found: Ints,
) -> bool:
    """Make steps of the search until nothing is overdrawn; False, if they do not suffice.

    Parameters
    ----------
    found
        (tasks,) room for those that are looked at in a step.
    """
    for step in range(1, steps + 1):
        slot = overdrawn_slot(plan, strain, random)
        if slot == NOWHERE:
            return True
        best = np.inf
        strain.move[0] = NOWHERE
        for i in range(users(plan, slot, bounds.owner[slot], found)):
            best = try_moves(cluster, demand, plan, strain, bounds, found[i], step, best, random)
        if best >= BETTER:
            grow(plan, strain, bounds, slot)
        if strain.move[0] != NOWHERE:
            make_move(cluster, demand, plan, strain, bounds, step, random)
    return overdrawn_slot(plan, strain, random) == NOWHERE


@written_out
def grow(plan: Plan, strain: Strain, bounds: Bounds, slot: int) -> None:
    """Make it dearer to overdraw a slot."""
    strain.burden[slot] += GROWTH * strain.price[slot]
    strain.charge[slot] += CHARGE_GROWTH
    if bounds.owner[slot] >= 0:
        survey_agent(plan, strain, bounds, bounds.owner[slot])
    survey_gains(plan, strain, bounds)
