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

from typing import Final, NamedTuple

import numpy as np

from scheduler.packing.admission import NO
from scheduler.packing.arrays import (
    ADMISSION,
    AGENT,
    DEVICE,
    DEVICE_END,
    NODE,
    NOWHERE,
    PLACE,
    PLACE_END,
    PLENTY,
    TICKET,
    TICKET_END,
    WANT,
    WANT_END,
    Bytes,
    Cluster,
    Demand,
    Floats,
    Ints,
    Plan,
)
from scheduler.packing.compiled import Random, below, compiled, inlined
from scheduler.packing.ejection import need_device
from scheduler.packing.placing import left_at, link, needs_at, remove, usable

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


class Strain(NamedTuple):
    """What the search knows beside the plan; changed in place."""

    burden: Floats
    """(slots,) cost of each thousandth that is overdrawn, now."""
    price: Floats
    """(slots,) what that was in the beginning."""
    until: Ints
    """(tasks, places) step before which the task does not go there."""
    over: Ints
    """(slots,) the overdrawn slots, among the first `n_over`; some are not overdrawn any more."""
    listed: Bytes
    """(slots,) whether the slot is among these."""
    n_over: Ints
    """(1,) how many they are."""
    move: Ints
    """(3,) the best move: task, its new place, and the task that takes its old place, or NOWHERE."""


@inlined
def overdraft(free: Ints, burden: Floats, slot: int, amount: int) -> float:
    """Return what it costs to draw `amount` from a slot as well."""
    rest = free[slot] - amount
    return min(amount, -rest) * burden[slot] if rest < 0 else 0.0


@inlined
def cost_at(
    places: Ints,
    place: int,
    volume_slot: Ints,
    device: Ints,
    serves: Bytes,
    burden: Floats,
    free: Ints,
    own: Ints,
    tasks: Ints,
    want: Ints,
    volume: Ints,
    task: int,
    needs: Ints,
    device_ticket: Ints,
    tickets: Ints,
    bound: float,
    chosen: Ints,
) -> float:
    """Return what it costs to put a task in a place; as soon as it is above `bound`, what it costs at least.

    Writes the device that costs least for each want to `chosen`.
    """
    n = needs_at(places, place, volume_slot, own, tasks, volume, task, needs)
    if n == NOWHERE:
        return np.inf
    cost = 0.0
    for i in range(n):
        cost += overdraft(free, burden, needs[i, 0], needs[i, 1])
        if cost > bound:
            return cost
    for w in range(tasks[task, WANT], tasks[task, WANT_END]):
        least = np.inf
        for d in range(places[place, DEVICE], places[place, DEVICE_END]):
            if not usable(device, serves, d, want, w, places[place, NODE]):
                continue
            more = overdraft(free, burden, device[d, 0], want[w, 0])
            more += overdraft(free, burden, device[d, 0] + 1, want[w, 1])
            for i in range(want[w, TICKET], want[w, TICKET_END]):
                slot = device_ticket[d, tickets[i, 0]]
                if slot != NOWHERE:
                    more += overdraft(free, burden, slot, tickets[i, 1])
            if more < least:
                least = more
                chosen[w - tasks[task, WANT]] = d
        cost += least
        if cost > bound:
            return cost
    return cost


@inlined
def lift(free: Ints, burden: Floats, draws: Ints, slot: Ints, amount: Ints, task: int) -> float:
    """Take away what a task draws; return how much cheaper that makes the plan."""
    gain = 0.0
    for i in range(draws[task]):
        s, a = slot[task, i], amount[task, i]
        if free[s] < 0:
            gain += min(a, -free[s]) * burden[s]
        free[s] += a
    return gain


@inlined
def lay(free: Ints, draws: Ints, slot: Ints, amount: Ints, task: int) -> None:
    """Draw again what :func:`lift` took away."""
    for i in range(draws[task]):
        free[slot[task, i]] -= amount[task, i]


@compiled
def prices(weight: Floats, start: Ints) -> Floats:
    """Return what it costs to overdraw each slot by one thousandth, at first."""
    price = weight.copy()
    for slot in range(len(price)):
        if price[slot] == 0 and start[slot] < PLENTY:
            price[slot] = 1 / max(start[slot], 1)
    return price


@compiled
def mark_places(cluster: Cluster, demand: Demand, plan: Plan, start: Ints, until: Ints) -> None:
    """Write 0 to `until` where a task fits when nothing else is placed, and NEVER elsewhere."""
    places, device, serves = cluster.places, cluster.device, cluster.serves
    admits, weight, volume_slot = cluster.admits, cluster.weight, cluster.volume_slot
    own, tasks, want, volume = demand.own, demand.task, demand.want, demand.volume
    device_ticket, tickets = cluster.device_ticket, demand.want_ticket
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    until[:] = NEVER
    for task in range(len(own)):
        for place in range(tasks[task, PLACE], tasks[task, PLACE_END]):
            if admits[tasks[task, ADMISSION], places[place, AGENT]] == NO:
                continue
            left = left_at(
                places,
                place,
                volume_slot,
                device,
                serves,
                weight,
                start,
                own,
                tasks,
                want,
                volume,
                task,
                needs,
                device_ticket,
                tickets,
            )
            if left < np.inf:
                until[task, place] = 0


