"""Compiled: the search that makes room by ejecting other tasks.

A task that could not be inserted becomes dearer to eject, so that the search does not turn in circles: guided
ejection search, Nagata & Bräysy 2009, doi:10.1016/j.orl.2009.04.006.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.packing.arrays import (
    ADMISSION,
    AGENT,
    DEVICE,
    DEVICE_END,
    NO,
    NODE,
    NOWHERE,
    PLACE,
    PLACE_END,
    TIGHTEST,
    WANT,
    WANT_END,
    Best,
    Cluster,
    Demand,
    Floats,
    Ints,
    Plan,
)
from scheduler.packing.compiled import Random, below, compiled, copy_to, inlined, within
from scheduler.packing.greedy import insert
from scheduler.packing.placing import (
    in_tie,
    left_at,
    need_device,
    needs_at,
    put_on,
    remove,
    tied_elsewhere,
    usable,
)

LOOKS: Final = 100
"""Places that are looked at for one ejection."""
SIZE_COST: Final = 2.0
"""How much dearer it is to eject a large task than a small one, which finds a new place more easily."""
NEIGHBOURS: Final = 48
"""Tasks on one agent that are considered for ejection together."""
UNTIED: Final = 8
"""One in so many times, tasks that must be in one zone are all taken out of theirs."""
SET_SIZE: Final = 3
"""Tasks that are ejected at once, at most."""
EXPLORED: Final = 3
"""See :func:`least_short_device`."""


@inlined
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


@inlined
def least_short_device(
    cluster: Cluster, demand: Demand, free: Ints, place: int, w: int, random: Random
) -> int:
    """Return the device that lacks least of what is wanted, one of the equal ones at random, or NOWHERE.

    One device in :data:`EXPLORED` counts as if it lacked nothing: the device that is least short on its own
    is often not the one from which it is best to eject, and the same choice each time would never show it.
    """
    places, want, weight = cluster.places, demand.want, cluster.weight
    best, best_short, equal = NOWHERE, np.inf, 0
    for d in range(places[place, DEVICE], places[place, DEVICE_END]):
        if not usable(cluster, demand, w, d, places[place, NODE]):
            continue
        slot = cluster.device[d, 0]
        short = max(0, want[w, 0] - free[slot]) * weight[slot]
        short += max(0, want[w, 1] - free[slot + 1]) * weight[slot + 1]
        if below(random, EXPLORED) == 0:
            short = 0.0
        if short < best_short:
            best, best_short, equal = d, short, 1
        elif short == best_short:
            equal += 1
            if below(random, equal) == 0:
                best = d
    return best


@inlined
def reliefs(plan: Plan, agent: int, short: Ints, n_short: int, who: Ints, relief: Ints) -> int:
    """Write which tasks on an agent draw from short slots, and how much of each; return how many do.

    Parameters
    ----------
    who
        (NEIGHBOURS,) filled with the tasks.
    relief
        (NEIGHBOURS, short slots) filled with what ejecting the task would give back.
    """
    n, task = 0, plan.first[agent]
    while task != NOWHERE and n < NEIGHBOURS:
        useful = False
        for k in range(n_short):
            relief[n, k] = 0
            for i in range(plan.draws[task]):
                if plan.slot[task, i] == short[k, 0]:
                    relief[n, k] += plan.amount[task, i]
                    useful = True
        if useful:
            who[n] = task
            n += 1
        task = plan.links[task, 0]
    return n


@inlined
def suffices(short: Ints, n_short: int, relief: Ints, i: int, j: int, k: int) -> bool:
    """Whether ejecting the neighbours i, j and k (the latter two may be NOWHERE) gives all that is short."""
    for s in range(n_short):
        given = relief[i, s]
        if j != NOWHERE:
            given += relief[j, s]
        if k != NOWHERE:
            given += relief[k, s]
        if given < short[s, 1]:
            return False
    return True


@inlined
def cheapest_set(
    short: Ints,
    n_short: int,
    who: Ints,
    n: int,
    relief: Ints,
    penalty: Floats,
    bound: float,
    found: Ints,
) -> float:
    """Find the set of up to SET_SIZE of `n` neighbours of least penalty whose ejection suffices.

    Returns its penalty, and writes it behind the first of `found`. If there is none below `bound`, returns
    that, and writes nothing.
    """
    for i in range(n):
        one = penalty[who[i]]
        if one >= bound:
            continue
        if suffices(short, n_short, relief, i, NOWHERE, NOWHERE):
            bound = one
            found[1], found[2], found[3] = who[i], NOWHERE, NOWHERE
            continue
        for j in range(i + 1, n):
            two = one + penalty[who[j]]
            if two >= bound:
                continue
            if suffices(short, n_short, relief, i, j, NOWHERE):
                bound = two
                found[1], found[2], found[3] = who[i], who[j], NOWHERE
                continue
            for k in range(j + 1, n):
                three = two + penalty[who[k]]
                if three < bound and suffices(short, n_short, relief, i, j, k):
                    bound = three
                    found[1], found[2], found[3] = who[i], who[j], who[k]
    return bound


@compiled
def find_candidates(
    cluster: Cluster, demand: Demand, plan: Plan, task: int, start: Ints, candidates: Ints
) -> int:
    """Write the places where a task fits when nothing else is placed; return how many.

    If there are more than `candidates` has room for, these are the first from a place that differs from task
    to task.

    Parameters
    ----------
    start
        (slots,) what is free then.
    """
    places, tasks = cluster.places, demand.task
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    begin = tasks[task, PLACE]
    n_places = tasks[task, PLACE_END] - begin
    n = 0
    for i in range(n_places):
        place = begin + (i + task * len(candidates)) % n_places
        if n == len(candidates):
            break
        if cluster.admits[tasks[task, ADMISSION], places[place, AGENT]] == NO:
            continue
        if left_at(cluster, demand, start, task, place, needs) < np.inf:
            candidates[n] = place
            n += 1
    return n


@within
def find_ejection(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    task: int,
    candidates: Ints,
    penalty: Floats,
    random: Random,
    found: Ints,
) -> bool:
    """Find the cheapest set of tasks that would have to go for `task` to fit in one of the candidates.

    If there are many candidates, only some of them are looked at, chosen at random. Writes the place, the
    set and the devices to `found`.
    """
    places, first_want, free = cluster.places, demand.task[task, WANT], plan.free
    most = plan.slot.shape[1]
    needs = np.empty((most, 2), np.int64)
    short = np.empty((most, 2), np.int64)
    who = np.empty(NEIGHBOURS, np.int64)
    relief = np.empty((NEIGHBOURS, most), np.int64)
    chosen = np.empty(plan.device.shape[1], np.int64)
    best = np.inf
    n_candidates = len(candidates)
    offset = below(random, n_candidates)
    for look in range(min(LOOKS, n_candidates)):
        if n_candidates > LOOKS:
            offset = below(random, n_candidates)
        place = candidates[(offset + look) % n_candidates]
        agent = places[place, AGENT]
        if tied_elsewhere(cluster, plan, task, agent):
            continue
        n = needs_at(cluster, demand, task, place, needs)
        for w in range(first_want, demand.task[task, WANT_END]):
            d = least_short_device(cluster, demand, free, place, w, random)
            n = need_device(cluster, demand, w, d, needs, n)
            chosen[w - first_want] = d
        k = shortfalls(free, needs, n, short)
        m = reliefs(plan, agent, short, k, who, relief)
        cost = cheapest_set(short, k, who, m, relief, penalty, best, found)
        if cost < best:
            best = cost
            found[0] = place
            copy_to(found[1 + SET_SIZE :], chosen)
    return best < np.inf


@within
def untie(cluster: Cluster, demand: Demand, plan: Plan, task: int, pool: Ints, n: int) -> int:
    """Take away all that must be in one zone with a task, so that it can be another zone.

    They are added to `n` tasks in the pool; returns how many are in the pool then.
    """
    for t in demand.tie[task]:
        if t == NOWHERE or plan.tied[t, 0] == 0:
            continue
        for other in range(len(demand.own)):
            if plan.where[other] != NOWHERE and in_tie(demand, other, t):
                remove(cluster, plan, other)
                pool[n] = other
                n += 1
    return n


@within
def make_room(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    task: int,
    candidates: Ints,
    penalty: Floats,
    random: Random,
    pool: Ints,
    n: int,
) -> int:
    """Eject what is cheapest and put `task` there; what has no place now is added to `n` tasks in the pool.

    Returns how many are in the pool then.
    """
    if demand.tie.shape[1] > 0 and below(random, UNTIED) == 0:
        n = untie(cluster, demand, plan, task, pool, n)
    found = np.full(1 + SET_SIZE + plan.device.shape[1], NOWHERE, np.int64)
    if len(candidates) and find_ejection(
        cluster, demand, plan, task, candidates, penalty, random, found
    ):
        for ejected in found[1 : 1 + SET_SIZE]:
            if ejected != NOWHERE:
                remove(cluster, plan, ejected)
                pool[n] = ejected
                n += 1
        if put_on(cluster, demand, plan, task, found[0], found[1 + SET_SIZE :]):
            return n
    pool[n] = task
    return n + 1


@inlined
def keep(plan: Plan, best: Best) -> None:
    """Write where the tasks of a plan are."""
    copy_to(best.where, plan.where)
    for task in range(len(plan.device)):
        copy_to(best.device[task], plan.device[task])


@compiled
def search(
    cluster: Cluster,
    demand: Demand,
    plan: Plan,
    best: Best,
    start: Ints,
    candidates: Ints,
    random: Random,
    iterations: int,
) -> int:
    """Insert what is not placed; where that is impossible, make room for it and go on with what was ejected.

    Parameters
    ----------
    plan
        Where to go on from.
    best
        The fullest plan is written here.
    start
        (slots,) what is free when nothing is placed.
    candidates
        (tasks, any) room for the places of each task.
    iterations
        Insertions to try, at most.

    Returns how many tasks the fullest plan lacks.
    """
    known = np.full(len(demand.own), NOWHERE, np.int64)  # number of candidates, once looked for
    pool = np.empty(len(demand.own), np.int64)
    n = 0
    for task in range(len(pool)):
        if plan.where[task] == NOWHERE:
            pool[n] = task
            n += 1
    fewest = n
    penalty = 1 + SIZE_COST * demand.size
    rule = int(np.int64(TIGHTEST))  # no literal, for which insert() would be compiled once more
    keep(plan, best)
    for _ in range(iterations):
        if n == 0:
            break
        i = below(random, n)
        task = pool[i]
        n -= 1
        pool[i] = pool[n]
        if insert(cluster, demand, plan, task, rule):
            if n < fewest:
                fewest = n
                keep(plan, best)
            continue
        penalty[task] += 1 + SIZE_COST * demand.size[task]
        if known[task] == NOWHERE:
            known[task] = find_candidates(cluster, demand, plan, task, start, candidates[task])
        here = candidates[task, : known[task]]
        n = make_room(cluster, demand, plan, task, here, penalty, random, pool, n)
    return fewest
