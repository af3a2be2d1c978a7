"""Graphs that wait for their place: the shell around :mod:`scheduler.turns`.

Each time something changes (offers, the cluster, who waits), turns are decided off the event loop until there
is nothing to do. One worker does it, and takes a placed graph's offers out of the pool before it goes on, so no
two graphs get the same offer. While nothing changes, it explains why those that wait do not fit, and then
searches on for them, longer each time.

Nobody holds offers for himself while he waits: all who wait share the pool, which gives back what it has held
for long (``Timing.offer_hold``). So two that wait cannot starve each other.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol

from scheduler.claims import Claim, beside_fixed, claimed
from scheduler.closures import Closures
from scheduler.errors import NeverFitsError, NoFitError, SchedulerError
from scheduler.figures import Figures, NoFigures
from scheduler.offers import OfferPool
from scheduler.packing import (
    FIRST_STEPS,
    MORE_STEPS,
    Circumstances,
    Explanation,
    Idle,
    Occupant,
    Shortage,
    Verdict,
    diagnose,
    pack,
    place,
    warm_up,
)
from scheduler.placement import Assignment, Placement, Running
from scheduler.policy import REALTIME, Queue
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot
from scheduler.turns import Agents, Preempt, Reservation, Start, State, Turn, Waiting, decide

logger = logging.getLogger(__name__)

LEVELS: Final = 4
"""While nothing changes, a graph is searched for so often again, with twice the steps each time."""
EXPLAIN_SECONDS: Final = 5.0
"""Between two explanations of the same case, however often it is tried in vain."""
AT_ONCE: Final = 16
"""Agents whose offers are looked at before the loop may do something else: ten milliseconds, if all are new."""
QUICK: Final = 2000
"""Steps of the search for a reservation, and for whose end would make room."""


class Cluster(Protocol):
    """What is known of the whole cluster, whatever is free."""

    def totals(self) -> tuple[object, Sequence[AgentSnapshot]] | None:
        """Return a version and every agent with all that it has; None while that is not certain."""

    def idle(self, offered: Collection[str]) -> Sequence[Idle]:
        """Return what could be free and is not among the agents of these ids, with the reason."""


class Tenants(Protocol):
    """What of ours runs."""

    def occupants(self) -> Sequence[Occupant]:
        """Return everything that holds resources."""

    def running(self) -> Sequence[tuple[str, Running]]:
        """Return every task that holds something, with the id of its graph."""

    def preempt(self, names: Collection[str], cause: str) -> None:
        """Begin to end these occupants."""


@dataclass(slots=True, eq=False)
class _Entry:
    """One that waits, and what is known of its case."""

    waiting: Waiting
    claim: asyncio.Future[Claim]
    since: float = 0.0
    """Since when it waits; time of the event loop's clock."""
    shortage: Shortage | None = None
    agents: Agents = ()
    """What the shortage is of."""
    explanation: Explanation | None = None
    explained: Shortage | None = None
    """What the explanation is of: it holds until there is another, even if it is not of the last attempt."""
    explain_at: float = 0.0
    """When it may be explained again; time of the event loop's clock."""
    level: int = 0
    """How often it was searched for again while nothing changed."""

    @property
    def searchable(self) -> bool:
        """Whether searching on may help."""
        found = self.explanation
        open_ = found is not None and found.verdict is Verdict.NOT_FOUND
        return open_ and self.level < LEVELS and not self.claim.done()


