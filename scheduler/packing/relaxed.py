"""Compiled: the search among plans that place everything, but draw more than there is.

Where the search by ejection walks among plans that lack tasks, this one lacks none: it starts with every task
somewhere, and moves and swaps tasks until no slot is overdrawn. What is overdrawn costs its amount, relative
to the mean that is free in slots of the kind, times the slot's burden. One step looks at one overdrawn slot and
makes the best of all moves and swaps of the tasks that draw from it, even if that makes things worse; it is not
taken back for some steps (tabu search, Glover 1989, doi:10.1287/ijoc.1.3.190). Where nothing better is found,
what is overdrawn becomes dearer, so that the search leaves the hollows in which it is stuck (breakout, Morris
1993).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.packing.admission import NO
from scheduler.packing.arrays import (
    ADMISSION,
    AGENT,
    CORES,
    N_CORES,
    NOWHERE,
    PLACE,
    PLACE_END,
    SPECIAL,
    WANT,
    WANT_END,
    Cluster,
    Demand,
    Floats,
    Ints,
    Plan,
)
from scheduler.packing.compiled import Random, below, compiled, inlined
from scheduler.packing.placing import left_at, remove
from scheduler.packing.strain import (
    Strain,
    cost_at,
    force,
    lay,
    lift,
    overdrawn_slot,
    unstrained,
    worth,
)

TENURE: Final = 3
"""Steps for which a task does not go back, at least."""
SPREAD: Final = 5
"""Number of steps by which that differs at random."""
GROWTH: Final = 0.1
"""By how much of its first price the burden of an overdrawn slot grows, where no step makes things better."""
SWAPS: Final = 150
"""Tasks with which one task is tried to be swapped in a step."""
NEVER: Final = 1 << 60
"""Step before which a task does not go to a place where it never fits."""
BETTER: Final = -1e-12
"""A change of cost below this is one."""


@compiled
def mark_places(cluster: Cluster, demand: Demand, plan: Plan, start: Ints, until: Ints) -> None:
    """Write 0 to `until` where a task fits when nothing else is placed, and NEVER elsewhere."""
    places, admits, tasks = cluster.places, cluster.admits, demand.task
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    until[:] = NEVER
    for task in range(len(tasks)):
        for place in range(tasks[task, PLACE], tasks[task, PLACE_END]):
            if admits[tasks[task, ADMISSION], places[place, AGENT]] == NO:
                continue
            if left_at(cluster, demand, start, task, place, needs) < np.inf:
                until[task, place] = 0


@compiled
def users(plan: Plan, slot: int, found: Ints) -> int:
    """Write the tasks that draw from a slot; return how many."""
    n = 0
    for task in range(len(plan.draws)):
        for i in range(plan.draws[task]):
            if plan.slot[task, i] == slot and plan.amount[task, i] > 0:
                found[n] = task
                n += 1
                break
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


@inlined
def changes(plan: Plan, task: int, place: int, chosen: Ints, n_wants: int) -> bool:
    """Whether a task would draw from other slots in a place, on these devices."""
    other = place != plan.where[task]
    for w in range(n_wants):
        other = other or chosen[w] != plan.device[task, w]
    return bool(other)


@inlined
def cost_of_cores(
    cluster: Cluster, demand: Demand, plan: Plan, burden: Floats, task: int, place: int, other: int
) -> float:
    """Return what the cores of a task cost in a place that another task, if any, leaves: at least, and at once.

    0 for tasks that do not just count cores.
    """
    asked = demand.task[task, N_CORES]
    if asked == 0 or demand.task[task, SPECIAL] > 0:
        return 0.0
    slot = cluster.places[place, CORES]
    back = 0
    # what a task draws of cores, it draws first
    if other != NOWHERE and plan.slot[other, 0] == slot:
        back = plan.amount[other, 0]
    rest = plan.free[slot] + back - asked
    return min(asked, -rest) * burden[slot] if rest < 0 else 0.0


@inlined
def cost_of_swap(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    burden: Floats,
    task: int,
    other: int,
    bound: float,
    needs: Ints,
    chosen: Ints,
) -> float:
    """Return what it costs that two tasks change places, of which the first is lifted already.

    As soon as it is not below `bound`, what it costs at least.
    """
    old, place = plan.where[task], plan.where[other]
    least = cost_of_cores(cluster, demand, plan, burden, task, place, other)
    least += cost_of_cores(cluster, demand, plan, burden, other, old, NOWHERE)
    if least >= bound and least - worth(plan, burden, other) >= bound:
        return np.inf
    gain = lift(plan, burden, other)
    rest = bound + gain
    cost = cost_at(cluster, demand, plan.free, burden, task, place, rest, needs, chosen)
    if cost <= rest:
        rest -= cost
        cost += cost_at(cluster, demand, plan.free, burden, other, old, rest, needs, chosen)
    lay(plan, other)
    return cost - gain


@compiled
def try_moves(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    strain: Strain,
    task: int,
    step: int,
    best: float,
    random: Random,
) -> float:
    """Look for the best move or swap of a task that is better than `best`; return what it changes."""
    burden, until, where = strain.burden, strain.until, plan.where
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    chosen = np.empty(plan.device.shape[1], np.int64)
    n_tasks, old = len(where), where[task]
    n_wants = demand.task[task, WANT_END] - demand.task[task, WANT]
    gain = lift(plan, burden, task)
    bound = best + gain
    for place in range(demand.task[task, PLACE], demand.task[task, PLACE_END]):
        if forbidden(cluster.places, until, step, task, old, NOWHERE, place):
            continue
        if cost_of_cores(cluster, demand, plan, burden, task, place, NOWHERE) >= bound:
            continue
        cost = cost_at(cluster, demand, plan.free, burden, task, place, bound, needs, chosen)
        if cost < bound and changes(plan, task, place, chosen, n_wants):
            bound = cost
            strain.move[0], strain.move[1], strain.move[2] = task, place, NOWHERE
    offset = below(random, n_tasks)
    for i in range(min(SWAPS, n_tasks)):
        other = (offset + i) % n_tasks
        if forbidden(cluster.places, until, step, task, old, other, where[other]):
            continue
        cost = cost_of_swap(cluster, demand, plan, burden, task, other, bound, needs, chosen)
        if cost < bound:
            bound = cost
            strain.move[0], strain.move[1], strain.move[2] = task, where[other], other
    lay(plan, task)
    return bound - gain


@compiled
def make_move(
    cluster: Cluster, demand: Demand, plan: Plan, strain: Strain, step: int, random: Random
) -> None:
    """Make the move that was found, and forbid for some steps to take it back."""
    task, place, other = strain.move
    old = plan.where[task]
    strain.until[task, old] = step + TENURE + below(random, SPREAD)
    remove(cluster, plan, task)
    if other != NOWHERE:
        strain.until[other, place] = step + TENURE + below(random, SPREAD)
        remove(cluster, plan, other)
    force(cluster, demand, plan, strain, task, place)
    if other != NOWHERE:
        force(cluster, demand, plan, strain, other, old)


@compiled
def place_all(cluster: Cluster, demand: Demand, plan: Plan, strain: Strain, random: Random) -> bool:
    """Put what has no place where it costs least; False, if something fits nowhere at all."""
    for task in range(len(plan.where)):
        if plan.where[task] != NOWHERE:
            continue
        best, equal, chosen_place = np.inf, 0, int(np.int64(NOWHERE))
        needs = np.empty((plan.slot.shape[1], 2), np.int64)
        chosen = np.empty(plan.device.shape[1], np.int64)
        for place in range(demand.task[task, PLACE], demand.task[task, PLACE_END]):
            if strain.until[task, place] == NEVER:
                continue
            cost = cost_at(
                cluster, demand, plan.free, strain.burden, task, place, np.inf, needs, chosen
            )
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
        As :func:`mark_places` wrote it.
    """
    strain = unstrained(cluster.weight, start, until)
    found = np.empty(len(demand.own), np.int64)
    if not place_all(cluster, demand, plan, strain, random):
        return False
    for step in range(1, steps + 1):
        slot = overdrawn_slot(plan, strain, random)
        if slot == NOWHERE:
            return True
        best = np.inf
        strain.move[0] = NOWHERE
        for task in found[: users(plan, slot, found)]:
            best = try_moves(cluster, demand, plan, strain, task, step, best, random)
        if best >= BETTER:
            grow(plan, strain)
        if strain.move[0] != NOWHERE:
            make_move(cluster, demand, plan, strain, step, random)
    return overdrawn_slot(plan, strain, random) == NOWHERE


@compiled
def grow(plan: Plan, strain: Strain) -> None:
    """Make what is overdrawn dearer."""
    for slot in strain.over[: strain.n_over[0]]:
        if plan.free[slot] < 0:
            strain.burden[slot] += GROWTH * strain.price[slot]
