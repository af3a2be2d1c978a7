"""Whose turn it is: from what waits, what is free and what runs to what to do now; pure.

Graphs are looked at in order. One that fits starts. One that does not gets a *reservation*: a placement on what
would be free once enough has ended. Those behind it may use only what is free now and is not needed for that
then; so they pass it (*backfill*), and never delay it. A reservation is kept while it can be kept: all that
ends on its agents is left to its owner, so its owner does start once what runs there has ended, whatever
arrives meanwhile.

A graph of a queue that preempts may also have preemptible tasks ended; and these may use what is reserved for
it, because it can have it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from scheduler.packing import Circumstances, Occupant, Shortage
from scheduler.packing.circumstances import pooled, with_freed
from scheduler.packing.remedies import Trials, smallest_release
from scheduler.placement import Assignment, Placement
from scheduler.policy import Order, Queue
from scheduler.quantities import Ranges, Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

MOST_RESERVED: Final = 8
"""Graphs that have a reservation at a time."""
MOST_IN_VAIN: Final = 64
"""Behind so many graphs that do not fit, nobody is tried."""

Agents = Sequence[AgentSnapshot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A graph that waits for its place."""

    graph_id: str
    serial: int
    """Grows with arrival; tells graphs apart, whose ids may come twice (the nodes of a batch graph)."""
    requests: Mapping[str, TaskRequest]
    queue: Queue
    priority: int = 0
    """Within the queue; higher comes first."""
    deadline: float = float("inf")
    fixed: Mapping[str, Assignment] = field(default_factory=dict)
    """For some of the tasks: nothing else will do."""
    stay: float = float("inf")
    """For how many seconds its agents must be there."""

    @property
    def rank(self) -> tuple[float, ...]:
        """Lower is tried first."""
        due = self.deadline if self.queue.order is Order.DEADLINE else 0.0
        return (-self.queue.priority, -self.priority, due, self.serial)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is kept for a graph: a placement on what would be free once enough has ended."""

    needs: Mapping[str, Resources]
    """By agent id (Mesos', without a role)."""
    left: Mapping[str, Resources]
    """By agent id: what others may hold there beside it, of all that would be free."""
    before: frozenset[str]
    """Names of the occupants that ran when it was made: it waits for them, or does without what they hold."""
    firm: bool = False
    """Whether room is being made for it: then preemptible tasks have no use of it either, lest they come and
    go without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a turn is decided on."""

    waiting: Sequence[Waiting]
    agents: Agents
    """What is offered."""
    capacity: Agents | None = None
    """All agents with all that they have; None while that is not known."""
    occupants: Sequence[Occupant] = ()
    """What of ours runs."""
    leaving: frozenset[str] = frozenset()
    """Names of occupants that were told to end, to make room."""
    reservations: Mapping[int, Reservation] = field(default_factory=dict)
    """By serial; those of the turn before."""
    gained: object = 0
    """Another when anything may have become free: what failed before is worth another try then."""
    failed: Mapping[int, object] = field(default_factory=dict)
    """By serial: with what it failed; the same is not tried again."""


@dataclass(frozen=True, slots=True)
class Start:
    """A graph that fits."""

    waiting: Waiting
    placement: Placement
    agents: Agents
    """What the placement was made on."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """Tasks to end, so that a graph fits."""

    waiting: Waiting
    victims: tuple[Occupant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What to do now, and what to remember for the next turn."""

    act: Start | Preempt | None = None
    reservations: Mapping[int, Reservation] = field(default_factory=dict)
    failed: Mapping[int, object] = field(default_factory=dict)
    shortages: Mapping[int, tuple[Shortage, Agents]] = field(default_factory=dict)
    """By serial, of those tried in vain in this turn; with what they were tried on."""


Place = Callable[[Waiting, Agents], Placement | Shortage | None]
"""Places a graph, with all the effort that it is worth now. None: not, and there is nothing to say of it."""
Quick = Callable[[Waiting, Agents], Placement | None]
"""Places a graph with little effort, for reservations."""
Shut = Callable[[Waiting, AgentSnapshot], bool]
"""Tells whether a graph gets nothing on an agent, whatever ends there: drained, away, due for maintenance."""


def _open_to_all(waiting: Waiting, agent: AgentSnapshot) -> bool:
    return False


def decide(state: State, place: Place, quick: Quick, shut: Shut = _open_to_all) -> Turn:
    """Look at who waits, in order, until somebody can start or somebody must make room.

    Call it again, with the outcome, until there is nothing to do.
    """
    turn = _Deciding(state, place, quick, shut)
    for waiting in sorted(state.waiting, key=lambda w: w.rank):
        if turn.full:
            break
        if turn.ahead and not waiting.queue.backfill:
            continue
        if (act := turn.look_at(waiting)) is not None:
            return turn.made(act)
    return turn.made(None)


class _Deciding:
    """One turn, while it is decided."""

    def __init__(self, state: State, place: Place, quick: Quick, shut: Shut) -> None:
        self._state = state
        self._place = place
        self._quick = quick
        self._shut = shut
        self._known = {a.mesos_agent_id: a for a in (*(state.capacity or ()), *state.agents)}
        self._in_vain: set[str] = set()
        self._reservations: dict[int, Reservation] = {}
        self._failed: dict[int, object] = {}
        self._shortages: dict[int, tuple[Shortage, Agents]] = {}
        self.ahead: list[tuple[Waiting, Reservation]] = []
        """Those that were looked at and do not fit, first to last."""

    @property
    def full(self) -> bool:
        """Whether nobody else is tried."""
        return len(self._in_vain) >= MOST_IN_VAIN

    def made(self, act: Start | Preempt | None) -> Turn:
        """Return the turn; what was not looked at stays as it was."""
        here = {waiting.serial for waiting in self._state.waiting}
        if isinstance(act, Start):
            here.discard(act.waiting.serial)
        kept = {s: r for s, r in self._state.reservations.items() if s in here}
        failed = {s: key for s, key in self._state.failed.items() if s in here}
        return Turn(
            act=act,
            reservations={**kept, **self._reservations},
            failed={**failed, **self._failed},
            shortages=self._shortages,
        )

    def look_at(self, waiting: Waiting) -> Start | Preempt | None:
        """Try one graph; keep a place for it if it does not fit."""
        state = self._state
        usable = left_over(state, waiting, self.ahead)
        tried_with = state.gained, tuple(reservation for _, reservation in self.ahead)
        if state.failed.get(waiting.serial) != tried_with:
            answer = self._place(waiting, usable)
            if isinstance(answer, Placement):
                return Start(waiting, answer, usable)
            if answer is not None:
                self._shortages[waiting.serial] = answer, usable
        self._failed[waiting.serial] = tried_with
        self._in_vain.add(waiting.graph_id)
        act = self._make_room(waiting, usable)
        first = all(other.graph_id != waiting.graph_id for other, _ in self.ahead)
        if act is not None or (first and len(self.ahead) < MOST_RESERVED):
            self._keep_place(waiting, usable, act)
        return act

    def _make_room(self, waiting: Waiting, usable: Agents) -> Preempt | None:
        """Look for tasks whose end would do, unless some are ending already."""
        state = self._state
        if not waiting.queue.preempts or waiting.fixed:
            return None
        ending = [o for o in state.occupants if o.name in state.leaving and not o.stuck]
        lower = [
            occupant
            for occupant in state.occupants
            if occupant.preemptible
            and occupant.priority < waiting.queue.priority
            and not occupant.stuck
            and not self._closed(waiting, occupant.holds)
        ]
        if ending or not lower:
            return None

        def fits(agents: Agents, tasks: Mapping[str, TaskRequest], steps: int) -> bool:
            return self._quick(replace(waiting, requests=tasks), agents) is not None

        around = Circumstances(capacity=state.capacity, occupants=lower)
        victims = smallest_release(usable, waiting.requests, around, Trials(fits))
        return Preempt(waiting, tuple(victims)) if victims else None

    def _keep_place(self, waiting: Waiting, usable: Agents, act: Preempt | None) -> None:
        """Reserve: what victims leave, what was reserved before, or what would be free soonest."""
        if act is not None:
            base = with_freed(usable, self._state.capacity, act.victims)
            reservation = _reserved(self._state, waiting, base, self._quick(waiting, base))
            if reservation is not None:
                reservation = replace(reservation, firm=True)
        else:
            reservation = self._reservation(waiting)
        if reservation is not None:
            self._reservations[waiting.serial] = reservation
            self.ahead.append((waiting, reservation))

    def _reservation(self, waiting: Waiting) -> Reservation | None:
        state = self._state
        known = state.reservations.get(waiting.serial)
        if known is not None and not self._closed(waiting, known.needs) and _holds(state, known):
            return known
        ending = list(filter(_ends, state.occupants))
        movable = [occupant for occupant in state.occupants if not occupant.stuck]
        bases = [would_be_free(state, ending), would_be_free(state, movable)]
        if state.capacity is not None:
            bases.append(list(state.capacity))
        for beside in (self.ahead, []) if self.ahead else ([],):
            for every in bases:
                base = [agent for agent in every if not self._shut(waiting, agent)]
                free = _beside(base, [reservation.needs for _, reservation in beside])
                placement = self._placed_quickly(waiting, free)
                if (made := _reserved(state, waiting, base, placement)) is not None:
                    return made
        return None

    def _closed(self, waiting: Waiting, agent_ids: Iterable[str]) -> bool:
        """Whether a graph gets nothing on one of these agents."""
        agents = (self._known.get(agent_id) for agent_id in agent_ids)
        return any(agent is not None and self._shut(waiting, agent) for agent in agents)

    def _placed_quickly(self, waiting: Waiting, free: Agents) -> Placement | None:
        """Place what is not fixed; where the rest must be is known."""
        anew = {name: r for name, r in waiting.requests.items() if name not in waiting.fixed}
        beside = _beside(free, [_needs(waiting, waiting.fixed)])
        found = (
            self._quick(replace(waiting, requests=anew, fixed={}), beside) if anew else Placement()
        )
        return None if found is None else Placement({**waiting.fixed, **found.assignments})


def _reserved(
    state: State, waiting: Waiting, base: Agents, placement: Placement | None
) -> Reservation | None:
    """Make a reservation of a placement on `base`; None if there is none, or it is not on `base`."""
    if placement is None:
        return None
    needs = _needs(waiting, placement.assignments)
    whole: dict[str, Resources] = {}
    for agent in base:
        whole[agent.mesos_agent_id] = pooled(agent.free, whole.get(agent.mesos_agent_id))
    if not all(i in whole and whole[i].contains(needed) for i, needed in needs.items()):
        return None
    left = {agent_id: whole[agent_id] - needed for agent_id, needed in needs.items()}
    return Reservation(needs, left, frozenset(o.name for o in state.occupants))


def _needs(waiting: Waiting, assignments: Mapping[str, Assignment]) -> dict[str, Resources]:
    """Add up what these tasks of a graph draw, by the id that Mesos gives their agents."""
    needs: dict[str, Resources] = {}
    for name, assignment in assignments.items():
        agent_id = assignment.agent_id.partition("/")[0]
        drawn = assignment.resources(waiting.requests[name])
        needs[agent_id] = needs.get(agent_id, Resources()) + drawn
    return needs


def _holds(state: State, reservation: Reservation) -> bool:
    """Whether a reservation can still be kept: whoever went before it may have taken what it needs for good."""
    if state.capacity is None:
        known = {agent.mesos_agent_id for agent in state.agents}
        known.update(agent_id for occupant in state.occupants for agent_id in occupant.holds)
        return reservation.needs.keys() <= known
    whole = {agent.mesos_agent_id: agent.free for agent in state.capacity}
    lost = _held([o for o in state.occupants if o.stuck or _stays(o, reservation)])
    return all(
        agent_id in whole
        and _less(whole[agent_id], lost.get(agent_id, Resources())).contains(needed)
        for agent_id, needed in reservation.needs.items()
    )


def _stays(occupant: Occupant, reservation: Reservation) -> bool:
    """Whether an occupant came later, and is not known to end."""
    return not _ends(occupant) and occupant.name not in reservation.before


def _ends(occupant: Occupant) -> bool:
    """Whether an occupant ends by itself, or can be made to."""
    return not occupant.stuck and (occupant.preemptible or occupant.ends_by is not None)


def would_be_free(state: State, ended: Sequence[Occupant]) -> list[AgentSnapshot]:
    """Return what would be free, agent by agent without regard to roles, had these occupants ended."""
    first: dict[str, AgentSnapshot] = {}
    rest: list[Occupant] = []
    for agent in state.agents:
        agent_id = agent.mesos_agent_id
        if agent_id in first:
            rest.append(Occupant(name=agent.agent_id, holds={agent_id: agent.free}))
        else:
            first[agent_id] = replace(agent, agent_id=agent_id, role="")
    return with_freed(list(first.values()), state.capacity, [*rest, *ended])


def left_over(
    state: State, waiting: Waiting, ahead: Sequence[tuple[Waiting, Reservation]]
) -> list[AgentSnapshot]:
    """Return what is offered to a graph: in the roles of its queue, and not needed by those ahead."""
    kept = [
        reservation
        for owner, reservation in ahead
        if reservation.firm or not (owner.queue.preempts and waiting.queue.preemptible)
    ]
    taken_since = [
        _held([o for o in state.occupants if o.name not in reservation.before])
        for reservation in kept
    ]
    result = []
    for agent in state.agents:
        if waiting.queue.roles and agent.role not in ("", *waiting.queue.roles):
            continue
        free, agent_id = agent.free, agent.mesos_agent_id
        for reservation, taken in zip(kept, taken_since, strict=True):
            if (left := reservation.left.get(agent_id)) is not None:
                free = _both(free, _less(left, taken.get(agent_id, Resources())))
        result.append(agent if free is agent.free else replace(agent, free=free))
    return result


def _held(occupants: Sequence[Occupant]) -> dict[str, Resources]:
    held: dict[str, Resources] = {}
    for occupant in occupants:
        for agent_id, resources in occupant.holds.items():
            held[agent_id] = pooled(resources, held.get(agent_id))
    return held


def _beside(base: Agents, needs: Sequence[Mapping[str, Resources]]) -> list[AgentSnapshot]:
    """Return `base` without what is needed of it."""
    result = []
    for agent in base:
        free = agent.free
        for of_one in needs:
            if (needed := of_one.get(agent.mesos_agent_id)) is not None:
                free = _less(free, needed)
        result.append(agent if free is agent.free else replace(agent, free=free))
    return result


def _both(one: Resources, other: Resources) -> Resources:
    """Return what is in both."""
    scalars = {name: min(n, other.scalars.get(name, 0)) for name, n in one.scalars.items()}
    ranges = {name: r & other.ranges.get(name, Ranges()) for name, r in one.ranges.items()}
    return Resources(scalars, ranges)


def _less(one: Resources, other: Resources) -> Resources:
    """Return what is left of `one`, nothing where `other` is more."""
    scalars = {name: max(0, n - other.scalars.get(name, 0)) for name, n in one.scalars.items()}
    ranges = {name: r - other.ranges.get(name, Ranges()) for name, r in one.ranges.items()}
    return Resources(scalars, ranges)
