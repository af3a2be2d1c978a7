"""Which agents an allocation run has to look at.

What was not granted in one run is not granted in the next either, unless something has changed: an agent has
more free, a filter has ended, or frameworks want something else. With thousands of agents nothing else is
affordable every second.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable


class Attention:
    """Collects what has changed since the last run; at first everything has."""

    def __init__(self) -> None:
        self._everywhere = True
        self._agents: dict[str, None] = {}
        self._ends: list[tuple[float, str]] = []
        """When filters end, and on which agents; a heap."""

    def everywhere(self) -> None:
        """Look at all agents: frameworks want something else."""
        self._everywhere = True

    def at(self, agent_id: str) -> None:
        """Look at an agent: it has more free."""
        self._agents[agent_id] = None

    def later(self, until: float, agent_id: str) -> None:
        """Look at an agent when a filter has ended (monotonic time, s)."""
        heapq.heappush(self._ends, (until, agent_id))

    def forget(self, remaining: Iterable[tuple[float, str]]) -> None:
        """Keep only these ends of filters."""
        self._ends = list(remaining)
        heapq.heapify(self._ends)

    def __len__(self) -> int:
        """Return how many ends of filters are kept."""
        return len(self._ends)

    def settled(self, now: float) -> bool:
        """Whether there is nothing to look at."""
        due = bool(self._ends) and self._ends[0][0] <= now
        return not (self._everywhere or self._agents or due)

    def wanted(self, now: float) -> Collection[str] | None:
        """Return the agents to look at; None: all of them."""
        while self._ends and self._ends[0][0] <= now:
            self.at(heapq.heappop(self._ends)[1])
        return None if self._everywhere else self._agents.keys()

    def done(self) -> None:
        """Note that a run has looked at them."""
        self._everywhere = False
        self._agents.clear()
