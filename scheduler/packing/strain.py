"""Compiled: plans that place everything, but draw more than there is, and what that costs.

An overdrawn slot costs its *burden* for each thousandth that is drawn too much, and its *charge* for being
overdrawn at all. Without the charge, a slot of which a hundredth of a device is missing would cost next to
nothing, and a plan that lacks a little in many slots be as good as one that lacks something in one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

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
from scheduler.packing.compiled import Random, below, inlined, within, written_out
from scheduler.packing.placing import link, need_device, needs_at, usable

CHARGE: Final = 0.1
"""What it costs at first that a slot is overdrawn, whatever is missing; 1 is what all of a mean slot costs."""


class Strain(NamedTuple):
    """What the search knows beside the plan; changed in place."""

    burden: Floats
    """(slots,) cost of each thousandth that is overdrawn, now."""
    price: Floats
    """(slots,) what that was in the beginning."""
    charge: Floats
    """(slots,) what it costs now that the slot is overdrawn at all."""
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
    needs: Ints
    """(most draws, 2) room for what a task needs."""
    chosen: Ints
    """(most wants,) room for the devices of a task."""


@within
def prices(weight: Floats, start: Ints) -> Floats:
    """Return what it costs to overdraw each slot by one thousandth, at first."""
    price = weight.copy()
    for slot in range(len(price)):
        if price[slot] == 0 and start[slot] < PLENTY:
            price[slot] = 1 / max(start[slot], 1)
    return price


@within
def unstrained(plan: Plan, weight: Floats, start: Ints, until: Ints) -> Strain:
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
        np.full(len(start), CHARGE),
        until,
        np.empty(len(start), np.int64),
        np.zeros(len(start), np.uint8),
        np.zeros(1, np.int64),
        np.full(3, NOWHERE, np.int64),
        np.empty((plan.slot.shape[1], 2), np.int64),
        np.empty(plan.device.shape[1], np.int64),
    )


@inlined
def overdraft(free: Ints, strain: Strain, slot: int, amount: int) -> float:
    """Return what it costs to draw `amount` from a slot as well."""
    left = free[slot]
    if left >= amount:
        return 0.0
    if left < 0:
        return float(amount * strain.burden[slot])
    return float((amount - left) * strain.burden[slot] + strain.charge[slot])


@inlined
def relief(free: Ints, strain: Strain, slot: int, amount: int) -> float:
    """Return how much cheaper it is that `amount` less is drawn from a slot."""
    left = free[slot]
    if left >= 0:
        return 0.0
    if amount < -left:
        return float(amount * strain.burden[slot])
    return float(strain.charge[slot] - left * strain.burden[slot])


@written_out
def device_cost(
    cluster: Cluster, demand: Demand, free: Ints, strain: Strain, w: int, d: int
) -> float:
    """Return what it costs to draw what want `w` needs from device `d`."""
    want, tickets, slot = demand.want, demand.want_ticket, cluster.device[d, 0]
    cost = overdraft(free, strain, slot, want[w, 0])
    cost += overdraft(free, strain, slot + 1, want[w, 1])
    for i in range(want[w, TICKET], want[w, TICKET_END]):
        ticket = cluster.device_ticket[d, tickets[i, 0]]
        if ticket != NOWHERE:
            cost += overdraft(free, strain, ticket, tickets[i, 1])
    return cost


@inlined
def cost_at(
    cluster: Cluster,
    demand: Demand,
    free: Ints,
    strain: Strain,
    task: int,
    place: int,
    bound: float,
) -> float:
    """Return what it costs to put a task in a place; as soon as it is above `bound`, what it costs at least.

    Writes the device that costs least for each want to `Strain.chosen`.
    """
    places, first_want, needs = cluster.places, demand.task[task, WANT], strain.needs
    n = needs_at(cluster, demand, task, place, needs)
    if n == NOWHERE:
        return np.inf
    cost = 0.0
    for i in range(n):
        cost += overdraft(free, strain, needs[i, 0], needs[i, 1])
        if cost > bound:
            return cost
    for w in range(first_want, demand.task[task, WANT_END]):
        least = np.inf
        for d in range(places[place, DEVICE], places[place, DEVICE_END]):
            if usable(cluster, demand, w, d, places[place, NODE]):
                more = device_cost(cluster, demand, free, strain, w, d)
                if more < least:
                    least = more
                    strain.chosen[w - first_want] = d
        cost += least
        if cost > bound:
            return cost
    return cost


@inlined
def lift(plan: Plan, strain: Strain, task: int) -> float:
    """Take away what a task draws; return how much cheaper that makes the plan."""
    gain = 0.0
    for i in range(plan.draws[task]):
        slot, amount = plan.slot[task, i], plan.amount[task, i]
        gain += relief(plan.free, strain, slot, amount)
        plan.free[slot] += amount
    return gain


@inlined
def lay(plan: Plan, task: int) -> None:
    """Draw again what :func:`lift` took away."""
    for i in range(plan.draws[task]):
        plan.free[plan.slot[task, i]] -= plan.amount[task, i]


@inlined
def force(
    cluster: Cluster, demand: Demand, plan: Plan, strain: Strain, task: int, place: int
) -> None:
    """Put a task in a place, whether there is room or not, on the devices that cost least."""
    needs, chosen, first_want = strain.needs, strain.chosen, demand.task[task, WANT]
    cost_at(cluster, demand, plan.free, strain, task, place, np.inf)
    n = needs_at(cluster, demand, task, place, needs)
    for w in range(first_want, demand.task[task, WANT_END]):
        n = need_device(cluster, demand, w, chosen[w - first_want], needs, n)
        plan.device[task, w - first_want] = chosen[w - first_want]
    for i in range(n):
        overdraw(plan, strain, task, i, needs[i, 0], needs[i, 1])
    plan.draws[task] = n
    link(cluster, plan, task, place)


@written_out
def overdraw(plan: Plan, strain: Strain, task: int, number: int, slot: int, amount: int) -> None:
    """Draw from a slot, whether there is that much or not."""
    plan.slot[task, number], plan.amount[task, number] = slot, amount
    plan.free[slot] -= amount
    if plan.free[slot] < 0 and strain.listed[slot] == 0:
        strain.over[strain.n_over[0]] = slot
        strain.listed[slot] = 1
        strain.n_over[0] += 1


@inlined
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
