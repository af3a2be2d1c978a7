"""Compiled: one task after the other, each where a rule says."""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.packing.arrays import (
    ADMISSION,
    AGENT,
    CORES,
    FIRST,
    HUMBLEST,
    L3,
    N_CORES,
    NO,
    NODE,
    NOWHERE,
    OWN,
    OWN_SLOTS,
    PLACE,
    PLACE_END,
    RATHER_ELSEWHERE,
    Bytes,
    Cluster,
    Demand,
    Ints,
    Plan,
)
from scheduler.packing.compiled import compiled, inlined, outlined, within
from scheduler.packing.placing import in_tie, left_within, put, remove, tied_elsewhere

FAR: Final = 1 << 50
"""Added to what a place leaves over and to its priority, where a task had rather be elsewhere."""


@inlined
def falls_short(have: Ints, need: Ints) -> bool:
    """Whether there is less of something than is needed."""
    found = False
    for i in range(len(need)):
        found = found or have[i] < need[i]
    return bool(found)


@within
def roomy(cluster: Cluster, demand: Demand, plan: Plan, task: int) -> Bytes:
    """Return the agents in whose zones there is room for all that must be in one zone with a task.

    As far as totals of CPUs, memory, disk, ports and cores go; all agents, if that is so in no zone. Empty, if
    the task is free, or bound to a zone already.
    """
    found = np.zeros(0, np.uint8)
    for t in demand.tie[task]:
        if t == NOWHERE or plan.tied[t, 0] > 0:
            continue
        if len(found) == 0:
            found = np.ones(len(plan.first), np.uint8)
        need = np.zeros(OWN_SLOTS + 1, np.int64)
        for other in range(len(demand.own)):
            if plan.where[other] == NOWHERE and in_tie(demand, other, t):
                for i in range(OWN_SLOTS):
                    need[i] += demand.own[other, i]
                need[OWN_SLOTS] += demand.task[other, N_CORES]
        have = np.zeros((len(plan.first), OWN_SLOTS + 1), np.int64)
        for here in cluster.places:
            zone = cluster.zone[t, here[AGENT]]
            if zone != NOWHERE and here[NODE] == NOWHERE:
                for i in range(OWN_SLOTS):
                    have[zone, i] += plan.free[here[OWN] + i]
            elif zone != NOWHERE and here[L3] == NOWHERE:
                have[zone, OWN_SLOTS] += plan.free[here[CORES]]
        for agent in range(len(found)):
            zone = cluster.zone[t, agent]
            if zone == NOWHERE or falls_short(have[zone], need):
                found[agent] = 0
    for agent in range(len(found)):
        if found[agent] > 0:
            return found
    return np.zeros(0, np.uint8)


@within
def choose_place(cluster: Cluster, demand: Demand, plan: Plan, task: int, rule: int) -> int:
    """Return the place where a task fits best by the rule; NOWHERE, if it fits nowhere."""
    places, admits, rank, tasks = cluster.places, cluster.admits, cluster.rank, demand.task
    needs = np.empty((plan.slot.shape[1], 2), np.int64)
    room = roomy(cluster, demand, plan, task)
    best, best_left, best_rank = NOWHERE, np.inf, 0
    n_cores, admission = tasks[task, N_CORES], tasks[task, ADMISSION]
    for place in range(tasks[task, PLACE], tasks[task, PLACE_END]):
        if n_cores > 0 and plan.free[places[place, CORES]] < n_cores:
            continue  # most of the places, where a cluster is nearly full
        agent = places[place, AGENT]
        grade = admits[admission, agent]
        if grade == NO or tied_elsewhere(cluster, plan, task, agent):
            continue
        if len(room) > 0 and room[agent] == 0:
            continue
        far = FAR if grade == RATHER_ELSEWHERE else 0
        humbler = rule == HUMBLEST and rank[agent] + far < best_rank
        if rule == HUMBLEST and best != NOWHERE and rank[agent] + far > best_rank:
            continue
        most = np.inf if humbler or far > 0 else best_left
        left = left_within(cluster, demand, plan.free, task, place, needs, most)
        left += far
        if left < best_left or (humbler and left < np.inf):
            best, best_left, best_rank = place, left, rank[agent] + far
            if rule == FIRST:
                break
    return best


@outlined
def insert(cluster: Cluster, demand: Demand, plan: Plan, task: int, rule: int) -> bool:
    """Put a task where the rule says; False if it fits nowhere."""
    place = choose_place(cluster, demand, plan, task, rule)
    if place == NOWHERE:
        return False
    if put(cluster, demand, plan, task, place):
        return True
    # several wants clash there: take the first place where they do not
    for other in range(demand.task[task, PLACE], demand.task[task, PLACE_END]):
        agent = cluster.places[other, AGENT]
        if (
            cluster.admits[demand.task[task, ADMISSION], agent] != NO
            and not tied_elsewhere(cluster, plan, task, agent)
            and put(cluster, demand, plan, task, other)
        ):
            return True
    return False


@compiled
def insert_all(cluster: Cluster, demand: Demand, plan: Plan, order: Ints, rule: int) -> int:
    """Insert tasks in order; return how many fitted nowhere and were left out."""
    missed = 0
    for task in order:
        if not insert(cluster, demand, plan, task, rule):
            missed += 1
    return missed


@compiled
def fits_alone(cluster: Cluster, demand: Demand, plan: Plan, task: int) -> bool:
    """Whether there is a place for a task beside what the plan has placed."""
    for place in range(demand.task[task, PLACE], demand.task[task, PLACE_END]):
        agent = cluster.places[place, AGENT]
        if cluster.admits[demand.task[task, ADMISSION], agent] != NO and put(
            cluster, demand, plan, task, place
        ):
            remove(cluster, plan, task)
            return True
    return False


@compiled
def mark_fits(cluster: Cluster, demand: Demand, plan: Plan, fits: Bytes) -> None:
    """Mark in (tasks, agents) on which agents each task fits beside what the plan has placed."""
    for task in range(len(demand.own)):
        for place in range(demand.task[task, PLACE], demand.task[task, PLACE_END]):
            agent = cluster.places[place, AGENT]
            if fits[task, agent] or cluster.admits[demand.task[task, ADMISSION], agent] == NO:
                continue
            if put(cluster, demand, plan, task, place):
                remove(cluster, plan, task)
                fits[task, agent] = 1
