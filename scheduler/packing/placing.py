"""Compiled: what a task needs in one place, putting it there, and taking it away again.

A task is placed by drawing its amounts from slots; every draw is remembered, so that taking it away is exact.
Placing either succeeds, or leaves everything as it was.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.packing.arrays import (
    MEM,
    NOWHERE,
    OWN_SLOTS,
    Bytes,
    Cluster,
    Demand,
    Floats,
    Ints,
    Plan,
)
from scheduler.packing.compiled import Random, below, compiled

BACKTRACKS: Final = 2000
"""Steps of the search for devices of one task in one place; for up to six wants and three devices, all."""


@compiled
def own_needs(
    own: Ints,
    cores: int,
    volume: Ints,
    own_slot: int,
    node_slot: int,
    volume_slot: Ints,
    needs: Ints,
) -> int:
    """Write (slot, amount) of all that a task needs but devices; return how many; NOWHERE: impossible."""
    n = 0
    for i in range(OWN_SLOTS):
        if own[i] > 0:
            needs[n, 0], needs[n, 1] = own_slot + i, own[i]
            n += 1
    if cores > 0:
        needs[n, 0], needs[n, 1] = node_slot, cores
        needs[n + 1, 0], needs[n + 1, 1] = node_slot + 1, own[MEM]
        n += 2
    for i in range(len(volume)):
        slot = volume_slot[volume[i, 0]]
        if slot == NOWHERE:
            return NOWHERE
        needs[n, 0], needs[n, 1] = slot, volume[i, 1]
        n += 1
    return n


@compiled
def usable(device: Ints, serves: Bytes, want: Ints, node: int) -> bool:
    """Whether a device gives what is wanted, as far as its kind and its node go."""
    if serves[want[3]] == 0:
        return False
    return want[2] == 0 or (node != NOWHERE and device[1] == node)


@compiled
def tightest_device(
    device: Ints, serves: Bytes, weight: Floats, free: Ints, want: Ints, node: int
) -> tuple[int, float]:
    """Return which of an agent's devices would have least left, and how much; NOWHERE if none has enough."""
    best, best_left = NOWHERE, np.inf
    for d in range(len(device)):
        if not usable(device[d], serves[d], want, node):
            continue
        slot = device[d, 0]
        first, second = free[slot] - want[0], free[slot + 1] - want[1]
        if first < 0 or second < 0:
            continue
        left = first * weight[slot] + second * weight[slot + 1]
        if left < best_left:
            best, best_left = d, left
    return best, best_left


@compiled
def least_short_device(
    device: Ints,
    serves: Bytes,
    weight: Floats,
    free: Ints,
    want: Ints,
    node: int,
    random: Random,
) -> int:
    """Return the device that lacks least of what is wanted, one of the equal ones at random, or NOWHERE."""
    best, best_short, equal = NOWHERE, np.inf, 0
    for d in range(len(device)):
        if not usable(device[d], serves[d], want, node):
            continue
        slot = device[d, 0]
        short = max(0, want[0] - free[slot]) * weight[slot]
        short += max(0, want[1] - free[slot + 1]) * weight[slot + 1]
        if short < best_short:
            best, best_short, equal = d, short, 1
        elif short == best_short:
            equal += 1
            if below(random, equal) == 0:
                best = d
    return best


@compiled
def device_needs(
    device: Ints,
    serves: Bytes,
    weight: Floats,
    free: Ints,
    want: Ints,
    node: int,
    random: Random,
    needs: Ints,
    n: int,
) -> int:
    """Append (slot, amount) for the devices that lack least to `n` needs; return how many there are now."""
    if n == NOWHERE:
        return NOWHERE
    for w in range(len(want)):
        d = least_short_device(device, serves, weight, free, want[w], node, random)
        if d == NOWHERE:
            return NOWHERE
        for i in range(2):
            needs[n, 0], needs[n, 1] = device[d, 0] + i, want[w, i]
            n += 1
    return n


@compiled
def draw(plan: Plan, task: int, slot: int, amount: int) -> bool:
    """Draw from a slot for a task; False, and nothing drawn, if there is not that much."""
    if amount > plan.free[slot]:
        return False
    n = plan.draws[task]
    plan.free[slot] -= amount
    plan.slot[task, n], plan.amount[task, n] = slot, amount
    plan.draws[task] = n + 1
    return True


