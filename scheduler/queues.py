"""Who is tried next: graphs that wait for their place.

Graphs wait in the order of their priority, then of their arrival. Each time the offers change, every one is
tried in turn with what those before it have left; packing runs off the event loop. The one worker takes a
placed graph's offers out of the pool before it looks at the next graph, so no two graphs get the same offer.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from scheduler.errors import NeverFitsError, NoFitError, SchedulerError
from scheduler.offers import Offer, OfferPool
from scheduler.packing import Shortage, pack, warm_up
from scheduler.placement import Assignment, Placement
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

logger = logging.getLogger(__name__)


Place: TypeAlias = tuple[str, str]
"""Where offers can be used together: agent id and role."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A placed graph: its offers are out of the pool and belong to it."""

    placement: Placement
    agents: Mapping[Place, AgentSnapshot]
    """Those that the placement uses."""
    offers: Mapping[Place, Sequence[Offer]]

    def __iter__(self) -> Iterator[Offer]:
        """Yield all its offers."""
        return itertools.chain.from_iterable(self.offers.values())


def claimed(placement: Placement, agents: Sequence[AgentSnapshot], pool: OfferPool) -> Claim | None:
    """Take the offers of a placement out of the pool; None when one of them is not there any more.

    Parameters
    ----------
    agents
        What the placement was made on: its assignments name these by their `agent_id`.
    """
    used = {assignment.agent_id for assignment in placement.assignments.values()}
    chosen = {agent.agent_id: agent for agent in agents if agent.agent_id in used}
    taken = pool.take(offer_id for agent in chosen.values() for offer_id in agent.offer_ids)
    if taken is None:
        return None
    by_id = {offer["id"]["value"]: offer for offer in taken}
    assignments = {
        name: replace(
            assignment,
            agent_id=chosen[assignment.agent_id].mesos_agent_id,
            role=chosen[assignment.agent_id].role,
        )
        for name, assignment in placement.assignments.items()
    }
    places = {(agent.mesos_agent_id, agent.role): agent for agent in chosen.values()}
    offers = {place: [by_id[i] for i in agent.offer_ids] for place, agent in places.items()}
    return Claim(Placement(assignments), places, offers)


def in_place(
    agents: Sequence[AgentSnapshot],
    requests: Mapping[str, TaskRequest],
    fixed: Mapping[str, Assignment],
) -> tuple[Placement, list[AgentSnapshot]] | None:
    """Give tasks what they had.

    Returns
    -------
    placement, agents
        Their places, and what is left on the agents; None when some of it is not offered.
    """
    by_place = {(agent.mesos_agent_id, agent.role): agent for agent in agents}
    again: dict[str, Assignment] = {}
    for name, assignment in fixed.items():
        place = assignment.agent_id, assignment.role
        agent, wanted = by_place.get(place), assignment.resources(requests[name])
        if agent is None or not agent.free.contains(wanted):
            return None
        by_place[place] = replace(agent, free=agent.free - wanted)
        again[name] = replace(assignment, agent_id=agent.agent_id)
    return Placement(again), list(by_place.values())


@dataclass(slots=True, eq=False)
class _Waiting:
    graph_id: str
    requests: Mapping[str, TaskRequest]
    rank: tuple[int, int]
    claim: asyncio.Future[Claim]
    fixed: Mapping[str, Assignment] | None = None
    """Where some of its tasks must go again."""
    shortage: Shortage | None = None
    tried: object = None
    """Versions of the offers and of the cluster that it was last tried with."""


class Cluster(Protocol):
    """What is known of the whole cluster, whatever is free."""

    def totals(self) -> tuple[object, Sequence[AgentSnapshot]] | None:
        """Return a version and every agent with all that it has; None while that is not certain."""


