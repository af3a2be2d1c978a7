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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from scheduler.limits import Held, over
from scheduler.packing import Circumstances, Occupant, Shortage
from scheduler.packing.circumstances import with_freed
from scheduler.packing.remedies import Trials, smallest_release
from scheduler.placement import Placement
from scheduler.places import Agents, apart
from scheduler.requests import TaskRequest
from scheduler.reservations import (
    Reservation,
    State,
    Waiting,
    can_be_kept,
    ends,
    left_over,
    narrowed,
    needed_by,
    needs_ahead,
    reserved,
    without,
    would_be_free,
)
from scheduler.topology import AgentSnapshot

MOST_RESERVED: Final = 8
"""Graphs that have a reservation at a time."""
MOST_IN_VAIN: Final = 64
"""Behind so many graphs that do not fit, nobody is tried."""


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
    limited: Mapping[int, str] = field(default_factory=dict)
    """By serial, of those that wait for what their queue may hold; with what that is, for people."""


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
        if (turn.ahead and not waiting.queue.backfill) or turn.at_limit(waiting):
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
        self._limited: dict[int, str] = {}
        self._queues_at_limit: dict[str, str] = {}
        """With what the first of the queue waits for."""
        self._views: dict[tuple[str, ...], State] = {}
        """By the roles of a queue."""
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
            limited=self._limited,
        )

    def at_limit(self, waiting: Waiting) -> bool:
        """Whether a graph waits for what its queue may hold, or behind one that does."""
        queue = waiting.queue
        if queue.limits is None:
            return False
        if queue.name not in self._queues_at_limit:
            held = self._state.held.get(queue.name, Held())
            if not (why := over(queue, held, Held.asked(waiting.requests.values()))):
                return False
            self._queues_at_limit[queue.name] = why
        self._limited[waiting.serial] = self._queues_at_limit[queue.name]
        return True

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
        state = self._view(waiting)
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
        if ending or state.returning or not lower:
            return None

        def fits(agents: Agents, tasks: Mapping[str, TaskRequest], steps: int) -> bool:
            return self._quick(replace(waiting, requests=tasks), agents) is not None

        places, capacity, occupants = apart((usable, state.capacity, lower), state.fenced)
        around = Circumstances(capacity=capacity, occupants=occupants)
        found = smallest_release(places, waiting.requests, around, Trials(fits))
        chosen = {victim.name for victim in found}
        victims = tuple(occupant for occupant in lower if occupant.name in chosen)
        return Preempt(waiting, victims) if victims else None

    def _view(self, waiting: Waiting) -> State:
        """Return what there is for a graph, whoever has it now."""
        roles = waiting.queue.roles
        if roles not in self._views:
            self._views[roles] = narrowed(self._state, roles)
        return self._views[roles]

    def _keep_place(self, waiting: Waiting, usable: Agents, act: Preempt | None) -> None:
        """Reserve: what victims leave, what was reserved before, or what would be free soonest."""
        if act is not None:
            state = self._view(waiting)
            base = with_freed(*apart((usable, state.capacity, act.victims), state.fenced))
            reservation = reserved(state, waiting, base, self._quick(waiting, base))
            if reservation is not None:
                reservation = replace(reservation, firm=True)
        else:
            reservation = self._reservation(waiting)
        if reservation is not None:
            self._reservations[waiting.serial] = reservation
            self.ahead.append((waiting, reservation))

    def _reservation(self, waiting: Waiting) -> Reservation | None:
        state = self._view(waiting)
        known = state.reservations.get(waiting.serial)
        kept = known is not None and not self._closed(waiting, known.needs)
        if known is not None and kept and can_be_kept(state, known):
            return known
        ending = list(filter(ends, state.occupants))
        movable = [occupant for occupant in state.occupants if not occupant.stuck]
        bases = [would_be_free(state, ending), would_be_free(state, movable), *state.ways]
        for beside in (self.ahead, []) if self.ahead else ([],):
            for every in bases:
                base = [agent for agent in every if not self._shut(waiting, agent)]
                free = without(base, needs_ahead(self._state, waiting, beside))
                placement = self._placed_quickly(waiting, free)
                if (made := reserved(state, waiting, base, placement)) is not None:
                    return made
        return None

    def _closed(self, waiting: Waiting, agent_ids: Iterable[str]) -> bool:
        """Whether a graph gets nothing on one of these agents."""
        agents = (self._known.get(agent_id) for agent_id in agent_ids)
        return any(agent is not None and self._shut(waiting, agent) for agent in agents)

    def _placed_quickly(self, waiting: Waiting, free: Agents) -> Placement | None:
        """Place what is not fixed; where the rest must be is known."""
        anew = {name: r for name, r in waiting.requests.items() if name not in waiting.fixed}
        beside = without(free, [needed_by(waiting, waiting.fixed)])
        found = (
            self._quick(replace(waiting, requests=anew, fixed={}), beside) if anew else Placement()
        )
        return None if found is None else Placement({**waiting.fixed, **found.assignments})
