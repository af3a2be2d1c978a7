"""Compiled: what moves of tasks cost at least, for all places and all partners of a swap at once.

To look at one place exactly takes some fifty nanoseconds, and a step of the search of relaxed plans has
hundreds to look at. So what there is in each place is kept in *dimensions* beside the plan: of each the room,
the burden and the charge, place by place in one row; of several devices that would do, the best of each. From
these, the least cost of all places is one sweep that the processor makes for several at a time; few are worth a
closer look then. Tickets, volumes, L3 caches and whole cores have no dimension: what they cost is seen when
looked at closely.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from scheduler.packing.arrays import (
    AGENT,
    CORES,
    DEVICE,
    DEVICE_END,
    L3,
    MEM,
    N_CORES,
    NODE,
    NODE_SLOTS,
    NOWHERE,
    OWN,
    OWN_SLOTS,
    PLACE,
    PLACE_END,
    SERVICE,
    SPECIAL,
    WANT,
    WANT_END,
    Cluster,
    Demand,
    Floats,
    Ints,
    Plan,
)
from scheduler.packing.compiled import inlined, outlined, within, written_out
from scheduler.packing.strain import Strain, lay, lift

SERVICES: Final = 4
"""Services of devices that have dimensions, each for devices near the cores and for any; the first ones."""
ROOM: Final = 0
BURDEN: Final = 1
CHARGE: Final = 2
"""Rows of a dimension."""
SHARED: Final = -2
"""Stands for several agents."""


class Bounds(NamedTuple):
    """What is known of places and tasks at a glance; changed in place."""

    slots: Ints
    """(places, dimensions, most devices) the slots of each dimension in each place, then NOWHERE."""
    need: Floats
    """(dimensions, tasks) what each task asks for there, at least."""
    most: Floats
    """(dimensions,) most of that."""
    at: Floats
    """(dimensions, 3, places) what is left in each place."""
    instead: Floats
    """(dimensions, 3, tasks) what would be left in the place of each task without it."""
    here: Floats
    """(dimensions, 3, 1) what is left in the place that is looked at."""
    gain: Floats
    """(tasks,) how much cheaper the plan would be without each."""
    least: Floats
    """(places or tasks,) room for what each costs at least."""
    owner: Ints
    """(slots,) agent of whose tasks alone the slot is drawn from, or SHARED."""
    shares: Ints
    """(1,) whether any slot is shared."""
    spots: Ints
    """(any,) places where some task can be, agent by agent."""
    first_spot: Ints
    """(agents + 1,) where those of each agent begin."""


@within
def bounds_of(cluster: Cluster, demand: Demand, start: Ints) -> Bounds:
    """Return what never changes; of places and tasks, nothing is known yet.

    Parameters
    ----------
    start
        (slots,) what is free when nothing is placed.
    """
    n_tasks, n_places = len(demand.own), len(cluster.places)
    spots, first_spot = spots_of(cluster, demand)
    what = dimensions(cluster)
    need = np.zeros((len(what), n_tasks))
    for d in range(len(what)):
        for task in range(n_tasks):
            need[d, task] = need_of(demand, what, d, task)
    most, n = np.zeros(len(what)), 0
    for d in range(len(what)):
        total = 0.0
        for task in range(n_tasks):
            total += need[d, task]
        if total > least_room(cluster, what, d, spots, start):
            for i in range(what.shape[1]):
                what[n, i] = what[d, i]
            for task in range(n_tasks):
                need[n, task] = need[d, task]
                most[n] = max(most[n], need[d, task])
            n += 1
    what, need, most = what[:n], need[:n], most[:n]
    owner, shares = owners(cluster, len(start)), np.zeros(1, np.int64)
    for slot in range(len(owner)):
        if owner[slot] == SHARED:
            shares[0] = 1
    return Bounds(
        slots_of(cluster, what),
        need,
        most,
        np.zeros((len(what), 3, n_places)),
        np.zeros((len(what), 3, n_tasks)),
        np.zeros((len(what), 3, 1)),
        np.zeros(n_tasks),
        np.zeros(max(n_places, n_tasks)),
        owner,
        shares,
        spots,
        first_spot,
    )


@within
def dimensions(cluster: Cluster) -> Ints:
    """Return (any, 4) what could be a dimension.

    The column of `Cluster.places` that tells the first slot, and how many slots further; for devices, the
    service, and whether only those on the node count.
    """
    services = min(cluster.serves.shape[1], SERVICES)
    what = np.zeros((OWN_SLOTS + 2 + 4 * services, 4), np.int64)
    for i in range(OWN_SLOTS):
        what[i, 0], what[i, 1] = OWN, i
    for i in range(2):
        what[OWN_SLOTS + i, 0], what[OWN_SLOTS + i, 1] = CORES, i
    for i in range(4 * services):
        d = OWN_SLOTS + 2 + i
        what[d, 0], what[d, 1], what[d, 2], what[d, 3] = DEVICE, i % 2, i // 4, i // 2 % 2
    return what


@inlined
def need_of(demand: Demand, what: Ints, d: int, task: int) -> float:
    """Return what a task asks for in a dimension, at least; of several wants, that of the largest."""
    column, offset = what[d, 0], what[d, 1]
    if column == OWN:
        return float(demand.own[task, offset])
    if column == CORES:
        cores = demand.task[task, N_CORES]
        if offset == 0:
            return float(cores)
        return float(demand.own[task, MEM]) if cores > 0 or demand.task[task, SPECIAL] > 0 else 0.0
    most, want = 0, demand.want
    for w in range(demand.task[task, WANT], demand.task[task, WANT_END]):
        if want[w, SERVICE] == what[d, 2] and (want[w, 2] > 0) == (what[d, 3] > 0):
            most = max(most, want[w, offset])
    return float(most)


@within
def slots_of(cluster: Cluster, what: Ints) -> Ints:
    """Return the slots of each dimension in each place."""
    places = cluster.places
    most = 1
    for place in range(len(places)):
        most = max(most, places[place, DEVICE_END] - places[place, DEVICE])
    slots = np.full((len(places), len(what), most), NOWHERE, np.int64)
    for place in range(len(places)):
        for d in range(len(what)):
            column, offset = what[d, 0], what[d, 1]
            if column != DEVICE:
                if places[place, column] != NOWHERE:
                    slots[place, d, 0] = places[place, column] + offset
                continue
            n = 0
            for device in range(places[place, DEVICE], places[place, DEVICE_END]):
                near = cluster.device[device, 1] == places[place, NODE]
                if cluster.serves[device, what[d, 2]] > 0 and (near or what[d, 3] == 0):
                    slots[place, d, n] = cluster.device[device, 0] + offset
                    n += 1
    return slots


@within
def least_room(cluster: Cluster, what: Ints, d: int, spots: Ints, start: Ints) -> float:
    """Return what there is where there is least of a dimension; 0 for devices."""
    if what[d, 0] == DEVICE:
        return 0.0
    least = np.inf
    for place in spots:
        slot = cluster.places[place, what[d, 0]]
        if slot != NOWHERE:
            least = min(least, float(start[slot + what[d, 1]]))
    return least


@within
def spots_of(cluster: Cluster, demand: Demand) -> tuple[Ints, Ints]:
    """Return the places where some task can be, agent by agent, and where those of each agent begin."""
    places, tasks = cluster.places, demand.task
    used = np.zeros(len(places), np.bool_)
    for task in range(len(tasks)):
        for place in range(tasks[task, PLACE], tasks[task, PLACE_END]):
            used[place] = True
    first = np.zeros(len(cluster.rank) + 1, np.int64)
    for place in range(len(places)):
        first[places[place, AGENT] + 1] += used[place]
    for agent in range(len(cluster.rank)):
        first[agent + 1] += first[agent]
    spots, end = np.empty(first[len(cluster.rank)], np.int64), first.copy()
    for place in range(len(places)):
        if used[place]:
            spots[end[places[place, AGENT]]] = place
            end[places[place, AGENT]] += 1
    return spots, first


@inlined
def claim(owner: Ints, slot: int, agent: int) -> None:
    """Enter that tasks of an agent draw from a slot, if there is one."""
    if slot != NOWHERE:
        owner[slot] = agent if owner[slot] == NOWHERE or owner[slot] == agent else SHARED


@inlined
def own(owner: Ints, slot: int, n: int, agent: int) -> None:
    """Enter that some slots in a row are of an agent, if there are any."""
    for i in range(n if slot != NOWHERE else 0):
        owner[slot + i] = agent


@within
def owners(cluster: Cluster, n_slots: int) -> Ints:
    """Return of which agent each slot is; SHARED, if it is of several, as tickets of racks are."""
    owner = np.full(n_slots, NOWHERE, np.int64)
    for place in cluster.places:
        agent = place[AGENT]
        own(owner, place[OWN], OWN_SLOTS, agent)
        own(owner, place[CORES], NODE_SLOTS, agent)
        own(owner, place[L3], 2, agent)
        for d in range(place[DEVICE], place[DEVICE_END]):
            own(owner, cluster.device[d, 0], 2, agent)
            for slot in cluster.device_ticket[d]:
                claim(owner, slot, agent)
    for agent in range(len(cluster.volume_slot)):
        for slot in cluster.volume_slot[agent]:
            claim(owner, slot, agent)
    return owner


@inlined
def survey(plan: Plan, strain: Strain, slots: Ints, place: int, table: Floats, index: int) -> None:
    """Write what is left in a place to a column of a table: of several devices, the best of each."""
    for d in range(slots.shape[1]):
        room, burden, charge = 0.0, np.inf, np.inf
        for i in range(slots.shape[2]):
            slot = slots[place, d, i]
            if slot == NOWHERE:
                break
            left = plan.free[slot]
            room = max(room, float(left))
            burden = min(burden, strain.burden[slot])
            charge = min(charge, strain.charge[slot] if left >= 0 else 0.0)
        there = burden < np.inf
        table[d, ROOM, index] = room
        table[d, BURDEN, index] = burden if there else 0.0
        table[d, CHARGE, index] = charge if there else 0.0


@inlined
def survey_agent(plan: Plan, strain: Strain, bounds: Bounds, agent: int) -> None:
    """Look anew at the places of an agent and at the tasks there, after something has changed."""
    for i in range(bounds.first_spot[agent], bounds.first_spot[agent + 1]):
        place = bounds.spots[i]
        survey(plan, strain, bounds.slots, place, bounds.at, place)
    task = plan.first[agent]
    while task != NOWHERE:
        bounds.gain[task] = lift(plan, strain, task)
        survey(plan, strain, bounds.slots, plan.where[task], bounds.instead, task)
        lay(plan, task)
        task = plan.links[task, 0]


@outlined
def survey_all(plan: Plan, strain: Strain, bounds: Bounds) -> None:
    """Look at all places and all tasks."""
    for agent in range(len(plan.first)):
        survey_agent(plan, strain, bounds, agent)


@inlined
def survey_gains(plan: Plan, strain: Strain, bounds: Bounds) -> None:
    """Look anew at what the plan gains without each task, if tasks of several agents draw from one slot."""
    if bounds.shares[0] > 0:
        for task in range(len(plan.where)):
            bounds.gain[task] = lift(plan, strain, task)
            lay(plan, task)


@inlined
def indices(begin: int, end: int) -> range:
    """Return a range that is never below zero: only then the processor is told to do several at a time."""
    return range(np.uint64(begin), np.uint64(end))


@written_out
def least_costs_of_places(bounds: Bounds, task: int, begin: int, end: int) -> None:
    """Write to `Bounds.least` what it costs at least to put a task in each place from `begin` to `end`."""
    least, at = bounds.least, bounds.at
    for i in indices(begin, end):
        least[i] = 0.0
    for d in range(len(bounds.need)):
        need = bounds.need[d, task]
        if need > 0:
            for i in indices(begin, end):
                lack = need - at[d, ROOM, i]
                least[i] += lack * at[d, BURDEN, i] + at[d, CHARGE, i] if lack > 0 else 0.0


@inlined
def least_costs_of_swaps(bounds: Bounds, task: int, begin: int, end: int) -> None:
    """Write to `Bounds.least` what it costs at least that a task changes places with each of `begin` to `end`.

    The task is lifted, and its place surveyed (`Bounds.here`). Not for tasks of one agent.
    """
    least, instead, here, need = bounds.least, bounds.instead, bounds.here, bounds.need
    for i in indices(begin, end):
        least[i] = -bounds.gain[i]
    for d in range(len(bounds.need)):
        mine = need[d, task]
        if mine > 0:
            for i in indices(begin, end):
                lack = mine - instead[d, ROOM, i]
                least[i] += (
                    lack * instead[d, BURDEN, i] + instead[d, CHARGE, i] if lack > 0 else 0.0
                )
        room = here[d, ROOM, 0]
        burden, charge = here[d, BURDEN, 0], here[d, CHARGE, 0]
        if bounds.most[d] > room:
            for i in indices(begin, end):
                lack = need[d, i] - room
                least[i] += lack * burden + charge if lack > 0 else 0.0
