"""Cores of a NUMA node: physical ones, those that share a cache, and which of them tasks get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from scheduler.quantities import Ranges
from scheduler.requests import MAX_SHARE, TaskRequest
from scheduler.topology import Topology


def physical_cores(topology: Topology, node: int) -> list[frozenset[int]]:
    """Return the physical cores of a node; a logical CPU of which no siblings are known is one by itself."""
    cpus = set(topology.numa[node].cores)
    found = [group for group in map(frozenset, topology.smt) if not group.isdisjoint(cpus)]
    alone = sorted(cpus.difference(*found))
    return [*found, *(frozenset((cpu,)) for cpu in alone)]


def whole_ones(physical: Sequence[frozenset[int]]) -> tuple[list[frozenset[int]], int]:
    """Return those physical cores that count as whole, and how many logical CPUs each has.

    They are those with most siblings: of the others the agent keeps a sibling to itself, or they are of a
    lesser kind.
    """
    width = max(map(len, physical), default=1)
    return [core for core in physical if len(core) == width], width


def caches(topology: Topology, node: int) -> list[Ranges]:
    """Return the cores of each L3 cache of a node; all of them, where it has but one."""
    cpus = topology.numa[node].cores
    return [found for group in topology.l3 if (found := group & cpus)] or [cpus]


def wholly_free(whole: Sequence[frozenset[int]], free: Ranges) -> list[frozenset[int]]:
    """Return the whole cores of which no sibling is taken."""
    cpus = set(free)
    return [core for core in whole if core <= cpus]


@dataclass(frozen=True, slots=True)
class CoreDemand:
    """What one task needs of a node's cores."""

    task: str
    request: TaskRequest
    cache: int | None
    """Its L3 cache, if it asks for one."""


@dataclass(frozen=True, slots=True)
class Granted:
    """Cores of one task."""

    cores: tuple[int, ...]
    """In the order of the names asked for."""
    held: tuple[int, ...]


def grant(
    topology: Topology, node: int, free: Ranges, demands: Sequence[CoreDemand]
) -> dict[str, Granted]:
    """Choose cores of a node for all tasks that are placed there, by name.

    Cores of one cache are given first, and whole ones before others; so that what the amounts allow is there
    for each. Within that, physical cores and caches are filled up before others are begun.
    """
    if not topology.smt and not topology.l3:  # then all cores are alike
        return _grant_alike(free, demands, len(topology.numa[node].cores))
    return _Chooser(topology, node, free).grant_all(demands)


