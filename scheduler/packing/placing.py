"""Compiled: what a task needs in one place, putting it there, and taking it away again.

A task is placed by drawing its amounts from slots; every draw is remembered, so that taking it away is exact.
Placing either succeeds, or leaves everything as it was.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.packing.arrays import (
    ADMISSION,
    AGENT,
    BREAKS,
    CORES,
    DEVICE,
    DEVICE_END,
    L3,
    MEM,
    N_CORES,
    N_WHOLE,
    NO,
    NODE,
    NODE_CORES,
    NODE_SHARE,
    NOWHERE,
    OWN,
    OWN_SLOTS,
    SERVICE,
    SPECIAL,
    TICKET,
    TICKET_END,
    VOLUME,
    VOLUME_END,
    WANT,
    WANT_END,
    WHOLE,
    WIDTH,
    Cluster,
    Demand,
    Ints,
    Plan,
)
from scheduler.packing.compiled import compiled, inlined, outlined, within, written_out
from scheduler.requests import MAX_SHARE

BACKTRACKS: Final = 2000
"""Steps of the search for devices of one task in one place; for up to six wants and three devices, all."""


@written_out
def need_cores(
    cluster: Cluster, demand: Demand, task: int, place: int, needs: Ints
) -> tuple[int, int]:
    """Write (slot, amount) of the cores that a task needs and of the memory beside them.

    For tasks that do not just count cores: that ask for whole ones, one cache or a share of the node. Returns
    how many logical CPUs are held beside the named ones, and how many rows are written.
    """
    places, tasks = cluster.places, demand.task
    slot, cache = places[place, CORES], places[place, L3]
    n_cores, whole = tasks[task, N_CORES], tasks[task, N_WHOLE]
    width = places[place, WIDTH]
    named = n_cores + (width - 1) * whole
    share = tasks[task, NODE_SHARE] * places[place, NODE_CORES]
    taken = max(named, (share + MAX_SHARE - 1) // MAX_SHARE)
    needs[0, 0], needs[0, 1] = slot, taken
    needs[1, 0], needs[1, 1] = slot + MEM, demand.own[task, MEM]
    n = 2
    unbroken = whole
    if tasks[task, BREAKS] > 0:
        unbroken = (n_cores + width - 1) // width
    if unbroken > 0:
        needs[n, 0], needs[n, 1] = slot + WHOLE, unbroken
        n += 1
    if cache != NOWHERE:
        needs[n, 0], needs[n, 1] = cache, named
        n += 1
        if whole > 0:
            needs[n, 0], needs[n, 1] = cache + 1, whole
            n += 1
    return taken - n_cores, n


@inlined
def needs_at(cluster: Cluster, demand: Demand, task: int, place: int, needs: Ints) -> int:
    """Write (slot, amount) of all that a task needs in a place but devices; return how many.

    Returns NOWHERE if a volume is not there, or the agent is in no zone of a ticket.
    """
    places, own, tasks, volume = cluster.places, demand.own, demand.task, demand.volume
    n = 0
    cpus = own[task, 0]
    if tasks[task, SPECIAL] > 0:
        held, n = need_cores(cluster, demand, task, place, needs)
        cpus += 1000 * held
    elif tasks[task, N_CORES] > 0:
        slot = places[place, CORES]
        needs[0, 0], needs[0, 1] = slot, tasks[task, N_CORES]
        needs[1, 0], needs[1, 1] = slot + MEM, own[task, MEM]
        n = 2
    if cpus > 0:
        needs[n, 0], needs[n, 1] = places[place, OWN], cpus
        n += 1
    for i in range(1, OWN_SLOTS):
        if own[task, i] > 0:
            needs[n, 0], needs[n, 1] = places[place, OWN] + i, own[task, i]
            n += 1
    for i in range(tasks[task, VOLUME], tasks[task, VOLUME_END]):
        slot = cluster.volume_slot[places[place, AGENT], volume[i, 0]]
        if slot == NOWHERE:
            return NOWHERE
        needs[n, 0], needs[n, 1] = slot, volume[i, 1]
        n += 1
    return n


@inlined
def need_device(cluster: Cluster, demand: Demand, w: int, d: int, needs: Ints, n: int) -> int:
    """Append to `n` needs what want `w` draws from device `d`; return how many there are now."""
    want, tickets = demand.want, demand.want_ticket
    for i in range(2):
        needs[n + i, 0], needs[n + i, 1] = cluster.device[d, 0] + i, want[w, i]
    n += 2
    for i in range(want[w, TICKET], want[w, TICKET_END]):
        slot = cluster.device_ticket[d, tickets[i, 0]]
        if slot != NOWHERE:
            needs[n, 0], needs[n, 1] = slot, tickets[i, 1]
            n += 1
    return n


@inlined
def usable(cluster: Cluster, demand: Demand, w: int, d: int, node: int) -> bool:
    """Whether device `d` gives what want `w` is for, as far as its kind and its node go."""
    if cluster.serves[d, demand.want[w, SERVICE]] == 0:
        return False
    return demand.want[w, 2] == 0 or (node != NOWHERE and cluster.device[d, 1] == node)


@inlined
def tickets_left(cluster: Cluster, demand: Demand, free: Ints, w: int, d: int) -> bool:
    """Whether what must not be beside want `w` on device `d` is not there."""
    tickets = demand.want_ticket
    for i in range(demand.want[w, TICKET], demand.want[w, TICKET_END]):
        slot = cluster.device_ticket[d, tickets[i, 0]]
        if slot != NOWHERE and free[slot] < tickets[i, 1]:
            return False
    return True


@inlined
def tightest_device(
    cluster: Cluster, demand: Demand, free: Ints, place: int, w: int
) -> tuple[int, float]:
    """Return the device in a place that would have least left, and how much that is.

    NOWHERE and infinity, if none has enough.
    """
    places, want, weight = cluster.places, demand.want, cluster.weight
    best, best_left = NOWHERE, np.inf
    for d in range(places[place, DEVICE], places[place, DEVICE_END]):
        if not usable(cluster, demand, w, d, places[place, NODE]):
            continue
        slot = cluster.device[d, 0]
        first, second = free[slot] - want[w, 0], free[slot + 1] - want[w, 1]
        if first < 0 or second < 0:
            continue
        if not tickets_left(cluster, demand, free, w, d):
            continue
        left = first * weight[slot] + second * weight[slot + 1]
        if left < best_left:
            best, best_left = d, left
    return best, best_left


@inlined
def plain(demand: Demand, task: int) -> bool:
    """Whether a task just counts cores, and asks for no volume and no ticket of a zone."""
    tasks = demand.task
    return bool(tasks[task, SPECIAL] == 0 and tasks[task, VOLUME] == tasks[task, VOLUME_END])


@inlined
def plain_left(cluster: Cluster, demand: Demand, free: Ints, task: int, place: int) -> float:
    """Return how much a plain task would leave in a place of all but devices; infinity if it does not fit."""
    own, weight, n_cores = demand.own, cluster.weight, demand.task[task, N_CORES]
    slot, first = cluster.places[place, CORES], cluster.places[place, OWN]
    left = 0.0
    if n_cores > 0:
        cores, mem = free[slot] - n_cores, free[slot + MEM] - own[task, MEM]
        if cores < 0 or mem < 0:
            return np.inf
        left = cores * weight[slot] + mem * weight[slot + MEM]
    for i in range(OWN_SLOTS):
        if own[task, i] > 0:
            rest = free[first + i] - own[task, i]
            if rest < 0:
                return np.inf
            left += rest * weight[first + i]
    return left


@outlined
def other_left(
    cluster: Cluster, demand: Demand, free: Ints, task: int, place: int, needs: Ints
) -> float:
    """Return the same for any task."""
    n = needs_at(cluster, demand, task, place, needs)
    if n == NOWHERE:
        return np.inf
    left = 0.0
    for i in range(n):
        rest = free[needs[i, 0]] - needs[i, 1]
        if rest < 0:
            return np.inf
        left += rest * cluster.weight[needs[i, 0]]
    return left


@inlined
def left_within(
    cluster: Cluster, demand: Demand, free: Ints, task: int, place: int, needs: Ints, most: float
) -> float:
    """Return how much a task would leave of the slots it needs in a place; infinity if it does not fit.

    Each slot counts relative to the mean of its kind. Wants are looked at one by one: two that only together
    are too much are found out by :func:`put`.

    Parameters
    ----------
    free
        (slots,) what is free.
    needs
        (most draws, 2) room for what the task needs.
    most
        What is left is not added up further once it is no less than this.
    """
    if plain(demand, task):
        left = plain_left(cluster, demand, free, task, place)
    else:
        left = other_left(cluster, demand, free, task, place, needs)
    for w in range(demand.task[task, WANT], demand.task[task, WANT_END]):
        if left >= most:
            break
        left += tightest_device(cluster, demand, free, place, w)[1]
    return left


@outlined
def left_at(
    cluster: Cluster, demand: Demand, free: Ints, task: int, place: int, needs: Ints
) -> float:
    """Return the same as :func:`left_within`, however much it is."""
    return left_within(cluster, demand, free, task, place, needs, np.inf)


@inlined
def draw(plan: Plan, task: int, slot: int, amount: int) -> bool:
    """Draw from a slot for a task; False, and nothing drawn, if there is not that much."""
    if amount > plan.free[slot]:
        return False
    n = plan.draws[task]
    plan.free[slot] -= amount
    plan.slot[task, n], plan.amount[task, n] = slot, amount
    plan.draws[task] = n + 1
    return True


@inlined
def undraw(plan: Plan, task: int, keep: int) -> None:
    """Undo all draws of a task but its first `keep`."""
    for n in range(keep, plan.draws[task]):
        plan.free[plan.slot[task, n]] += plan.amount[task, n]
    plan.draws[task] = keep


@inlined
def draw_device(cluster: Cluster, demand: Demand, plan: Plan, task: int, w: int, d: int) -> bool:
    """Draw what want `w` needs of device `d`; False, and nothing drawn, if something is short."""
    slot, keep = cluster.device[d, 0], plan.draws[task]
    want, tickets = demand.want, demand.want_ticket
    ok = draw(plan, task, slot, want[w, 0])
    ok = ok and draw(plan, task, slot + 1, want[w, 1])
    for i in range(want[w, TICKET], want[w, TICKET_END]):
        ticket = cluster.device_ticket[d, tickets[i, 0]]
        if ok and ticket != NOWHERE:
            ok = draw(plan, task, ticket, tickets[i, 1])
    if not ok:
        undraw(plan, task, keep)
    return ok


@inlined
def draw_tightest(cluster: Cluster, demand: Demand, plan: Plan, task: int, place: int) -> int:
    """Draw from the tightest device for each want; return the number of those before one found none."""
    first_want = demand.task[task, WANT]
    for w in range(first_want, demand.task[task, WANT_END]):
        d, _ = tightest_device(cluster, demand, plan.free, place, w)
        if d == NOWHERE:
            return int(w - first_want)
        draw_device(cluster, demand, plan, task, w, d)
        plan.device[task, w - first_want] = d
    return int(demand.task[task, WANT_END] - first_want)


@within
def search_devices(cluster: Cluster, demand: Demand, plan: Plan, task: int, place: int) -> bool:
    """Try choices of devices, depth first; False, and nothing drawn, if none works."""
    node, begin = cluster.places[place, NODE], cluster.places[place, DEVICE]
    end = cluster.places[place, DEVICE_END]
    first_want = demand.task[task, WANT]
    n_wants = demand.task[task, WANT_END] - first_want
    keep = plan.draws[task]
    kept = np.empty(n_wants + 1, np.int64)  # draws before each want's own
    candidate = np.empty(n_wants + 1, np.int64)
    w = 0
    kept[0], candidate[0] = keep, begin
    for _ in range(BACKTRACKS):
        d = candidate[w]
        if d == end:
            w -= 1
            if w < 0:
                return False
            undraw(plan, task, kept[w])
            continue
        candidate[w] += 1
        v = first_want + w
        if usable(cluster, demand, v, d, node) and draw_device(cluster, demand, plan, task, v, d):
            plan.device[task, w] = d
            w += 1
            if w == n_wants:
                return True
            kept[w], candidate[w] = plan.draws[task], begin
    undraw(plan, task, keep)
    return False


@written_out
def draw_plainly(cluster: Cluster, demand: Demand, plan: Plan, task: int, place: int) -> bool:
    """Draw all that a plain task needs but devices; False, with draws left, if something is short."""
    n_cores, slot = demand.task[task, N_CORES], cluster.places[place, CORES]
    ok = True
    if n_cores > 0:
        ok = draw(plan, task, slot, n_cores) and draw(plan, task, slot + MEM, demand.own[task, MEM])
    for i in range(OWN_SLOTS):
        amount = demand.own[task, i]
        if ok and amount > 0:
            ok = draw(plan, task, cluster.places[place, OWN] + i, amount)
    return ok


@within
def draw_needs(cluster: Cluster, demand: Demand, plan: Plan, task: int, place: int) -> bool:
    """Do the same for any task."""
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    n = needs_at(cluster, demand, task, place, needs)
    ok = n != NOWHERE
    for i in range(n):
        ok = ok and draw(plan, task, needs[i, 0], needs[i, 1])
    return ok


@inlined
def in_tie(demand: Demand, task: int, t: int) -> bool:
    """Whether a task is in tie `t`."""
    found = False
    for i in range(demand.tie.shape[1]):
        found = found or demand.tie[task, i] == t
    return bool(found)


@inlined
def tied_elsewhere(cluster: Cluster, plan: Plan, task: int, agent: int) -> bool:
    """Whether tasks that must be in one zone with `task` are in another one than `agent`."""
    for i in range(plan.tie.shape[1]):
        t = plan.tie[task, i]
        if t != NOWHERE and plan.tied[t, 0] > 0 and plan.tied[t, 1] != cluster.zone[t, agent]:
            return True
    return False


@inlined
def link(cluster: Cluster, plan: Plan, task: int, place: int) -> None:
    """Enter a task that has drawn all it needs into the list of its agent."""
    agent = cluster.places[place, AGENT]
    plan.where[task] = place
    head = plan.first[agent]
    plan.links[task, 0], plan.links[task, 1] = head, NOWHERE
    if head != NOWHERE:
        plan.links[head, 1] = task
    plan.first[agent] = task
    for i in range(plan.tie.shape[1]):
        t = plan.tie[task, i]
        if t != NOWHERE:
            plan.tied[t, 0] += 1
            plan.tied[t, 1] = cluster.zone[t, agent]


@outlined
def put(cluster: Cluster, demand: Demand, plan: Plan, task: int, place: int) -> bool:
    """Put a task in a place of an agent that admits it, on any devices; False if it does not fit."""
    if plain(demand, task):
        ok = draw_plainly(cluster, demand, plan, task, place)
    else:
        ok = draw_needs(cluster, demand, plan, task, place)
    if ok:
        keep, n_wants = plan.draws[task], demand.task[task, WANT_END] - demand.task[task, WANT]
        n = draw_tightest(cluster, demand, plan, task, place)
        if n < n_wants:  # where that leads nowhere, try the other choices
            undraw(plan, task, keep)
            ok = n > 0 and search_devices(cluster, demand, plan, task, place)
    if ok:
        link(cluster, plan, task, place)
        return True
    undraw(plan, task, 0)
    return False


@outlined
def put_on(
    cluster: Cluster, demand: Demand, plan: Plan, task: int, place: int, devices: Ints
) -> bool:
    """Put a task in a place of an agent that admits it, on these devices; False if it does not fit."""
    ok = draw_needs(cluster, demand, plan, task, place)
    first_want = demand.task[task, WANT]
    for w in range(demand.task[task, WANT_END] - first_want):
        ok = ok and draw_device(cluster, demand, plan, task, first_want + w, devices[w])
        plan.device[task, w] = devices[w]
    if not ok:
        undraw(plan, task, 0)
        return False
    link(cluster, plan, task, place)
    return True


@compiled
def put_back(
    cluster: Cluster, demand: Demand, plan: Plan, task: int, place: int, devices: Ints
) -> bool:
    """Put a task on these devices if it may be there at all and there is room; False if not."""
    agent, node = cluster.places[place, AGENT], cluster.places[place, NODE]
    if cluster.admits[demand.task[task, ADMISSION], agent] == NO:
        return False
    if tied_elsewhere(cluster, plan, task, agent):
        return False
    first_want = demand.task[task, WANT]
    if len(devices) != demand.task[task, WANT_END] - first_want:
        return False
    for w in range(len(devices)):
        here = cluster.places[place, DEVICE] <= devices[w] < cluster.places[place, DEVICE_END]
        if not (here and usable(cluster, demand, first_want + w, devices[w], node)):
            return False
    return put_on(cluster, demand, plan, task, place, devices)


@inlined
def remove(cluster: Cluster, plan: Plan, task: int) -> None:
    """Take a task out of its place and give back all that it draws."""
    undraw(plan, task, 0)
    after, before = plan.links[task, 0], plan.links[task, 1]
    if before == NOWHERE:
        plan.first[cluster.places[plan.where[task], AGENT]] = after
    else:
        plan.links[before, 0] = after
    if after != NOWHERE:
        plan.links[after, 1] = before
    plan.where[task] = NOWHERE
    for i in range(plan.tie.shape[1]):
        t = plan.tie[task, i]
        if t != NOWHERE:
            plan.tied[t, 0] -= 1
