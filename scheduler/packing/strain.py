"""Compiled: plans that place everything, but draw more than there is, and what that costs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scheduler.packing.arrays import (
    DEVICE,
    DEVICE_END,
    NODE,
    NOWHERE,
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
from scheduler.packing.placing import link, need_device, needs_at, usable


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


@compiled
def prices(weight: Floats, start: Ints) -> Floats:
    """Return what it costs to overdraw each slot by one thousandth, at first."""
    price = weight.copy()
    for slot in range(len(price)):
        if price[slot] == 0 and start[slot] < PLENTY:
            price[slot] = 1 / max(start[slot], 1)
    return price


@compiled
def unstrained(weight: Floats, start: Ints, until: Ints) -> Strain:
    """Return what is known at first.

    Parameters
    ----------
    weight, start
        (slots,) as in `Cluster`; what is free when nothing is placed.
    until
        Becomes a part of it.
    """
    price = prices(weight, start)
    return Strain(
        price.copy(),
        price,
        until,
        np.empty(len(start), np.int64),
        np.zeros(len(start), np.uint8),
        np.zeros(1, np.int64),
        np.full(3, NOWHERE, np.int64),
    )


@inlined
def overdraft(free: Ints, burden: Floats, slot: int, amount: int) -> float:
    """Return what it costs to draw `amount` from a slot as well."""
    rest = free[slot] - amount
    return min(amount, -rest) * burden[slot] if rest < 0 else 0.0


@inlined
def device_cost(
    cluster: Cluster, demand: Demand, free: Ints, burden: Floats, w: int, d: int
) -> float:
    """Return what it costs to draw what want `w` needs from device `d`."""
    want, tickets, slot = demand.want, demand.want_ticket, cluster.device[d, 0]
    cost = overdraft(free, burden, slot, want[w, 0])
    cost += overdraft(free, burden, slot + 1, want[w, 1])
    for i in range(want[w, TICKET], want[w, TICKET_END]):
        ticket = cluster.device_ticket[d, tickets[i, 0]]
        if ticket != NOWHERE:
            cost += overdraft(free, burden, ticket, tickets[i, 1])
    return cost


@inlined
def cost_at(
    cluster: Cluster,
    demand: Demand,
    free: Ints,
    burden: Floats,
    task: int,
    place: int,
    bound: float,
    needs: Ints,
    chosen: Ints,
) -> float:
    """Return what it costs to put a task in a place; as soon as it is above `bound`, what it costs at least.

    Writes the device that costs least for each want to `chosen`.
    """
    places, first_want = cluster.places, demand.task[task, WANT]
    n = needs_at(cluster, demand, task, place, needs)
    if n == NOWHERE:
        return np.inf
    cost = 0.0
    for i in range(n):
        cost += overdraft(free, burden, needs[i, 0], needs[i, 1])
        if cost > bound:
            return cost
    for w in range(first_want, demand.task[task, WANT_END]):
        least = np.inf
        for d in range(places[place, DEVICE], places[place, DEVICE_END]):
            if usable(cluster, demand, w, d, places[place, NODE]):
                more = device_cost(cluster, demand, free, burden, w, d)
                if more < least:
                    least = more
                    chosen[w - first_want] = d
        cost += least
        if cost > bound:
            return cost
    return cost


@inlined
def worth(plan: Plan, burden: Floats, task: int) -> float:
    """Return how much cheaper the plan is without what a task draws, at most."""
    gain = 0.0
    for i in range(plan.draws[task]):
        slot = plan.slot[task, i]
        if plan.free[slot] < 0:
            gain += min(plan.amount[task, i], -plan.free[slot]) * burden[slot]
    return gain


@inlined
def lift(plan: Plan, burden: Floats, task: int) -> float:
    """Take away what a task draws; return how much cheaper that makes the plan."""
    free, gain = plan.free, 0.0
    for i in range(plan.draws[task]):
        slot, amount = plan.slot[task, i], plan.amount[task, i]
        if free[slot] < 0:
            gain += min(amount, -free[slot]) * burden[slot]
        free[slot] += amount
    return gain


@inlined
def lay(plan: Plan, task: int) -> None:
    """Draw again what :func:`lift` took away."""
    for i in range(plan.draws[task]):
        plan.free[plan.slot[task, i]] -= plan.amount[task, i]


@compiled
def all_needs(
    cluster: Cluster, demand: Demand, task: int, place: int, devices: Ints, needs: Ints
) -> int:
    """Write (slot, amount) of all that a task needs in a place, on these devices; return how many."""
    n = needs_at(cluster, demand, task, place, needs)
    first_want = demand.task[task, WANT]
    for w in range(first_want, demand.task[task, WANT_END]):
        n = need_device(cluster, demand, w, devices[w - first_want], needs, n)
    return n


@compiled
def force(
    cluster: Cluster, demand: Demand, plan: Plan, strain: Strain, task: int, place: int
) -> None:
    """Put a task in a place, whether there is room or not, on the devices that cost least."""
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    chosen = np.empty(plan.device.shape[1], np.int64)
    cost_at(cluster, demand, plan.free, strain.burden, task, place, np.inf, needs, chosen)
    n = all_needs(cluster, demand, task, place, chosen, needs)
    for i in range(n):
        charge(plan, strain, task, i, needs[i, 0], needs[i, 1])
    for w in range(demand.task[task, WANT_END] - demand.task[task, WANT]):
        plan.device[task, w] = chosen[w]
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