@compiled
def estimate(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    strain: Strain,
    task: int,
    place: int,
    needs: Ints,
    chosen: Ints,
) -> float:
    """Call :func:`cost_at` without a bound."""
    return cost_at(
        cluster.places,
        place,
        cluster.volume_slot,
        cluster.device,
        cluster.serves,
        strain.burden,
        plan.free,
        demand.own,
        demand.task,
        demand.want,
        demand.volume,
        task,
        needs,
        cluster.device_ticket,
        demand.want_ticket,
        np.inf,
        chosen,
    )


@compiled
def force(
    cluster: Cluster, demand: Demand, plan: Plan, strain: Strain, task: int, place: int
) -> None:
    """Put a task in a place, whether there is room or not, on the devices that cost least."""
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    chosen = np.empty(plan.device.shape[1], np.int64)
    estimate(cluster, demand, plan, strain, task, place, needs, chosen)
    n = needs_at(
        cluster.places,
        place,
        cluster.volume_slot,
        demand.own,
        demand.task,
        demand.volume,
        task,
        needs,
    )
    first_want = demand.task[task, WANT]
    for w in range(demand.task[task, WANT_END] - first_want):
        plan.device[task, w] = chosen[w]
        n = need_device(
            needs,
            n,
            cluster.device,
            cluster.device_ticket,
            chosen[w],
            demand.want,
            first_want + w,
            demand.want_ticket,
        )
    for i in range(n):
        charge(plan, strain, task, i, needs[i, 0], needs[i, 1])
    plan.draws[task] = n
    link(cluster, plan, task, place)


@compiled
def charge(plan: Plan, strain: Strain, task: int, number: int, slot: int, amount: int) -> None:
    """Draw from a slot, whether there is that much or not."""
    plan.slot[task, number], plan.amount[task, number] = slot, amount
    plan.free[slot] -= amount
    if plan.free[slot] < 0 and strain.listed[slot] == 0:
        strain.over[strain.n_over[0]] = slot
        strain.listed[slot] = 1
        strain.n_over[0] += 1


@compiled
def overdrawn_slot(plan: Plan, strain: Strain, random: Random) -> int:
    """Return one of the overdrawn slots at random; NOWHERE, if there is none."""
    while strain.n_over[0] > 0:
        i = below(random, strain.n_over[0])
        slot = int(strain.over[i])
        if plan.free[slot] < 0:
            return slot
        strain.n_over[0] -= 1
        strain.over[i] = strain.over[strain.n_over[0]]
        strain.listed[slot] = 0
    return NOWHERE


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

    A swap is not between nodes of one agent: there, both would draw from the same slots.
    """
    if until[task, place] > step or place == old:
        return True
    if other == NOWHERE:
        return False
    return bool(until[other, old] > step or places[place, AGENT] == places[old, AGENT])


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
    places, device, serves = cluster.places, cluster.device, cluster.serves
    volume_slot, burden, free = cluster.volume_slot, strain.burden, plan.free
    draws, slot, amount, where = plan.draws, plan.slot, plan.amount, plan.where
    own, tasks, want, volume = demand.own, demand.task, demand.want, demand.volume
    device_ticket, tickets, until = cluster.device_ticket, demand.want_ticket, strain.until
    needs = np.empty((slot.shape[1], 2), np.int64)
    chosen = np.empty(plan.device.shape[1], np.int64)
    n_tasks, old = len(own), where[task]
    lifted = lift(free, burden, draws, slot, amount, task)
    offset, n_moves = below(random, n_tasks), tasks[task, PLACE_END] - tasks[task, PLACE]
    for i in range(n_moves + min(SWAPS, n_tasks)):
        other, place = NOWHERE, tasks[task, PLACE] + i
        if i >= n_moves:
            other = (offset + i) % n_tasks
            place = where[other]
        if forbidden(places, until, step, task, old, other, place):
            continue
        change = -lifted
        if other != NOWHERE:
            change -= lift(free, burden, draws, slot, amount, other)
        for turn in range(1 if other == NOWHERE else 2):
            change += cost_at(
                places,
                place if turn == 0 else old,
                volume_slot,
                device,
                serves,
                burden,
                free,
                own,
                tasks,
                want,
                volume,
                task if turn == 0 else other,
                needs,
                device_ticket,
                tickets,
                best - change,
                chosen,
            )
            if change > best:
                break
        if other != NOWHERE:
            lay(free, draws, slot, amount, other)
        if change < best:
            best = change
            strain.move[0], strain.move[1], strain.move[2] = task, place, other
    lay(free, draws, slot, amount, task)
    return best


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
            cost = estimate(cluster, demand, plan, strain, task, place, needs, chosen)
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
    price = prices(cluster.weight, start)
    strain = Strain(
        price.copy(),
        price,
        until,
        np.empty(len(start), np.int64),
        np.zeros(len(start), np.uint8),
        np.zeros(1, np.int64),
        np.full(3, NOWHERE, np.int64),
    )
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
