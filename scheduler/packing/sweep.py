"""Compiled: how much a task would leave in all places at once.

To look at places one after the other takes some twenty nanoseconds for each, most of it for the devices. So
what is free is kept beside the plan in *columns*, of each thing that tasks ask for place by place in one row;
from these, what a task leaves everywhere is a few sweeps that the processor makes for several places at a time.
The amounts are what :func:`~scheduler.packing.placing.left_at` finds.

For tasks that just count cores, and neither ask for volumes nor draw tickets: see :func:`sweepable`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from scheduler.packing.arrays import (
    ADMISSION,
    AGENT,
    CORES,
    DEVICE,
    DEVICE_END,
    HUMBLEST,
    L3,
    MEM,
    N_CORES,
    NO,
    NODE,
    NOWHERE,
    OWN,
    OWN_SLOTS,
    PLACE,
    PLACE_END,
    RATHER_ELSEWHERE,
    SERVICE,
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
from scheduler.packing.compiled import compiled, inlined, outlined
from scheduler.packing.greedy import FAR, insert
from scheduler.packing.placing import left_at, plain, put

MOST_COLUMNS: Final = 160
"""With more, it is slower to keep them up to date than to look at places one by one."""
_CORES: Final = OWN_SLOTS
_NODE_MEM: Final = OWN_SLOTS + 1
_OF_NODE: Final = 2
_DEVICES: Final = OWN_SLOTS + _OF_NODE
"""Columns: after the agent's own slots those of the node, then two for each device that may serve a want."""


class Columns(NamedTuple):
    """What is free, place by place; `room` is changed in place."""

    slot: Ints
    """(columns, places) NOWHERE, where there is none."""
    room: Floats
    """(columns, places) what is free; below zero, where there is no slot."""
    weight: Floats
    """(columns, places) as in `Cluster`."""
    per_want: int
    """Number of devices of one place that may serve a want, at most."""
    first_node: Ints
    """(agents + 1,) where the nodes of each begin."""
    left: Floats
    """(places,) room for what a task leaves."""
    least: Floats
    """(places,) room for what a want leaves."""


@compiled
def columns_of(cluster: Cluster, free: Ints) -> Columns:
    """Return the columns of what is free; none, if they would be more than MOST_COLUMNS."""
    places, n_agents, n_services = cluster.places, len(cluster.rank), cluster.serves.shape[1]
    n_places = len(places)
    while n_places > 0 and places[n_places - 1, L3] != NOWHERE:
        n_places -= 1
    per_want = 0
    for place in range(n_places):
        for service in range(n_services):
            n = 0
            for d in range(places[place, DEVICE], places[place, DEVICE_END]):
                n += cluster.serves[d, service] != 0
            per_want = max(per_want, n)
    n_columns = _DEVICES + 4 * n_services * per_want
    if n_columns > MOST_COLUMNS:
        n_columns = 0
    shape = n_columns, n_places
    slot, room, weight = np.empty(shape, np.int64), np.empty(shape), np.zeros(shape)
    first_node = np.zeros(n_agents + 1, np.int64)
    for place in range(n_places if n_columns > 0 else 0):
        for column in range(n_columns):
            slot[column, place], room[column, place] = NOWHERE, -1.0
        enter(cluster, slot, place, per_want)
        for column in range(n_columns):
            s = slot[column, place]
            if s != NOWHERE:
                room[column, place], weight[column, place] = free[s], cluster.weight[s]
        if places[place, NODE] != NOWHERE:
            first_node[places[place, AGENT] + 1] = place + 1
    for agent in range(n_agents):  # of those without nodes they end where they begin
        first_node[agent + 1] = max(first_node[agent], first_node[agent + 1])
    left, least = np.empty(n_places), np.empty(n_places)
    return Columns(slot, room, weight, per_want, first_node, left, least)


@inlined
def enter(cluster: Cluster, slot: Ints, place: int, per_want: int) -> None:
    """Enter the slots of one place."""
    here = cluster.places[place]
    for i in range(OWN_SLOTS):
        slot[i, place] = here[OWN] + i
    if here[CORES] != NOWHERE:
        slot[_CORES, place], slot[_NODE_MEM, place] = here[CORES], here[CORES] + MEM
    for service in range(cluster.serves.shape[1]):
        for near in range(2):
            column = first_column(service, near, per_want)
            for d in range(here[DEVICE], here[DEVICE_END]):
                there = here[NODE] != NOWHERE and cluster.device[d, 1] == here[NODE]
                if cluster.serves[d, service] != 0 and (near == 0 or there):
                    slot[column, place] = cluster.device[d, 0]
                    slot[column + 1, place] = cluster.device[d, 0] + 1
                    column += 2


@inlined
def first_column(service: int, near: int, per_want: int) -> int:
    """Return the first column of the devices for a service, near the cores or anywhere on the agent."""
    return _DEVICES + 2 * per_want * (2 * service + near)


@inlined
def refresh(columns: Columns, free: Ints, agent: int) -> None:
    """Read anew what is free on an agent."""
    slot, room = columns.slot, columns.room
    own = slot.shape[1] - len(columns.first_node) + 1 + agent
    for column in range(len(slot)):
        for place in range(columns.first_node[agent], columns.first_node[agent + 1]):
            if slot[column, place] != NOWHERE:
                room[column, place] = free[slot[column, place]]
        if slot[column, own] != NOWHERE:
            room[column, own] = free[slot[column, own]]


