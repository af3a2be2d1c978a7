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
import contextlib
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

from scheduler.begun import Begun
from scheduler.cases import EXPLAIN_SECONDS, Case
from scheduler.claims import Claim, claimed
from scheduler.closures import Closures
from scheduler.errors import NeverFitsError, NoFitError, SchedulerError
from scheduler.figures import Figures, NoFigures
from scheduler.limits import Held, over
from scheduler.offers import OfferPool
from scheduler.packing import Explanation, Idle, Verdict, warm_up
from scheduler.packing.explanation import Withheld
from scheduler.packing.shortage import listed
from scheduler.placement import Assignment, Running
from scheduler.places import reserved_for_others
from scheduler.placing import Effort, Placing
from scheduler.policy import REALTIME, Queue
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.reservations import Reservation, State, Waiting, kept_for_others, misplaced
from scheduler.scene import Holder, Scene
from scheduler.topology import AgentSnapshot
from scheduler.turns import Preempt, Turn

logger = logging.getLogger(__name__)

RETURN_SECONDS: Final = 2.0
"""For which nobody else is ended to make room, once somebody has: Mesos offers what he had within its
allocation interval, a second."""
AT_ONCE: Final = 16
"""Agents whose offers are looked at before the loop may do something else: ten milliseconds, if all are new."""


class Cluster(Protocol):
    """What is known of the whole cluster, whatever is free."""

    @property
    def roles(self) -> Sequence[str]:
        """Ours at Mesos."""

    def away(self) -> Collection[str]:
        """Return the ids of agents that take no tasks now, whatever ends there."""

    def totals(self) -> tuple[object, Sequence[AgentSnapshot]] | None:
        """Return a version and every agent with all that it has; None while that is not certain."""

    def fenced(self) -> Mapping[str, Mapping[str, Resources]]:
        """Return what Mesos reserves on agents, by agent id and role."""

    def idle(self, offered: Collection[str], stay: float = 0.0) -> Sequence[Idle]:
        """Return what could be free for so many seconds and is not among the agents of these ids, and why."""