@compiled
def undraw(plan: Plan, task: int, keep: int) -> None:
    """Undo all draws of a task but its first `keep`."""
    for n in range(keep, plan.draws[task]):
        plan.free[plan.slot[task, n]] += plan.amount[task, n]
    plan.draws[task] = keep


@compiled
def draw_device(plan: Plan, task: int, slot: int, want: Ints) -> bool:
    """Draw what is wanted from the two slots of a device; False, and nothing drawn, if one is short."""
    if not draw(plan, task, slot, want[0]):
        return False
    if draw(plan, task, slot + 1, want[1]):
        return True
    undraw(plan, task, plan.draws[task] - 1)
    return False


@compiled
def draw_devices(
    cluster: Cluster, demand: Demand, plan: Plan, task: int, agent: int, node: int
) -> bool:
    """Draw from the tightest device for each want; where that leads nowhere, try the other choices."""
    begin, end = cluster.devices[agent], cluster.devices[agent + 1]
    device, serves = cluster.device[begin:end], cluster.serves[begin:end]
    want = demand.want[demand.wants[task] : demand.wants[task + 1]]
    keep = plan.draws[task]
    for w in range(len(want)):
        d, _ = tightest_device(device, serves, cluster.weight, plan.free, want[w], node)
        if d == NOWHERE:
            undraw(plan, task, keep)
            return w > 0 and search_devices(plan, task, device, serves, want, node, begin)
        draw_device(plan, task, device[d, 0], want[w])
        plan.device[task, w] = begin + d
    return True


@compiled
def search_devices(
    plan: Plan, task: int, device: Ints, serves: Bytes, want: Ints, node: int, first: int
) -> bool:
    """Try choices of devices, depth first; False, and nothing drawn, if none works."""
    keep = plan.draws[task]
    kept = np.empty(len(want) + 1, np.int64)  # draws before each want's own
    candidate = np.zeros(len(want) + 1, np.int64)
    w = 0
    kept[0] = keep
    for _ in range(BACKTRACKS):
        d = candidate[w]
        if d == len(device):
            w -= 1
            if w < 0:
                return False
            undraw(plan, task, kept[w])
            continue
        candidate[w] += 1
        if usable(device[d], serves[d], want[w], node) and draw_device(
            plan, task, device[d, 0], want[w]
        ):
            plan.device[task, w] = first + d
            w += 1
            if w == len(want):
                return True
            kept[w], candidate[w] = plan.draws[task], 0
    undraw(plan, task, keep)
    return False


@compiled
def place(cluster: Cluster, demand: Demand, plan: Plan, task: int, agent: int, node: int) -> bool:
    """Place a task on an agent that admits it, on a node where it needs one; False if it does not fit."""
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    n = own_needs(
        demand.own[task],
        demand.task[task, 0],
        demand.volume[demand.volumes[task] : demand.volumes[task + 1]],
        cluster.own[agent],
        NOWHERE if node == NOWHERE else cluster.node_slot[node],
        cluster.volume_slot[agent],
        needs,
    )
    ok = n != NOWHERE
    for i in range(max(n, 0)):
        ok = ok and draw(plan, task, needs[i, 0], needs[i, 1])
    if not (ok and draw_devices(cluster, demand, plan, task, agent, node)):
        undraw(plan, task, 0)
        return False
    plan.where[task, 0], plan.where[task, 1] = agent, node
    head = plan.first[agent]
    plan.links[task, 0], plan.links[task, 1] = head, NOWHERE
    if head != NOWHERE:
        plan.links[head, 1] = task
    plan.first[agent] = task
    return True


@compiled
def remove(plan: Plan, task: int) -> None:
    """Take a placed task away and give back all that it draws."""
    undraw(plan, task, 0)
    after, before = plan.links[task]
    if before == NOWHERE:
        plan.first[plan.where[task, 0]] = after
    else:
        plan.links[before, 0] = after
    if after != NOWHERE:
        plan.links[after, 1] = before
    plan.where[task, 0] = plan.where[task, 1] = NOWHERE