@dataclass(slots=True)
class LaunchQueue:
    """Graphs that wait for their place.

    Parameters
    ----------
    pool
        The offers that we hold.
    cluster
        Tells what could ever be free.
    offers_wanted
        Is called with whether anybody waits, whenever that changes.
    """

    pool: OfferPool
    cluster: Cluster
    offers_wanted: Callable[[bool], None]
    _waiting: list[_Waiting] = field(default_factory=list)
    _serial: itertools.count[int] = field(default_factory=itertools.count)
    _poked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def busy(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

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
        fixed: Mapping[str, Assignment] | None = None,
    ) -> Claim:
        """Wait for a place for all these tasks together.

        Parameters
        ----------
        deadline
            Time of the event loop's clock.
        priority
            Higher comes first.
        fixed
            For some of the tasks: nothing else will do than these agents, devices and ports.

        Raises
        ------
        NeverFitsError
            If no agent could ever give what one of the tasks asks for.
        NoFitError
            If they did not fit before the deadline; says what was short.
        SchedulerError
            What :meth:`withdraw` was given.
        """
        loop = asyncio.get_running_loop()
        rank = (-priority, next(self._serial))
        waiting = _Waiting(graph_id, requests, rank, loop.create_future(), fixed)
        self._waiting.append(waiting)
        self._waiting.sort(key=lambda other: other.rank)
        self.offers_wanted(True)
        self.poke()
        try:
            async with asyncio.timeout_at(deadline):
                return await waiting.claim
        except TimeoutError:
            if (claim := _result(waiting.claim)) is not None:  # at the last moment
                return claim
            raise NoFitError(
                f"graph {graph_id} did not fit before its deadline: {self._why(waiting)}"
            ) from None
        except asyncio.CancelledError:
            if (claim := _result(waiting.claim)) is not None:  # nobody will use it
                now = asyncio.get_running_loop().time()
                self.pool.add(claim, now)
            raise
        finally:
            self._waiting.remove(waiting)
            if not self._waiting:
                self.offers_wanted(False)

    def withdraw(self, graph_id: str, error: SchedulerError) -> None:
        """Let a graph wait no longer."""
        for waiting in self._waiting:
            if waiting.graph_id == graph_id and not waiting.claim.done():
                waiting.claim.set_exception(error)

    def explain(self, graph_id: str) -> str:
        """Say why a graph still waits, for people; empty when it does not."""
        for number, waiting in enumerate(self._waiting):
            if waiting.graph_id == graph_id:
                ahead = f"{number} graphs are ahead; " if number else ""
                return ahead + self._why(waiting)
        return ""

    def _why(self, waiting: _Waiting) -> str:
        if waiting.shortage is not None:
            return str(waiting.shortage)
        if waiting.fixed is not None:
            hosts = sorted({assignment.host for assignment in waiting.fixed.values()})
            return f"what it had on {', '.join(hosts)} is not free"
        return "no offers have come" if not len(self.pool) else "it was not tried yet"

    async def work(self) -> None:
        """Try whoever waits, for ever."""
        await asyncio.to_thread(warm_up)
        while True:
            await self._poked.wait()
            self._poked.clear()
            for waiting in tuple(self._waiting):
                if not waiting.claim.done():
                    await self._try(waiting)

    async def _try(self, waiting: _Waiting) -> None:
        totals = self.cluster.totals()
        version, capacity = totals if totals is not None else (None, None)
        looked_at = (self.pool.version, version)
        if waiting.tried == looked_at or not (len(self.pool) or capacity):
            return
        waiting.tried = looked_at
        agents = self.pool.merged().agents
        result = await _packed(waiting, agents, capacity)
        if result is None:
            return
        if waiting.claim.done():  # its time has passed meanwhile
            return
        if isinstance(result, Placement):
            self._take(waiting, result, agents)
        elif result.never:
            # What is free now does not matter then, and without offers it would look like nothing at all.
            waiting.claim.set_exception(
                NeverFitsError(
                    f"graph {waiting.graph_id} can never run on this cluster: {result.hopeless}"
                )
            )
        elif agents:
            waiting.shortage = result

    def _take(
        self, waiting: _Waiting, placement: Placement, agents: Sequence[AgentSnapshot]
    ) -> None:
        claim = claimed(placement, agents, self.pool)
        if claim is None:  # an offer was rescinded meanwhile
            self.poke()
        else:
            waiting.claim.set_result(claim)


async def _packed(
    waiting: _Waiting, agents: Sequence[AgentSnapshot], capacity: Sequence[AgentSnapshot] | None
) -> Placement | Shortage | None:
    """Try to place a graph; None when what it must have again is not there."""
    fixed, requests, left = waiting.fixed or {}, waiting.requests, agents
    again = Placement()
    if fixed:
        if (found := in_place(agents, requests, fixed)) is None:
            return None
        again, left = found
    anew = {name: request for name, request in requests.items() if name not in fixed}
    if not anew:
        return again
    result = await asyncio.to_thread(pack, left, anew, capacity=capacity)
    if isinstance(result, Placement) and fixed:
        return Placement({**again.assignments, **result.assignments})
    return result


def _result(claim: asyncio.Future[Claim]) -> Claim | None:
    done = claim.done() and not claim.cancelled() and claim.exception() is None
    return claim.result() if done else None