class Tenants(Protocol):
    """What of ours runs."""

    def holders(self) -> Sequence[Holder]:
        """Return everything that holds resources."""

    def limited(self) -> Sequence[tuple[str, Sequence[Resources]]]:
        """Return what tasks of queues that have a limit draw, with the names of the queues."""

    def running(self) -> Sequence[tuple[str, Running]]:
        """Return every task that holds something, with the id of its graph."""

    def preempt(self, names: Collection[str], by: Waiting) -> None:
        """Begin to end these occupants for the sake of a graph that waits."""


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
        Is called with whether anybody waits, whenever that or :attr:`roles_wanted` changes.
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
    _cases: dict[int, Case] = field(default_factory=dict)
    _roles: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """How many wait that are limited to these roles; none: that are not."""
    _serial: itertools.count[int] = field(default_factory=itertools.count)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all that placing needs is loaded."""
    _poked: asyncio.Event = field(default_factory=asyncio.Event)
    _reservations: Mapping[int, Reservation] = field(default_factory=dict)
    _failed: Mapping[int, object] = field(default_factory=dict)
    _leaving: frozenset[str] = frozenset()
    _returning_until: float = 0.0
    """Until when what the last of these had may not be offered yet; time of the event loop's clock."""
    _begun: dict[int, Begun] = field(default_factory=dict)
    """What has its place and is not known to hold it yet: its records are being written. By serial."""
    _explaining: set[str] = field(default_factory=set)
    """Graphs of which a case is explained at its deadline."""

    @property
    def busy(self) -> bool:
        """Whether anybody waits."""
        return bool(self._cases)

    @property
    def roles_wanted(self) -> frozenset[str]:
        """The roles in which offers are of use to those who wait; none: in all of ours."""
        limits = [roles for roles, count in self._roles.items() if count]
        return frozenset().union(*limits) if all(limits) else frozenset()

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
        holder: str = "",
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
        holder
            The occupant that they will be among (:meth:`Tenants.holders`); the graph, if nothing is said.

        Raises
        ------
        NeverFitsError
            If it is proven that the cluster could never give what they ask for, or the queue may not hold it.
        NoFitError
            If they did not fit before the deadline; says why.
        SchedulerError
            What :meth:`withdraw` was given.
        """
        if why := over(queue, Held(), Held.asked(requests.values())):
            raise NeverFitsError(f"graph {graph_id} can never run: {why}")
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
            holder=holder or graph_id,
        )
        loop = asyncio.get_running_loop()
        case = Case(waiting, loop.create_future(), since=loop.time())
        with self._waits(case):
            return await self._claim(case)

    @contextlib.contextmanager
    def _waits(self, case: Case) -> Iterator[None]:
        """Keep it among those that wait, and tell how it ended."""
        self._cases[case.waiting.serial] = case
        self._roles[case.waiting.queue.roles] += 1
        self.offers_wanted(True)
        self.poke()
        outcome = "withdrawn"
        try:
            yield
            outcome = "placed"
        except NeverFitsError:
            outcome = "refused"
            raise
        except NoFitError:
            outcome = "late"
            raise
        finally:
            seconds = asyncio.get_running_loop().time() - case.since
            self.figures.waited(case.waiting.queue.name, outcome, seconds)
            roles = self.roles_wanted
            del self._cases[case.waiting.serial]
            self._roles[case.waiting.queue.roles] -= 1
            if not self._cases:
                self.offers_wanted(False)
            elif self.roles_wanted != roles:
                self.offers_wanted(True)
            self.poke()  # what was kept for it is free for others

    async def _claim(self, case: Case) -> Claim:
        try:
            loading = await self._until_loaded(case)
            async with asyncio.timeout_at(case.waiting.deadline + loading):
                return await case.claim
        except TimeoutError:
            if (claim := case.claimed) is not None:  # at the last moment
                return claim
            await self._explain_late(case)
            raise NoFitError(
                f"graph {case.waiting.graph_id} did not fit before its deadline: " + self._why(case)
            ) from None
        except asyncio.CancelledError:
            if (claim := case.claimed) is not None:  # nobody will use it
                claim.settled()
                self.pool.add(claim, asyncio.get_running_loop().time())
            raise

    async def _until_loaded(self, case: Case) -> float:
        """Return how long it took until graphs could be tried at all; nobody's deadline counts that."""
        began = asyncio.get_running_loop().time()
        loading: asyncio.Future[Any] = asyncio.ensure_future(self.loaded.wait())
        try:
            await asyncio.wait((loading, case.claim), return_when=asyncio.FIRST_COMPLETED)
        finally:
            loading.cancel()
        return asyncio.get_running_loop().time() - began

    def withdraw(self, graph_id: str, error: SchedulerError) -> None:
        """Let a graph wait no longer."""
        for case in self._cases.values():
            if case.waiting.graph_id == graph_id and not case.claim.done():
                case.claim.set_exception(error)

    def take_misplaced(self) -> list[str]:
        """Return the ids of offers, out of the pool, without which somebody might get the same in his role."""
        if len(self.cluster.roles) < 2:
            return []
        for case in sorted(self._cases.values(), key=lambda case: case.waiting.rank):
            reservation = self._reservations.get(case.waiting.serial)
            if reservation and (found := misplaced(self.pool.merged().agents, reservation)):
                ids = [offer_id for place in found for offer_id in place.offer_ids]
                self.pool.take(ids)
                return ids
        return []

    # ------------------------------------------------------------------ what is told

    def waiting(self) -> dict[str, list[float]]:
        """Return for how long the graphs of each queue wait, seconds."""
        now = asyncio.get_running_loop().time()
        found: dict[str, list[float]] = {}
        for case in self._cases.values():
            found.setdefault(case.waiting.queue.name, []).append(now - case.since)
        return found

    def explain(self, graph_id: str) -> str:
        """Say why a graph still waits, for people; empty when it does not."""
        order = sorted(self._cases.values(), key=lambda case: case.waiting.rank)
        for number, case in enumerate(order):
            if case.waiting.graph_id == graph_id:
                ahead = f"{number} ahead in the queues; " if number else ""
                return ahead + self._why(case)
        return ""

    def _why(self, case: Case) -> str:
        """Say why it still waits: that its agents are closed matters more than what is free on them."""
        return self._shut_out(case.waiting) or case.why(self.pool, self.tenants.running())

    def _shut_out(self, waiting: Waiting) -> str:
        """Say which agents a graph must have and cannot, whatever ends there; empty if there is none."""
        if not waiting.fixed:
            return ""
        agents = self.pool.merged().agents
        offered = {agent.mesos_agent_id for agent in agents}
        closed = self.closures.closed(agents, waiting.stay, time.time())
        idle = (*closed, *self.cluster.idle(offered, waiting.stay))
        hosts = {assignment.host for assignment in waiting.fixed.values()}
        why = {agent.host: agent.reason for agent in idle if agent.host in hosts}
        if not why:
            return ""
        told = ", ".join(f"{host} is {reason}" for host, reason in sorted(why.items()))
        return f"what it had on {', '.join(sorted(why))} cannot be had again: {told}"

    def explanation(self, graph_id: str) -> Explanation | None:
        """Say why a graph still waits, as data; None when it does not, or it was not looked into yet."""
        for case in self._cases.values():
            if case.waiting.graph_id == graph_id and case.explanation is not None:
                return case.explanation
        return None

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
        scene = self._scene()
        noted = scene.noted
        if not noted.waiting or not (noted.agents or noted.capacity):
            return False
        turn, begun = await asyncio.to_thread(self._placing().decided, scene, self._efforts())
        self._reservations, self._failed = turn.reservations, turn.failed
        self._note(turn)
        if begun is not None:
            self._start(begun)
        match turn.act:
            case Preempt(waiting, victims):
                names = {victim.name for victim in victims}
                logger.warning("%s makes room for graph %s", sorted(names), waiting.graph_id)
                self._leaving = noted.leaving | names
                self.figures.made_room(waiting.queue.name, len(names))
                self.tenants.preempt(names, waiting)
            case None:
                return False
        return not self._poked.is_set()

    def _placing(self) -> Placing:
        """Return how graphs are tried, beside what runs now."""
        running = [*self.tenants.running()]
        for begun in self._begun.values():
            running += begun.running()
        return Placing(running, self.cluster.away(), self.closures, self.figures)

    def _efforts(self) -> Mapping[int, Effort]:
        """Return how each that waits is tried now."""
        return {serial: (case.level, case.shortage) for serial, case in self._cases.items()}

    def _scene(self) -> Scene:
        totals = self.cluster.totals()
        version, capacity = totals if totals is not None else (None, None)
        begun = self._begun.values()
        holders = [*self.tenants.holders(), *(one.holder() for one in begun)]
        names = {holder.name for holder in holders}
        if self._leaving - names:
            self._expect_offers()
        self._leaving &= names
        noted = State(
            waiting=[e.waiting for e in self._cases.values() if not e.claim.done()],
            agents=self.pool.merged().agents,
            capacity=capacity,
            leaving=self._leaving,
            returning=asyncio.get_running_loop().time() < self._returning_until,
            reservations=self._reservations,
            gained=(self.pool.gained, version, self.closures.version),
            failed=self._failed,
            fenced=self.cluster.fenced(),
            roles=self.cluster.roles,
        )
        limited = [*self.tenants.limited(), *(one.limited() for one in begun)]
        return Scene(noted, holders, limited)

    def _expect_offers(self) -> None:
        """Give what somebody had who has made room the time to be offered again, and look again then."""
        loop = asyncio.get_running_loop()
        self._returning_until = loop.time() + RETURN_SECONDS
        loop.call_at(self._returning_until, self.poke)

    def _note(self, turn: Turn) -> None:
        """Remember why those that were tried in vain do not fit, and who waits for his queue's limit."""
        for waiting, its in self._cases.items():
            its.limited = turn.limited.get(waiting, "")
        for serial, (shortage, agents) in turn.shortages.items():
            case = self._cases.get(serial)
            if case is None or case.claim.done():  # its time has passed meanwhile
                continue
            if shortage.never:
                # What is free now does not matter then, and without offers it would look like nothing at all.
                case.refuse(shortage.hopeless + self._uncounted(case.waiting))
            elif agents or (case.shortage is None and self.cluster.totals() is not None):
                case.shortage, case.agents = shortage, agents

    def _uncounted(self, waiting: Waiting) -> str:
        """Name agents that are not counted even where a graph is refused for ever, for people."""
        idle = [*self.cluster.idle(()), *self._beyond(waiting)]
        unknown = [str(Withheld(agent.host, agent.reason)) for agent in idle if agent.agent is None]
        return f"\nNot counted: {listed(unknown, 'agent')}" if unknown else ""

    def _beyond(self, waiting: Waiting) -> list[Idle]:
        """Return what is reserved for roles that are not those of a graph's queue."""
        totals = self.cluster.totals()
        agents = () if totals is None else totals[1]
        return reserved_for_others(agents, self.cluster.fenced(), waiting.queue.roles)

    def _start(self, begun: Begun) -> None:
        serial = begun.waiting.serial
        case = self._cases.get(serial)
        if case is None or case.claim.done():
            return
        claim = claimed(begun.choice, self.pool)
        if claim is None:  # an offer was rescinded meanwhile
            self.poke()
        else:
            self._begun[serial] = begun
            case.claim.set_result(replace(claim, settled=partial(self._settled, serial)))

    def _settled(self, serial: int) -> None:
        self._begun.pop(serial, None)

    async def _improve(self) -> bool:
        """Explain one case that is not explained yet, or else search on for one; False if there is none."""
        ordered = sorted(self._cases.values(), key=lambda case: case.waiting.rank)
        now = asyncio.get_running_loop().time()
        for case in ordered:
            if case.explainable(now):
                await self._explain(case)
                return True
        for case in ordered:
            if case.searchable:
                case.level += 1
                self._failed = {s: f for s, f in self._failed.items() if s != case.waiting.serial}
                await self._turn()
                return True
        return False

    async def _explain_late(self, case: Case) -> None:
        """Explain a case whose time is up; of many nodes of one graph only the first, the others say less."""
        graph_id = case.waiting.graph_id
        if case.explanation is None and graph_id not in self._explaining:
            self._explaining.add(graph_id)
            try:
                await self._explain(case)
            finally:
                self._explaining.discard(graph_id)

    async def _explain(self, case: Case) -> None:
        scene, shortage, waiting = self._scene(), case.shortage, case.waiting
        if shortage is None:
            return
        offered = {agent.mesos_agent_id for agent in scene.noted.agents}
        case.explained = shortage
        case.explain_at = asyncio.get_running_loop().time() + EXPLAIN_SECONDS
        closed = self.closures.closed(case.agents, waiting.stay, time.time())
        kept = kept_for_others(waiting, case.agents, self._ahead_of(waiting))
        idle = [*closed, *kept, *self.cluster.idle(offered, waiting.stay), *self._beyond(waiting)]
        explained = self._placing().explained
        found = await asyncio.to_thread(explained, scene, waiting, case.agents, shortage, idle)
        case.explanation = found
        if found.verdict is Verdict.NEVER and not case.claim.done():
            case.refuse(found.hopeless + self._uncounted(waiting))

    def _ahead_of(self, waiting: Waiting) -> list[tuple[Waiting, Reservation]]:
        """Return those before a graph for which something is kept."""
        return [
            (case.waiting, reservation)
            for serial, case in self._cases.items()
            if case.waiting.rank < waiting.rank and (reservation := self._reservations.get(serial))
        ]