def n_held(request: TaskRequest, width: int, node_cores: int) -> int:
    """Return how many logical CPUs a task holds beside those that it names."""
    named = len(request.cores)
    if not request.whole_cores and not request.numa_share:
        return 0
    taken = named * width if request.whole_cores else named
    return max(taken, -(-node_cores * request.numa_share // MAX_SHARE)) - named


def _grant_alike(
    free: Ranges, demands: Sequence[CoreDemand], node_cores: int
) -> dict[str, Granted]:
    granted: dict[str, Granted] = {}
    cpus, first = tuple(free), 0
    for demand in demands:
        middle = first + len(demand.request.cores)
        end = middle + n_held(demand.request, 1, node_cores)
        granted[demand.task] = Granted(cpus[first:middle], cpus[middle:end])
        first = end
    return granted


class _Chooser:
    """The cores of one node while they are given away."""

    def __init__(self, topology: Topology, node: int, free: Ranges) -> None:
        self.node_cores = len(topology.numa[node].cores)
        self.free = set(free & topology.numa[node].cores)
        self.physical = physical_cores(topology, node)
        self.whole, self.width = whole_ones(self.physical)
        self.caches = [frozenset(cache) for cache in caches(topology, node)]
        self.cached = frozenset().union(*self.caches)

    def grant_all(self, demands: Sequence[CoreDemand]) -> dict[str, Granted]:
        """Give every task its cores: first those that it names, the pickiest task first, then the rest."""

        def turn(demand: CoreDemand) -> tuple[bool, bool]:
            return demand.cache is None, not demand.request.whole_cores

        named = {d.task: self._named(d) for d in sorted(demands, key=turn)}
        granted: dict[str, Granted] = {}
        for demand in demands:  # the rest of the shares comes last: any core will do
            firsts, siblings = named[demand.task]
            rest = n_held(demand.request, self.width, self.node_cores) - len(siblings)
            more = self._best(rest, self._open()) if rest else set()
            self.free -= more
            granted[demand.task] = Granted(firsts, tuple(sorted((*siblings, *more))))
        return granted

    def _named(self, demand: CoreDemand) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Take the cores that a task names, and the siblings of whole ones."""
        count = len(demand.request.cores)
        if demand.request.whole_cores:
            taken = self._take_whole(count, demand.cache)
            firsts = sorted(min(core) for core in taken)
            return tuple(firsts), tuple(sorted(set().union(*taken) - set(firsts)))
        inside = self._open() if demand.cache is None else [self.caches[demand.cache]]
        chosen = self._best(count, inside)
        self.free -= chosen
        return tuple(sorted(chosen)), ()

    def _open(self) -> list[frozenset[int]]:
        """Return the caches in the order in which they are filled: the fullest first."""
        others = frozenset(self.free - self.cached)
        found = [*self.caches, others] if others else self.caches
        if len(found) == 1:
            return found
        return sorted(found, key=lambda cache: (len(cache & self.free), min(cache)))

    def _take_whole(self, count: int, cache: int | None) -> list[frozenset[int]]:
        left = [core for core in self.whole if core <= self.free]
        if cache is not None:
            left = [core for core in left if core <= self.caches[cache]]
        else:
            order = {cpu: n for n, group in enumerate(self._fitting(count)) for cpu in group}
            left.sort(key=lambda core: (order.get(min(core), math.inf), min(core)))
        taken = left[:count]
        self.free -= set().union(*taken)
        return taken

    def _fitting(self, count: int) -> list[frozenset[int]]:
        """Return the caches, first the fullest one that has so many whole cores, then the emptiest."""
        whole = [
            (sum(core <= self.free and core <= cache for core in self.whole), n, cache)
            for n, cache in enumerate(self._open())
        ]
        enough = [entry for entry in whole if entry[0] >= count]
        short = sorted((e for e in whole if e[0] < count), key=lambda e: (-e[0], e[1]))
        return [cache for _, _, cache in (*enough, *short)]

    def _best(self, count: int, inside: Sequence[frozenset[int]]) -> set[int]:
        """Choose so many free logical CPUs: of one cache if it has them, else of several, most of one first.

        Of the caches that have them, it is the one where fewest physical cores are broken, then the fullest.
        """
        chosen: set[int] = set()
        while len(chosen) < count:
            missing = count - len(chosen)
            left = [(cache & self.free) - chosen for cache in inside]
            enough = [self._fill(missing, cpus) for cpus in left if len(cpus) >= missing]
            if len(enough) == 1:
                chosen |= enough[0]
            elif enough:
                chosen |= min(enough, key=self._broken)
            else:
                chosen |= self._fill(missing, max(left, key=len))
        return chosen

    def _broken(self, chosen: AbstractSet[int]) -> int:
        """Count the physical cores that are free now and would be taken in part."""
        return sum(
            core <= self.free and 0 < len(core & chosen) < len(core) for core in self.physical
        )

    def _fill(self, count: int, cpus: frozenset[int]) -> set[int]:
        """Choose up to so many of these: physical cores that are filled up by it, before one that is not."""
        pieces = [piece for core in self.physical if (piece := core & cpus)]
        pieces.sort(key=lambda piece: (-len(piece), min(piece)))
        chosen: set[int] = set()
        too_large: list[frozenset[int]] = []
        for piece in pieces:
            if len(piece) <= count - len(chosen):
                chosen |= piece
            else:
                too_large.append(piece)
        if len(chosen) < count and too_large:
            smallest = min(too_large, key=lambda piece: (len(piece), min(piece)))
            chosen.update(sorted(smallest)[: count - len(chosen)])
        return chosen
