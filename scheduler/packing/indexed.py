"""Compiled: the greedy pass on large clusters, which does not look at every place for every task.

Tasks that ask for the same kinds of things (one admission, one set of services) share an index: lists of the
places that could serve them, by priority of the agent and by what is free of the place's main amount (cores of
a node or cache, CPUs of an agent). A task looks at the fullest places that have enough of that, some dozens of
them, and takes the one where it leaves least over. What is free only shrinks during the pass, so an entry that
is out of date stands too high, and is moved down when it is met; an entry that does not fit for another reason
goes to the end of its list, so that the next task meets others first.
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
    N_CORES,
    NO,
    NODE,
    NOWHERE,
    OWN,
    PLACE,
    PLACE_END,
    RATHER_ELSEWHERE,
    SERVICE,
    WANT,
    WANT_END,
    Cluster,
    Demand,
    Ints,
    Plan,
)
from scheduler.packing.compiled import compiled, inlined, within
from scheduler.packing.greedy import FAR, insert
from scheduler.packing.placing import left_within, put, tied_elsewhere

LARGE: Final = 400
"""Places from which on the index is used."""
LEVELS: Final = 64
"""Lists of one kind of tasks and one priority, by what is free."""
RANKS: Final = 8
"""Priorities that are told apart; the highest count as one."""
ENOUGH: Final = 24
"""Places that fit, after which no other is looked at."""
LOOKS: Final = 96
"""Places of one priority that are looked at, fit or not."""
SCANS: Final = 200
"""Tasks for which all places are looked at, at most."""
MAX_ENTRIES: Final = 4_000_000
"""Of the index: kinds of tasks times places."""


class Index(NamedTuple):
    """Circular lists of places; changed in place."""

    kind: Ints
    """(tasks,) number of the kind of tasks."""
    rank: Ints
    """(agents,) priority, as a number from 0 to RANKS - 1."""
    unit: Ints
    """(3,) what one level is: of cores of nodes, of CPUs of agents, of cores of caches."""
    head: Ints
    """(kinds, ranks, levels) first place, or NOWHERE."""
    size: Ints
    """(kinds, ranks, levels) places in the list."""
    links: Ints
    """(kinds, places, 2) next and previous place."""
    level: Ints
    """(kinds, places) the list that the place is in, or NOWHERE."""


@inlined
def sort_of(places: Ints, place: int) -> int:
    """Return 0 for a node, 1 for an agent, 2 for a cache."""
    if places[place, L3] != NOWHERE:
        return 2
    return 1 if places[place, NODE] == NOWHERE else 0


@inlined
def main_slot(places: Ints, place: int) -> int:
    """Return the slot by which a place is in the lists."""
    if places[place, L3] != NOWHERE:
        return int(places[place, L3])
    return int(places[place, OWN] if places[place, NODE] == NOWHERE else places[place, CORES])


@inlined
def link_last(
    head: Ints, size: Ints, links: Ints, level: Ints, kind: int, rank: int, to: int, place: int
) -> None:
    """Put a place at the end of a list."""
    first = head[kind, rank, to]
    level[kind, place] = to
    size[kind, rank, to] += 1
    if first == NOWHERE:
        head[kind, rank, to] = place
        links[kind, place, 0] = links[kind, place, 1] = place
        return
    last = links[kind, first, 1]
    links[kind, last, 0] = links[kind, first, 1] = place
    links[kind, place, 0], links[kind, place, 1] = first, last


@inlined
def unlink(
    head: Ints, size: Ints, links: Ints, level: Ints, kind: int, rank: int, place: int
) -> None:
    """Take a place out of its list."""
    after, before = links[kind, place, 0], links[kind, place, 1]
    at = level[kind, place]
    size[kind, rank, at] -= 1
    if after == place:
        head[kind, rank, at] = NOWHERE
    else:
        links[kind, before, 0], links[kind, after, 1] = after, before
        if head[kind, rank, at] == place:
            head[kind, rank, at] = after
    level[kind, place] = NOWHERE


@compiled
def fill(cluster: Cluster, demand: Demand, plan: Plan, index: Index, samples: Ints) -> None:
    """Enter every place that admits a kind of tasks and gives its services; `samples` has a task of each."""
    places = cluster.places
    for kind in range(len(samples)):
        task = samples[kind]
        row = demand.task[task, ADMISSION]
        for place in range(demand.task[task, PLACE], demand.task[task, PLACE_END]):
            agent = places[place, AGENT]
            if cluster.admits[row, agent] != NO and serves_all(cluster, demand, task, place):
                free = plan.free[main_slot(places, place)]
                level = min(free // index.unit[sort_of(places, place)], LEVELS - 1)
                rank = index.rank[agent]
                link_last(
                    index.head, index.size, index.links, index.level, kind, rank, level, place
                )


@within
def serves_all(cluster: Cluster, demand: Demand, task: int, place: int) -> bool:
    """Whether a place has a device for each service that a task wants."""
    for w in range(demand.task[task, WANT], demand.task[task, WANT_END]):
        found = False
        for d in range(cluster.places[place, DEVICE], cluster.places[place, DEVICE_END]):
            found = found or cluster.serves[d, demand.want[w, SERVICE]] != 0
        if not found:
            return False
    return True


@within
def choose_indexed(
    cluster: Cluster, demand: Demand, plan: Plan, index: Index, task: int, rule: int
) -> int:
    """Return the place where a task fits best by the rule, of those looked at; NOWHERE, if none fits."""
    places, own, tasks, free = cluster.places, demand.own, demand.task, plan.free
    head, size, links, level = index.head, index.size, index.links, index.level
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    kind, unit = index.kind[task], index.unit[sort_of(places, tasks[task, PLACE])]
    agent_sort = places[tasks[task, PLACE], NODE] == NOWHERE
    asked = own[task, 0] if agent_sort else tasks[task, N_CORES]
    best, best_left = NOWHERE, np.inf
    for rank in range(RANKS):
        if rule == HUMBLEST and best != NOWHERE:
            break
        looks = fits = 0
        for at in range(min(asked // unit, LEVELS - 1), LEVELS):
            place = head[kind, rank, at]
            for _ in range(size[kind, rank, at]):
                if looks == LOOKS or fits == ENOUGH:
                    break
                here, place = place, links[kind, place, 0]
                now = min(free[main_slot(places, here)] // unit, LEVELS - 1)
                agent = places[here, AGENT]
                left = np.inf
                if now == at and not tied_elsewhere(cluster, plan, task, agent):
                    looks += 1
                    left = left_within(cluster, demand, free, task, here, needs, np.inf)
                if left == np.inf:
                    unlink(head, size, links, level, kind, rank, here)
                    link_last(head, size, links, level, kind, rank, now, here)
                    continue
                fits += 1
                if cluster.admits[tasks[task, ADMISSION], agent] == RATHER_ELSEWHERE:
                    left += FAR
                if left < best_left:
                    best, best_left = here, left
    return best


@compiled
def insert_all_indexed(
    cluster: Cluster, demand: Demand, plan: Plan, index: Index, order: Ints, rule: int
) -> int:
    """Insert tasks in order; return how many were left out.

    For the first of those for which the index shows no place, all places are looked at.
    """
    missed = scans = 0
    for task in order:
        place = choose_indexed(cluster, demand, plan, index, task, rule)
        if place != NOWHERE and put(cluster, demand, plan, task, place):
            continue
        scans += 1
        if scans > SCANS or not insert(cluster, demand, plan, task, rule):
            missed += 1
    return missed


def make_index(cluster: Cluster, demand: Demand, plan: Plan, large: int = LARGE) -> Index | None:
    """Return the index for a plan with nothing placed; None, where it would be of no use or too large.

    It is of no use where tasks would rather be on some agents, or begin where there is room for others, too:
    then all places must be looked at.

    Parameters
    ----------
    large
        Number of places from which on it is of use.
    """
    n_places, n_services = len(cluster.places), cluster.serves.shape[1]
    if n_places < large or n_services > 50 or not len(demand.own):
        return None
    if demand.tie.shape[1] > 0 or np.any(cluster.admits == RATHER_ELSEWHERE):
        return None
    kinds, samples, kind = np.unique(
        _kinds(cluster, demand), axis=0, return_index=True, return_inverse=True
    )
    if len(kinds) * n_places > MAX_ENTRIES:
        return None
    _, rank = np.unique(cluster.rank, return_inverse=True)
    index = Index(
        kind=kind.reshape(-1).astype(np.int64),
        rank=np.minimum(rank, RANKS - 1).astype(np.int64),
        unit=_units(cluster, plan),
        head=np.full((len(kinds), RANKS, LEVELS), NOWHERE, np.int64),
        size=np.zeros((len(kinds), RANKS, LEVELS), np.int64),
        links=np.full((len(kinds), n_places, 2), NOWHERE, np.int64),
        level=np.full((len(kinds), n_places), NOWHERE, np.int64),
    )
    fill(cluster, demand, plan, index, samples.astype(np.int64))
    return index


def _kinds(cluster: Cluster, demand: Demand) -> Ints:
    """Return (tasks, 3) what puts a task among others of its kind: admission, first place, services."""
    spans = demand.task[:, WANT_END] - demand.task[:, WANT]
    owner = np.repeat(np.arange(len(demand.task)), spans)
    services = np.zeros(len(demand.task), np.int64)
    np.bitwise_or.at(services, owner, np.int64(1) << demand.want[: len(owner), SERVICE])
    return np.column_stack((demand.task[:, ADMISSION], demand.task[:, PLACE], services))


def _units(cluster: Cluster, plan: Plan) -> Ints:
    """Return what one level is, so that an agent with all the CPUs there are is in the last."""
    is_agent = cluster.places[:, NODE] == NOWHERE
    cpus = plan.free[cluster.places[is_agent, OWN]]
    return np.array([1, max(int(cpus.max(initial=0)) // LEVELS, 1), 1], np.int64)