@inlined
def sweepable(cluster: Cluster, demand: Demand, columns: Columns, task: int) -> bool:
    """Whether :func:`sweep` knows all that a task asks for."""
    if len(columns.room) == 0 or demand.tie.shape[1] > 0 or not plain(demand, task):
        return False
    for w in range(demand.task[task, WANT], demand.task[task, WANT_END]):
        if demand.want[w, TICKET] != demand.want[w, TICKET_END]:
            return False
    return bool(demand.task[task, PLACE_END] <= len(columns.left))


@inlined
def draw_everywhere(columns: Columns, column: int, amount: int, begin: int, end: int) -> None:
    """Add to `Columns.left` what is left of one column."""
    left, room, weight = columns.left, columns.room, columns.weight
    for i in range(np.uint64(begin), np.uint64(end)):
        rest = room[column, i] - amount
        left[i] += rest * weight[column, i] if rest >= 0 else np.inf


@inlined
def want_everywhere(columns: Columns, want: Ints, begin: int, end: int) -> None:
    """Add to `Columns.left` what is left of the device that has least left, of those that have enough."""
    left, least, room, weight = columns.left, columns.least, columns.room, columns.weight
    one, other = want[0], want[1]
    first = first_column(want[SERVICE], 1 if want[2] != 0 else 0, columns.per_want)
    for i in range(np.uint64(begin), np.uint64(end)):
        least[i] = np.inf
    for n in range(columns.per_want):
        a = first + 2 * n
        for i in range(np.uint64(begin), np.uint64(end)):
            rest, more = room[a, i] - one, room[a + 1, i] - other
            cost = rest * weight[a, i] + more * weight[a + 1, i]
            cost = cost if rest >= 0 else np.inf
            cost = cost if more >= 0 else np.inf
            least[i] = min(least[i], cost)
    for i in range(np.uint64(begin), np.uint64(end)):
        left[i] += least[i]


@outlined
def sweep(demand: Demand, columns: Columns, task: int) -> None:
    """Write to `Columns.left` what a task would leave in each of its places; infinity, if it does not fit."""
    own, begin, end = demand.own, demand.task[task, PLACE], demand.task[task, PLACE_END]
    for i in range(np.uint64(begin), np.uint64(end)):
        columns.left[i] = 0.0
    n_cores = demand.task[task, N_CORES]
    for i in range(-_OF_NODE if n_cores > 0 else 0, OWN_SLOTS):  # in the order of `left_at`
        column = i if i >= 0 else i + _DEVICES
        amount = n_cores if column == _CORES else own[task, MEM if column == _NODE_MEM else i]
        if amount > 0 or i < 0:
            draw_everywhere(columns, column, amount, begin, end)
    for w in range(demand.task[task, WANT], demand.task[task, WANT_END]):
        want_everywhere(columns, demand.want[w], begin, end)


@inlined
def choose_swept(cluster: Cluster, demand: Demand, columns: Columns, task: int, rule: int) -> int:
    """Return the place where a task fits best by the rule, which is not FIRST; NOWHERE, if it fits nowhere."""
    sweep(demand, columns, task)
    admission, left = demand.task[task, ADMISSION], columns.left
    best, best_left, best_rank = int(np.int64(NOWHERE)), np.inf, 0
    for place in range(demand.task[task, PLACE], demand.task[task, PLACE_END]):
        if left[place] == np.inf:
            continue
        agent = cluster.places[place, AGENT]
        grade = cluster.admits[admission, agent]
        if grade == NO:
            continue
        far = FAR if grade == RATHER_ELSEWHERE else 0
        rank = far + (cluster.rank[agent] if rule == HUMBLEST else 0)
        if best == NOWHERE or rank < best_rank or (rank == best_rank and left[place] < best_left):
            best, best_left, best_rank = place, left[place], rank
    return best


@compiled
def insert_all_swept(
    cluster: Cluster, demand: Demand, plan: Plan, columns: Columns, order: Ints, rule: int
) -> int:
    """Insert tasks in order, by a rule that is not FIRST; return how many fitted nowhere and were left out."""
    missed = 0
    for task in order:
        if sweepable(cluster, demand, columns, task):
            place = choose_swept(cluster, demand, columns, task, rule)
            placed = place != NOWHERE and (
                put(cluster, demand, plan, task, place) or insert(cluster, demand, plan, task, rule)
            )
        else:
            placed = insert(cluster, demand, plan, task, rule)
        if placed:
            refresh(columns, plan.free, cluster.places[plan.where[task], AGENT])
        else:
            missed += 1
    return missed


@compiled
def mark_fits_alone(
    cluster: Cluster, demand: Demand, plan: Plan, columns: Columns, fits: Bytes
) -> None:
    """Mark in (tasks, places) where each task fits; the plan and the columns have nothing placed."""
    admits, tasks, places = cluster.admits, demand.task, cluster.places
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    fits[:] = 0
    for task in range(len(tasks)):
        swept = sweepable(cluster, demand, columns, task)
        if swept:
            sweep(demand, columns, task)
        for place in range(tasks[task, PLACE], tasks[task, PLACE_END]):
            if admits[tasks[task, ADMISSION], places[place, AGENT]] == NO:
                continue
            fits[task, place] = (
                columns.left[place] < np.inf
                if swept
                else left_at(cluster, demand, plan.free, task, place, needs) < np.inf
            )
