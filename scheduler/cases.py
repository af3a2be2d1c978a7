"""One that waits for its place, and what is known of its case."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scheduler.claims import Claim, why_not_again
from scheduler.errors import NeverFitsError
from scheduler.offers import OfferPool
from scheduler.packing import Explanation, Shortage, Verdict
from scheduler.placement import Running
from scheduler.places import Agents
from scheduler.reservations import Waiting

LEVELS: Final = 4
"""While nothing changes, a graph is searched for so often again, with twice the steps each time."""
EXPLAIN_SECONDS: Final = 5.0
"""Between two explanations of the same case, however often it is tried in vain."""
NO_OFFERS: Final = 3.0
"""Seconds without offers after which it is told what the whole cluster lacks: they may be on their way."""


@dataclass(slots=True, eq=False)
class Case:
    """One that waits."""

    waiting: Waiting
    claim: asyncio.Future[Claim]
    since: float = 0.0
    """Since when it waits; time of the event loop's clock."""
    shortage: Shortage | None = None
    agents: Agents = ()
    """What the shortage is of; none: no offers have come yet."""
    explanation: Explanation | None = None
    explained: Shortage | None = None
    """What the explanation is of: it holds until there is another, even if it is not of the last attempt."""
    explain_at: float = 0.0
    """When it may be explained again; time of the event loop's clock."""
    limited: str = ""
    """What its queue may hold, where it waits for that."""
    level: int = 0
    """How often it was searched for again while nothing changed."""

    @property
    def searchable(self) -> bool:
        """Whether searching on may help."""
        found = self.explanation
        open_ = found is not None and found.verdict is Verdict.NOT_FOUND
        return open_ and self.level < LEVELS and not self.claim.done()

    def explainable(self, now: float) -> bool:
        """Whether there is something new to explain."""
        due = self.explain_at if self.agents else max(self.explain_at, self.since + NO_OFFERS)
        return self.shortage is not self.explained and now >= due

    @property
    def claimed(self) -> Claim | None:
        """What it got, if it has a place."""
        done = self.claim.done() and not self.claim.cancelled() and self.claim.exception() is None
        return self.claim.result() if done else None

    def refuse(self, why: str) -> None:
        """Let it wait no longer, because it waits in vain."""
        graph_id = self.waiting.graph_id
        self.claim.set_exception(
            NeverFitsError(f"graph {graph_id} can never run on this cluster: {why}")
        )

    def why(self, pool: OfferPool, running: Sequence[tuple[str, Running]]) -> str:
        """Say why it still waits, for people.

        Parameters
        ----------
        running
            What runs, with the ids of the graphs.
        """
        if self.limited:
            return self.limited
        if self.explanation is not None:
            return str(self.explanation)
        if self.shortage is not None and self.agents:
            return str(self.shortage)
        if self.waiting.fixed:
            fixed, requests = self.waiting.fixed, self.waiting.requests
            return why_not_again(fixed, requests, pool.merged().agents, running)
        if not len(pool):
            return "no offers have come"
        merged = pool.merged()
        if merged.quarantined and not merged.agents:
            return f"every agent is quarantined: {'; '.join(map(str, merged.quarantined[:5]))}"
        return "it was not tried yet"
