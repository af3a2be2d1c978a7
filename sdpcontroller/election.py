"""Which of several controllers acts.

Each takes part in an :class:`Election`; the one that is elected gets a :class:`Leadership`, and acts as long as
:attr:`Leadership.held`. See :mod:`sdpcontroller.store.lease` for why there is never a second one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sdpcontroller.errors import ControllerError, StoreError
from sdpcontroller.store import Store
from sdpcontroller.store.lease import Candidate, Lease, Refused

logger = logging.getLogger(__name__)

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that no one sets, and that goes on while the machine sleeps."""

_SOON: Final = 0.01
"""Seconds between two looks at the least."""


def _now() -> float:
    return time.clock_gettime(_CLOCK)


class LeadershipLostError(ControllerError):
    """Another controller leads: this one must end at once, and touch nothing."""


@dataclass(frozen=True, kw_only=True)
class ElectionTiming:
    """All in seconds."""

    lease: float = 2.5
    """How long a leader that is silent is waited for."""
    margin: float = 0.5
    """How much earlier than that it stops acting."""
    renewal: float = 0.4
    """Between two renewals."""
    poll: float = 0.2
    """Between two looks of a candidate."""
    doubt: float = 1.0
    """How long a leader is silent when a candidate reads again what it will need."""
    refresh: float = 30.0
    """Between two such readings while the leader is well: one that ends in order is not silent before."""

    @classmethod
    def of(cls, lease: float) -> ElectionTiming:
        """Return the timing for a lease of that many seconds: the rest in proportion."""
        usual = cls()
        share = lease / usual.lease
        return cls(
            lease=lease,
            margin=share * usual.margin,
            renewal=share * usual.renewal,
            poll=min(share, 1.0) * usual.poll,
            doubt=share * usual.doubt,
            refresh=usual.refresh,
        )


class Leadership:
    """The right to act; ends by :meth:`resign`, or when another takes it."""

    def __init__(self, lease: Lease, timing: ElectionTiming, began: float) -> None:
        self._lease = lease
        self._timing = timing
        self._until = began + timing.lease - timing.margin
        self.candidates: list[str] = []
        """Names of the controllers that stand by."""
        self.strangers: list[str] = []
        """Names of those of them that would lead on other terms."""

    @property
    def held(self) -> bool:
        """Whether this controller may act now.

        False for a while when the database does not answer; nobody else acts then.
        """
        return _now() < self._until

    async def keep(self, changed: Callable[[], None] = lambda: None) -> None:
        """Renew the lease for ever.

        Parameters
        ----------
        changed
            Is called when :attr:`candidates` changed.

        Raises
        ------
        LeadershipLostError
            When another controller leads.
        """
        while True:
            began = _now()
            try:
                candidates = await self._lease.renew()
            except StoreError as exc:
                logger.warning("%s", exc)
            else:
                if candidates is None:
                    self._until = 0.0
                    raise LeadershipLostError("another controller has taken over")
                self._until = began + self._timing.lease - self._timing.margin
                if self._news(candidates):
                    changed()
            await asyncio.sleep(self._timing.renewal)

    def _news(self, candidates: Sequence[Candidate]) -> bool:
        """Take note of who stands by, and tell whether anything is new."""
        known = self.candidates, self.strangers
        self.candidates = [candidate.name for candidate in candidates]
        self.strangers = [
            candidate.name
            for candidate in candidates
            if candidate.terms and candidate.terms != self._lease.terms
        ]
        if self.candidates != known[0]:
            logger.info("standing by: %s", ", ".join(self.candidates) or "nobody")
        if self.strangers != known[1] and self.strangers:
            logger.warning("on other terms than this controller: %s", ", ".join(self.strangers))
        return (self.candidates, self.strangers) != known

    async def resign(self) -> None:
        """Stop acting, and let another controller lead without waiting."""
        self._until = 0.0
        try:
            await self._lease.resign()
        except StoreError as exc:  # it ends by itself
            logger.warning("%s", exc)


class Election:
    """One controller's candidacy.

    Parameters
    ----------
    store
        The database that all candidates share.
    name
        Of this controller, for people: ``host:port``.
    """

    def __init__(self, store: Store, name: str, timing: ElectionTiming | None = None) -> None:
        self._timing = timing or ElectionTiming()
        self._lease = Lease(store, name, seconds=self._timing.lease)
        self.leader = ""
        """Name of the controller that leads, as far as is known; empty when none was seen."""

    async def look(self) -> None:
        """See who leads, before this controller can: a leader's silence counts from now.

        Raises
        ------
        StoreError
            If the database does not answer.
        """
        await self._lease.look()

    def lead_on(self, terms: str) -> None:
        """Say on which terms this controller would lead: who leads is told of others than its own."""
        self._lease.lead_on(terms)

    async def win(self, prepare: Callable[[], Awaitable[None]] | None = None) -> Leadership:
        """Wait until this controller leads; a database that is away is waited for.

        Parameters
        ----------
        prepare
            Is awaited beside, each time that the leader falls silent, and now and then: what can be done before
            this controller leads. It must change nothing, and may be cancelled.
        """
        preparation = _Preparation(prepare, self._timing)
        try:
            while True:
                began = _now()
                try:
                    answer = await self._lease.take()
                except StoreError as exc:
                    logger.warning("standing by: %s", exc)
                    await asyncio.sleep(self._timing.renewal)
                    continue
                if not isinstance(answer, Refused):
                    logger.info("this controller leads, fencing number %s", answer.fence.split()[0])
                    return Leadership(self._lease, self._timing, began)
                if answer.leader != self.leader:
                    self.leader = answer.leader
                    logger.info("standing by: the controller at %s leads", self.leader)
                preparation.look(self._lease.silence)
                await asyncio.sleep(self._pause())
        finally:
            preparation.end()

    def _pause(self) -> float:
        """Return the seconds until the next look: at the latest when the lease may be taken."""
        left = self._timing.lease - self._lease.silence
        return min(self._timing.poll, max(left, _SOON))


class _Preparation:
    """What a candidate does beside, so that little is left to do when it leads."""

    def __init__(
        self, prepare: Callable[[], Awaitable[None]] | None, timing: ElectionTiming
    ) -> None:
        self._prepare = prepare
        self._timing = timing
        self._task: asyncio.Task[None] | None = None
        # A candidate has read everything after it first saw the leader, and before this.
        self._doubted = True
        self._at = _now()

    def look(self, silence: float) -> None:
        """Prepare, if it is time to: `silence` is that of the leader, in seconds."""
        doubt = silence >= self._timing.doubt
        due = (doubt and not self._doubted) or _now() - self._at >= self._timing.refresh
        self._doubted = doubt and (self._doubted or due)
        if due and (self._task is None or self._task.done()):
            self._at = _now()
            self._task = asyncio.create_task(self._try())

    async def _try(self) -> None:
        """Prepare, as far as that is possible: whoever leads meets the same trouble, and tells it."""
        if self._prepare is None:
            return
        try:
            await self._prepare()
        except StoreError as exc:
            logger.warning("standing by: %s", exc)

    def end(self) -> None:
        """Prepare no more."""
        if self._task is not None:
            self._task.cancel()
