"""Compiled: one task after the other, each where a rule says."""

from __future__ import annotations

import numpy as np

from scheduler.packing.arrays import (
    FIRST,
    HUMBLEST,
    NOWHERE,
    OWN_SLOTS,
    Cluster,
    Demand,
    Ints,
    Plan,
)
from scheduler.packing.compiled import compiled
from scheduler.packing.placing import own_needs, place, tightest_device


@compiled
def choose_place(
    cluster: Cluster, demand: Demand, free: Ints, task: int, rule: int
) -> tuple[int, int]:
    """Return the agent and node where a task fits best by the rule; NOWHERE, if it fits nowhere.

    Wants are looked at one by one; two that only together are too much are found out by :func:`place`.
    """
    own_slot, nodes, node_slot = cluster.own, cluster.nodes, cluster.node_slot
    devices, device, serves = cluster.devices, cluster.device, cluster.serves
    weight, rank, volume_slot = cluster.weight, cluster.rank, cluster.volume_slot
    own, volume = demand.own[task], demand.volume[demand.volumes[task] : demand.volumes[task + 1]]
    want = demand.want[demand.wants[task] : demand.wants[task + 1]]
    cores, pinned, admission = demand.task[task]
    admits = cluster.admits[admission]
    needs = np.empty((OWN_SLOTS + 2 + len(volume), 2), np.int64)
    best_agent, best_node, best_left, best_rank = NOWHERE, NOWHERE, np.inf, 0
    for agent in range(len(own_slot)):
        if admits[agent] == 0 or (
            rule == HUMBLEST and best_left < np.inf and rank[agent] > best_rank
        ):
            continue
        begin, end = devices[agent], devices[agent + 1]
        for node in (
            range(nodes[agent], nodes[agent + 1]) if pinned else range(NOWHERE, NOWHERE + 1)
        ):
            core_slot = node_slot[node] if pinned else NOWHERE
            n = own_needs(own, cores, volume, own_slot[agent], core_slot, volume_slot[agent], needs)
            left = 0.0 if n != NOWHERE else np.inf
            for i in range(n):
                rest = free[needs[i, 0]] - needs[i, 1]
                left += rest * weight[needs[i, 0]] if rest >= 0 else np.inf
            for w in range(len(want)):
                if left == np.inf:
                    break
                left += tightest_device(
                    device[begin:end], serves[begin:end], weight, free, want[w], node
                )[1]
            humbler = rule == HUMBLEST and left < np.inf and rank[agent] < best_rank
            if left < best_left or humbler:
                best_agent, best_node, best_left, best_rank = agent, node, left, rank[agent]
                if rule == FIRST:
                    return best_agent, best_node
    return best_agent, best_node


@compiled
def insert(cluster: Cluster, demand: Demand, plan: Plan, task: int, rule: int) -> bool:
    """Place a task where the rule says; False if it fits nowhere."""
    agent, node = choose_place(cluster, demand, plan.free, task, rule)
    if agent == NOWHERE:
        return False
    if place(cluster, demand, plan, task, agent, node):
        return True
    # several wants clash there: take the first place where they do not
    for other in range(len(cluster.own)):
        if cluster.admits[demand.task[task, 2], other] == 0:
            continue
        begin, end = cluster.nodes[other], cluster.nodes[other + 1]
        if demand.task[task, 1] == 0:
            begin, end = NOWHERE, NOWHERE + 1
        for node in range(begin, end):
            if place(cluster, demand, plan, task, other, node):
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
