"""Compiled: the search that makes room by ejecting other tasks.

A task that could not be inserted becomes dearer to eject, so that the search does not turn in circles: guided
ejection search, Nagata & Bräysy 2009, doi:10.1016/j.orl.2009.04.006.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.packing.arrays import NOWHERE, TIGHTEST, Best, Cluster, Demand, Floats, Ints, Plan
from scheduler.packing.compiled import Random, below, compiled
from scheduler.packing.greedy import insert
from scheduler.packing.placing import device_needs, own_needs, place, remove

LOOKS: Final = 100
"""Places that are looked at for one ejection."""
SIZE_COST: Final = 2.0
"""How much dearer it is to eject a large task than a small one, which finds a new place more easily."""
NEIGHBOURS: Final = 48
"""Tasks on one agent that are considered for ejection together."""
SET_SIZE: Final = 3
"""Tasks that are ejected at once, at most."""


@compiled
def shortfalls(free: Ints, needs: Ints, n: int, short: Ints) -> int:
    """Write (slot, missing amount) of the needs that are not met, by slot; return how many."""
    kept = 0
    for i in range(n):
        j = 0
        while j < kept and short[j, 0] != needs[i, 0]:
            j += 1
        if j == kept:
            short[j, 0], short[j, 1] = needs[i, 0], -free[needs[i, 0]]
            kept += 1
        short[j, 1] += needs[i, 1]
    missing = 0
    for i in range(kept):
        if short[i, 1] > 0:
            short[missing, 0], short[missing, 1] = short[i, 0], short[i, 1]
            missing += 1
    return missing


@compiled
def reliefs(
    first: int,
    links: Ints,
    draws: Ints,
    slot: Ints,
    amount: Ints,
    short: Ints,
    who: Ints,
    relief: Ints,
) -> int:
    """Write which tasks on an agent draw from short slots, and how much of each; return how many do.

    Parameters
    ----------
    first
        Head of the agent's list of tasks.
    who
        (NEIGHBOURS,) filled with the tasks.
    relief
        (NEIGHBOURS, short slots) filled with what ejecting the task would give back.
    """
    n, task = 0, first
    while task != NOWHERE and n < NEIGHBOURS:
        useful = False
        for k in range(len(short)):
            relief[n, k] = 0
            for i in range(draws[task]):
                if slot[task, i] == short[k, 0]:
                    relief[n, k] += amount[task, i]
                    useful = True
        if useful:
            who[n] = task
            n += 1
        task = links[task, 0]
    return n


@compiled
def suffices(short: Ints, relief: Ints, i: int, j: int, k: int) -> bool:
    """Whether ejecting the neighbours i, j and k (the latter two may be NOWHERE) gives all that is short."""
    for s in range(len(short)):
        given = relief[i, s]
        if j != NOWHERE:
            given += relief[j, s]
        if k != NOWHERE:
            given += relief[k, s]
        if given < short[s, 1]:
            return False
    return True


@compiled
def cheapest_set(
    short: Ints, who: Ints, relief: Ints, penalty: Floats, bound: float, chosen: Ints
) -> float:
    """Find the set of up to SET_SIZE neighbours of least penalty, below `bound`, whose ejection suffices.

    Returns its penalty, and writes it to `chosen`; returns `bound`, and writes nothing, if there is none.
    """
    n = len(who)
    for i in range(n):
        one = penalty[who[i]]
        if one >= bound:
            continue
        if suffices(short, relief, i, NOWHERE, NOWHERE):
            bound = one
            chosen[0], chosen[1], chosen[2] = who[i], NOWHERE, NOWHERE
            continue
        for j in range(i + 1, n):
            two = one + penalty[who[j]]
            if two >= bound:
                continue
            if suffices(short, relief, i, j, NOWHERE):
                bound = two
                chosen[0], chosen[1], chosen[2] = who[i], who[j], NOWHERE
                continue
            for k in range(j + 1, n):
                three = two + penalty[who[k]]
                if three < bound and suffices(short, relief, i, j, k):
                    bound = three
                    chosen[0], chosen[1], chosen[2] = who[i], who[j], who[k]
    return bound


@compiled
def find_ejection(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    task: int,
    penalty: Floats,
    random: Random,
    found: Ints,
) -> bool:
    """Look in random places for the cheapest set of tasks that would have to go for `task` to fit there.

    Writes agent, node and the set to `found`.
    """
    own_slot, nodes, node_slot = cluster.own, cluster.nodes, cluster.node_slot
    devices, device, serves = cluster.devices, cluster.device, cluster.serves
    weight, volume_slot, free = cluster.weight, cluster.volume_slot, plan.free
    first, links, draws, slot, amount = plan.first, plan.links, plan.draws, plan.slot, plan.amount
    own, volume = demand.own[task], demand.volume[demand.volumes[task] : demand.volumes[task + 1]]
    want = demand.want[demand.wants[task] : demand.wants[task + 1]]
    cores, pinned, admission = demand.task[task]
    admits = cluster.admits[admission]
    needs = np.empty((slot.shape[1], 2), np.int64)
    short = np.empty((slot.shape[1], 2), np.int64)
    who = np.empty(NEIGHBOURS, np.int64)
    relief = np.empty((NEIGHBOURS, slot.shape[1]), np.int64)
    best = np.inf
    for _ in range(min(LOOKS, len(node_slot) if pinned else len(own_slot))):
        agent = below(random, len(own_slot))
        n_nodes = nodes[agent + 1] - nodes[agent]
        if admits[agent] == 0 or (pinned and n_nodes == 0):
            continue
        node = nodes[agent] + below(random, n_nodes) if pinned else NOWHERE
        core_slot = node_slot[node] if pinned else NOWHERE
        n = own_needs(own, cores, volume, own_slot[agent], core_slot, volume_slot[agent], needs)
        begin, end = devices[agent], devices[agent + 1]
        n = device_needs(
            device[begin:end], serves[begin:end], weight, free, want, node, random, needs, n
        )
        if n == NOWHERE:
            continue
        k = shortfalls(free, needs, n, short)
        m = reliefs(first[agent], links, draws, slot, amount, short[:k], who, relief)
        cost = cheapest_set(short[:k], who[:m], relief, penalty, best, found[2:])
        if cost < best:
            best = cost
            found[0], found[1] = agent, node
    return best < np.inf


@compiled
def search(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    best: Best,
    random: Random,
    iterations: int,
) -> int:
    """Insert what is not placed; where that is impossible, eject what is cheapest and go on with that.

    A task that could not be inserted becomes more expensive to eject, so that the search does not turn in
    circles (guided ejection search: Nagata & Bräysy 2009, doi:10.1016/j.orl.2009.04.006).

    Returns how many tasks the fullest plan lacks, and writes that to `best`.
    """
    pool = np.empty(len(demand.own), np.int64)
    n = 0
    for task in range(len(demand.own)):
        if plan.where[task, 0] == NOWHERE:
            pool[n] = task
            n += 1
    penalty = 1 + SIZE_COST * demand.size
    found = np.empty(2 + SET_SIZE, np.int64)
    fewest = n
    best.where[:], best.device[:] = plan.where, plan.device
    for _ in range(iterations):
        if n == 0:
            break
        i = below(random, n)
        task = pool[i]
        n -= 1
        pool[i] = pool[n]
        if not insert(cluster, demand, plan, task, TIGHTEST):
            penalty[task] += 1 + SIZE_COST * demand.size[task]
            if find_ejection(cluster, demand, plan, task, penalty, random, found):
                for ejected in found[2:]:
                    if ejected != NOWHERE:
                        remove(plan, ejected)
                        pool[n] = ejected
                        n += 1
            else:
                found[0] = NOWHERE
            if found[0] == NOWHERE or not place(cluster, demand, plan, task, found[0], found[1]):
                pool[n] = task
                n += 1
        if n < fewest:
            fewest = n
            best.where[:], best.device[:] = plan.where, plan.device
    return fewest
