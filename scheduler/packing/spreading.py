"""Compiled: the shapes of agents, spread over all agents that have them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scheduler.packing.arrays import (
    AGENT,
    CORES,
    DEVICE,
    DEVICE_END,
    NODE,
    NOWHERE,
    OWN,
    PLACE_COLUMNS,
    Ints,
)
from scheduler.packing.compiled import compiled, inlined


class Catalogue(NamedTuple):
    """Shapes, one behind the other; of each, numbers count from its agent's first, as in `Shape`."""

    first: Ints
    """(shapes + 1, 4) where the nodes, devices, slots and counted scalars of each begin."""
    nodes: Ints
    agent: Ints
    device: Ints
    kinds: Ints
    blank: Ints
    named: Ints


class Spread(NamedTuple):
    """Agents, one behind the other; the arrays are as in `Cluster`."""

    nodes: Ints
    agents: Ints
    device: Ints
    part: Ints
    """(devices,) number of each in the catalogue."""
    kinds: Ints
    """(slots,)"""
    blank: Ints
    """(slots,) what is free before anything is read."""
    named: Ints
    """(scalars,) the slots of the scalar resources that are counted."""


@inlined
def settle(row: Ints, blank: Ints, agent: int, at: Ints) -> None:
    """Write the row of a place of an agent whose nodes, devices and slots begin at `at`."""
    for i in range(PLACE_COLUMNS):
        row[i] = blank[i]
    row[AGENT] = agent
    row[NODE] += at[0]
    row[DEVICE] += at[1]
    row[DEVICE_END] += at[1]
    row[OWN] += at[2]
    row[CORES] += at[2]


@compiled
def spread(catalogue: Catalogue, which: Ints) -> Spread:
    """Lay out agents, of which `which` tells the shape."""
    first, rows = catalogue.first, np.zeros(4, np.int64)
    for shape in which:
        for i in range(4):
            rows[i] += first[shape + 1, i] - first[shape, i]
    nodes = np.empty((rows[0], PLACE_COLUMNS), np.int64)
    agents = np.empty((len(which), PLACE_COLUMNS), np.int64)
    device, part = np.empty((rows[1], 2), np.int64), np.empty(rows[1], np.int64)
    kinds, blank = np.empty(rows[2], np.int64), np.empty(rows[2], np.int64)
    named = np.empty(rows[3], np.int64)
    at = np.zeros(4, np.int64)
    for agent in range(len(which)):
        begin, end = first[which[agent]], first[which[agent] + 1]
        for i in range(end[0] - begin[0]):
            settle(nodes[at[0] + i], catalogue.nodes[begin[0] + i], agent, at)
        settle(agents[agent], catalogue.agent[which[agent]], agent, at)
        agents[agent, NODE] = agents[agent, CORES] = NOWHERE
        for i in range(end[1] - begin[1]):
            slot, node = catalogue.device[begin[1] + i, 0], catalogue.device[begin[1] + i, 1]
            device[at[1] + i, 0] = at[2] + slot
            device[at[1] + i, 1] = NOWHERE if node == NOWHERE else at[0] + node
            part[at[1] + i] = begin[1] + i
        for i in range(end[2] - begin[2]):
            kinds[at[2] + i] = catalogue.kinds[begin[2] + i]
            blank[at[2] + i] = catalogue.blank[begin[2] + i]
        for i in range(end[3] - begin[3]):
            named[at[3] + i] = at[2] + catalogue.named[begin[3] + i]
        for i in range(4):
            at[i] += end[i] - begin[i]
    return Spread(nodes, agents, device, part, kinds, blank, named)