@dataclass(slots=True)
class LaunchQueue:
    """Graphs that wait for their place.

    Parameters
    ----------
    pool
        The offers that we hold.
    cluster
        Tells what could ever be free.
    tenants
        Tells what of ours runs.
    offers_wanted
        Is called with whether anybody waits, whenever that changes.
    closures
        Agents that take no tasks for a while.
    figures
        Is told of what is tried, and of who waits no longer.
    """

    pool: OfferPool
    cluster: Cluster
    tenants: Tenants
    offers_wanted: Callable[[bool], None]
    closures: Closures = field(default_factory=Closures)
    figures: Figures = field(default_factory=NoFigures)
    _entries: dict[int, _Entry] = field(default_factory=dict)
    _serial: itertools.count[int] = field(default_factory=itertools.count)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all that placing needs is loaded."""
    _poked: asyncio.Event = field(default_factory=asyncio.Event)
    _reservations: Mapping[int, Reservation] = field(default_factory=dict)
    _failed: Mapping[int, object] = field(default_factory=dict)
    _leaving: frozenset[str] = frozenset()

    @property
    def busy(self) -> bool:
        """Whether anybody waits."""
        return bool(self._entries)

    def poke(self) -> None:
        """Say that something changed: offers, or what is known of the cluster."""
        self._poked.set()

    async def place(
        self,
        graph_id: str,
        requests: Mapping[str, TaskRequest],
        *,
        deadline: float,
        priority: int = 0,
        queue: Queue = REALTIME,
        fixed: Mapping[str, Assignment] | None = None,
        stay: float = math.inf,
    ) -> Claim:
        """Wait for a place for all these tasks together.

        Parameters
        ----------
        deadline
            Time of the event loop's clock.
        priority
            Higher comes first in its queue.
        fixed
            For some of the tasks: nothing else will do than these agents, devices and ports.
        stay
            For how many seconds the agents must be there; see :mod:`scheduler.closures`.

        Raises
        ------
        NeverFitsError
            If it is proven that the cluster could never give what they ask for.
        NoFitError
            If they did not fit before the deadline; says why.
        SchedulerError
            What :meth:`withdraw` was given.
        """
        serial = next(self._serial)
        waiting = Waiting(
            graph_id=graph_id,
            serial=serial,
            requests=requests,
            queue=queue,
            priority=priority,
            deadline=deadline,
            fixed=fixed or {},
            stay=stay,
        )
        loop = asyncio.get_running_loop()
        entry = _Entry(waiting, loop.create_future(), since=loop.time())
        self._entries[serial] = entry
        self.offers_wanted(True)
        self.poke()
        outcome = "withdrawn"
        try:
            claim = await self._claim(entry)
            outcome = "placed"
            return claim
        except NeverFitsError:
            outcome = "refused"
            raise
        except NoFitError:
            outcome = "late"
            raise
        finally:
            self.figures.waited(queue.name, outcome, loop.time() - entry.since)
            del self._entries[serial]
            if self._entries:
                self.poke()  # what was kept for it is free for others
            else:
                self.offers_wanted(False)

    async def _claim(self, entry: _Entry) -> Claim:
        try:
            async with asyncio.timeout_at(entry.waiting.deadline):
                return await entry.claim
        except TimeoutError:
            if (claim := _result(entry.claim)) is not None:  # at the last moment
                return claim
            if entry.explanation is None:
                await self._explain(entry)
            raise NoFitError(
                f"graph {entry.waiting.graph_id} did not fit before its deadline: {self._why(entry)}"
            ) from None
        except asyncio.CancelledError:
            if (claim := _result(entry.claim)) is not None:  # nobody will use it
                self.pool.add(claim, asyncio.get_running_loop().time())
            raise

    def withdraw(self, graph_id: str, error: SchedulerError) -> None:
        """Let a graph wait no longer."""
        for entry in self._entries.values():
            if entry.waiting.graph_id == graph_id and not entry.claim.done():
                entry.claim.set_exception(error)

    # ------------------------------------------------------------------ what is told

    def waiting(self) -> dict[str, list[float]]:
        """Return for how long the graphs of each queue wait, seconds."""
        now = asyncio.get_running_loop().time()
        found: dict[str, list[float]] = {}
        for entry in self._entries.values():
            found.setdefault(entry.waiting.queue.name, []).append(now - entry.since)
        return found

    def explain(self, graph_id: str) -> str:
        """Say why a graph still waits, for people; empty when it does not."""
        order = sorted(self._entries.values(), key=lambda entry: entry.waiting.rank)
        for number, entry in enumerate(order):
            if entry.waiting.graph_id == graph_id:
                ahead = f"{number} ahead in the queues; " if number else ""
                return ahead + self._why(entry)
        return ""

    def explanation(self, graph_id: str) -> Explanation | None:
        """Say why a graph still waits, as data; None when it does not, or it was not looked into yet."""
        for entry in self._entries.values():
            if entry.waiting.graph_id == graph_id and entry.explanation is not None:
                return entry.explanation
        return None

    def _why(self, entry: _Entry) -> str:
        if entry.explanation is not None:
            return str(entry.explanation)
        if entry.shortage is not None:
            return str(entry.shortage)
        if entry.waiting.fixed:
            hosts = sorted({assignment.host for assignment in entry.waiting.fixed.values()})
            return f"what it had on {', '.join(hosts)} is not free"
        if not len(self.pool):
            return "no offers have come"
        merged = self.pool.merged()
        if merged.quarantined and not merged.agents:
            return f"every agent is quarantined: {'; '.join(map(str, merged.quarantined[:5]))}"
        return "it was not tried yet"

    # ------------------------------------------------------------------ the worker

    async def work(self) -> None:
        """Try whoever waits, for ever."""
        await asyncio.to_thread(warm_up)
        self.loaded.set()
        while True:
            await self._poked.wait()
            self._poked.clear()
            while await self._turn():
                pass
            while not self._poked.is_set() and await self._improve():
                pass

    async def _turn(self) -> bool:
        """Decide and do one turn; tell whether there may be more to do."""
        while self.pool.merge_some(AT_ONCE):  # noqa: ASYNC110 - nothing is waited for
            await asyncio.sleep(0)
        state = self._state()
        if not state.waiting or not (state.agents or state.capacity):
            return False
        beside = partial(_beside, self.tenants.running())
        turn = await asyncio.to_thread(
            decide, state, self._placing(state, beside), partial(self._quick, beside)
        )
        self._reservations, self._failed = turn.reservations, turn.failed
        self._note(turn)
        match turn.act:
            case Start():
                self._start(turn.act)
            case Preempt(waiting, victims):
                names = {victim.name for victim in victims}
                logger.info("%s makes room for graph %s", sorted(names), waiting.graph_id)
                self._leaving = state.leaving | names
                self.tenants.preempt(names, f"graph {waiting.graph_id} needs its place")
            case None:
                return False
        return not self._poked.is_set()

    def _state(self) -> State:
        totals = self.cluster.totals()
        version, capacity = totals if totals is not None else (None, None)
        occupants = self.tenants.occupants()
        return State(
            waiting=[e.waiting for e in self._entries.values() if not e.claim.done()],
            agents=self.pool.merged().agents,
            capacity=capacity,
            occupants=occupants,
            leaving=self._leaving & {occupant.name for occupant in occupants},
            reservations=self._reservations,
            gained=(self.pool.gained, version, self.closures.version),
            failed=self._failed,
        )

    def _placing(
        self, state: State, beside: Callable[[Waiting], Sequence[Running]]
    ) -> Callable[[Waiting, Agents], Placement | Shortage | None]:
        """Return how graphs are placed in this turn: with the effort that each is worth now."""
        efforts = {serial: (e.level, e.shortage) for serial, e in self._entries.items()}

        def placing(waiting: Waiting, agents: Agents) -> Placement | Shortage | None:
            level, before = efforts[waiting.serial]
            begun = time.monotonic()
            packing = partial(
                pack,
                seed=level,
                iterations=MORE_STEPS << level - 1 if level else FIRST_STEPS,
                capacity=state.capacity,
                start=None if before is None else before.partial,
                running=beside(waiting),
            )
            found = beside_fixed(
                self._open(agents, waiting), waiting.requests, waiting.fixed, packing
            )
            self.figures.packed(_outcome(found), time.monotonic() - begun)
            return found

        return placing

    def _quick(
        self, beside: Callable[[Waiting], Sequence[Running]], waiting: Waiting, agents: Agents
    ) -> Placement | None:
        return place(
            self._open(agents, waiting),
            waiting.requests,
            iterations=QUICK,
            running=beside(waiting),
        )

    def _open(self, agents: Agents, waiting: Waiting) -> Agents:
        return self.closures.open(agents, waiting.stay, time.time())

    def _note(self, turn: Turn) -> None:
        """Remember why those that were tried in vain do not fit."""
        for serial, (shortage, agents) in turn.shortages.items():
            entry = self._entries.get(serial)
            if entry is None or entry.claim.done():  # its time has passed meanwhile
                continue
            if shortage.never:
                # What is free now does not matter then, and without offers it would look like nothing at all.
                self._refuse(entry, shortage.hopeless)
            elif agents:
                entry.shortage, entry.agents = shortage, agents

    def _refuse(self, entry: _Entry, why: str) -> None:
        entry.claim.set_exception(
            NeverFitsError(f"graph {entry.waiting.graph_id} can never run on this cluster: {why}")
        )

    def _start(self, start: Start) -> None:
        entry = self._entries.get(start.waiting.serial)
        if entry is None or entry.claim.done():
            return
        claim = claimed(start.placement, start.agents, self.pool)
        if claim is None:  # an offer was rescinded meanwhile
            self.poke()
        else:
            entry.claim.set_result(claim)

    async def _improve(self) -> bool:
        """Explain one case that is not explained yet, or else search on for one; False if there is none."""
        entries = sorted(self._entries.values(), key=lambda entry: entry.waiting.rank)
        now = asyncio.get_running_loop().time()
        for entry in entries:
            if entry.shortage is not entry.explained and now >= entry.explain_at:
                await self._explain(entry)
                return True
        for entry in entries:
            if entry.searchable:
                entry.level += 1
                self._failed = {s: f for s, f in self._failed.items() if s != entry.waiting.serial}
                await self._turn()
                return True
        return False

    async def _explain(self, entry: _Entry) -> None:
        state, shortage = self._state(), entry.shortage
        if shortage is None:
            return
        offered = {agent.mesos_agent_id for agent in state.agents}
        entry.explained = shortage
        entry.explain_at = asyncio.get_running_loop().time() + EXPLAIN_SECONDS
        closed = self.closures.closed(entry.agents, entry.waiting.stay, time.time())
        around = Circumstances(
            capacity=state.capacity,
            occupants=state.occupants,
            idle=[*closed, *self.cluster.idle(offered)],
            running=_beside(self.tenants.running(), entry.waiting),
        )
        found = await asyncio.to_thread(
            diagnose,
            self._open(entry.agents, entry.waiting),
            entry.waiting.requests,
            shortage,
            around,
        )
        entry.explanation = found
        if found.verdict is Verdict.NEVER and not entry.claim.done():
            self._refuse(entry, found.hopeless)


def _beside(tasks: Sequence[tuple[str, Running]], waiting: Waiting) -> list[Running]:
    """Return what a graph is placed beside: all that runs, its own tasks as its siblings."""
    kept = (Running(waiting.requests[n], a, sibling=True) for n, a in waiting.fixed.items())
    return [
        *kept,
        *(
            replace(task, sibling=True) if graph_id == waiting.graph_id else task
            for graph_id, task in tasks
        ),
    ]


def _outcome(found: Placement | Shortage | None) -> str:
    if isinstance(found, Placement):
        return "placed"
    return "never" if found is not None and found.never else "no_fit"


def _result(claim: asyncio.Future[Claim]) -> Claim | None:
    done = claim.done() and not claim.cancelled() and claim.exception() is None
    return claim.result() if done else None
