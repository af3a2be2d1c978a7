"""What is kept for graphs that wait, and what that leaves to others; pure.

See :mod:`scheduler.turns` for whose turn it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from scheduler.limits import Held
from scheduler.packing import Circumstances, Idle, Occupant
from scheduler.packing.circumstances import pooled, with_freed
from scheduler.packing.shortage import listed
from scheduler.placement import Assignment, Placement
from scheduler.places import (
    Agents,
    apart,
    beyond_reach,
    both,
    can_draw,
    ceilings,
    less,
    pooled_all,
    reachable,
    ways,
    within_reach,
)
from scheduler.policy import Order, Queue
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot


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
    holder: str = ""
    """The occupant that it will be, or be a part of."""

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
    needs_in: Mapping[str, Mapping[str, Resources]] = field(default_factory=dict)
    """Where we have several roles, by agent id: the roles in which it needs something, with what it needs."""
    left_in: Mapping[str, Mapping[str, Resources]] = field(default_factory=dict)
    """By agent id: the same roles, with what is left there."""
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
    returning: bool = False
    """Whether one of those has ended, and what it had may not be offered again yet."""
    reservations: Mapping[int, Reservation] = field(default_factory=dict)
    """By serial; those of the turn before."""
    gained: object = 0
    """Another when anything may have become free: what failed before is worth another try then."""
    failed: Mapping[int, object] = field(default_factory=dict)
    """By serial: with what it failed; the same is not tried again."""
    fenced: Mapping[str, Mapping[str, Resources]] = field(default_factory=dict)
    """By agent id, then by role: what Mesos reserves for that role and those below it."""
    held: Mapping[str, Held] = field(default_factory=dict)
    """By queue: what its tasks hold, of those queues that have a limit."""
    roles: Sequence[str] = ()
    """Ours at Mesos."""

    @property
    def ceilings(self) -> Agents | None:
        """Every place with more than it ever gives; None while that is not known."""
        return self.capacity and ceilings(self.capacity, self.fenced, self.roles)

    @property
    def ways(self) -> Sequence[Agents]:
        """Ways in which all that the agents have can be had; none while that is not known."""
        return [] if self.capacity is None else ways(self.capacity, self.fenced, self.roles)


def reserved(
    state: State, waiting: Waiting, base: Agents, placement: Placement | None
) -> Reservation | None:
    """Make a reservation of a placement on `base`; None if there is none, or it is not on `base`."""
    if placement is None:
        return None
    needs = needed_by(waiting, placement.assignments)
    needs_in = _needed_in_roles(state, waiting, base, placement)
    whole: dict[str, Resources] = {}
    places: dict[tuple[str, str], Resources] = {}
    for agent in base:
        agent_id = agent.mesos_agent_id
        whole[agent_id] = pooled(agent.free, whole.get(agent_id))
        places[agent_id, agent.role] = agent.free
    every = [(places.get((i, r)), n) for i, of in needs_in.items() for r, n in of.items()]
    every += [(whole.get(agent_id), needed) for agent_id, needed in needs.items()]
    if not all(there is not None and there.contains(needed) for there, needed in every):
        return None
    return Reservation(
        needs,
        left={agent_id: whole[agent_id] - needed for agent_id, needed in needs.items()},
        before=frozenset(o.name for o in state.occupants),
        needs_in=needs_in,
        left_in={i: {r: places[i, r] - n for r, n in of.items()} for i, of in needs_in.items()},
    )


def _needed_in_roles(
    state: State, waiting: Waiting, base: Agents, placement: Placement
) -> dict[str, dict[str, Resources]]:
    """Add up what the tasks of a graph draw, by agent and role; nothing, where we have one role only."""
    if len(state.roles) < 2:
        return {}
    role_of = {agent.agent_id: agent.role for agent in base}
    needs: dict[str, dict[str, Resources]] = {}
    for name, assignment in placement.assignments.items():
        known = name in waiting.fixed
        role = assignment.role if known else role_of[assignment.agent_id]
        of_agent = needs.setdefault(assignment.agent_id.partition("/")[0], {})
        drawn = assignment.resources(waiting.requests[name])
        of_agent[role] = of_agent.get(role, Resources()) + drawn
    return needs


def misplaced(agents: Agents, reservation: Reservation) -> list[AgentSnapshot]:
    """Return places that have what a graph lacks in other roles, if it would fit but for that."""
    offered: dict[str, dict[str, AgentSnapshot]] = {}
    for agent in agents:
        offered.setdefault(agent.mesos_agent_id, {})[agent.role] = agent
    found: list[AgentSnapshot] = []
    for agent_id, needed in reservation.needs.items():
        here, needs_in = offered.get(agent_id, {}), reservation.needs_in.get(agent_id, {})
        if not pooled_all(place.free for place in here.values()).contains(needed):
            return []
        if not all(r in here and here[r].free.contains(n) for r, n in needs_in.items()):
            found += [place for role, place in here.items() if role not in needs_in]
    return found


def needed_by(waiting: Waiting, assignments: Mapping[str, Assignment]) -> dict[str, Resources]:
    """Add up what these tasks of a graph draw, by the id that Mesos gives their agents."""
    needs: dict[str, Resources] = {}
    for name, assignment in assignments.items():
        agent_id = assignment.agent_id.partition("/")[0]
        drawn = assignment.resources(waiting.requests[name])
        needs[agent_id] = needs.get(agent_id, Resources()) + drawn
    return needs


def can_be_kept(state: State, reservation: Reservation) -> bool:
    """Whether a reservation can still be kept: whoever went before it may have taken what it needs for good."""
    if state.capacity is None:
        known = {agent.mesos_agent_id for agent in state.agents}
        known.update(agent_id for occupant in state.occupants for agent_id in occupant.holds)
        return reservation.needs.keys() <= known
    whole = {agent.mesos_agent_id: agent.free for agent in state.capacity}
    lost = _held([o for o in state.occupants if o.stuck or _stays(o, reservation)])
    return all(
        agent_id in whole
        and less(whole[agent_id], lost.get(agent_id, Resources())).contains(needed)
        for agent_id, needed in reservation.needs.items()
    )


def _stays(occupant: Occupant, reservation: Reservation) -> bool:
    """Whether an occupant came later, and is not known to end."""
    return not ends(occupant) and occupant.name not in reservation.before


def ends(occupant: Occupant) -> bool:
    """Whether an occupant ends by itself, or can be made to."""
    return not occupant.stuck and (occupant.preemptible or occupant.ends_by is not None)


def would_be_free(state: State, ended: Sequence[Occupant]) -> list[AgentSnapshot]:
    """Return what would be free, place by place, had these occupants ended."""
    return with_freed(*apart((state.agents, state.capacity, ended), state.fenced))


def left_over(
    state: State, waiting: Waiting, ahead: Sequence[tuple[Waiting, Reservation]]
) -> list[AgentSnapshot]:
    """Return what is offered to a graph: in the roles of its queue, and not needed by those ahead."""
    kept = [
        _Share(state, owner.queue.roles, reservation)
        for owner, reservation in ahead
        if _is_kept_from(waiting, owner, reservation)
    ]
    result = []
    for agent in state.agents:
        if not can_draw(waiting.queue.roles, agent.role):
            continue
        free = agent.free
        for share in kept:
            if (left := share.left(agent.mesos_agent_id, agent.role)) is not None:
                free = both(free, left)
        result.append(agent if free is agent.free else replace(agent, free=free))
    return result


def kept_for_others(
    waiting: Waiting, agents: Agents, ahead: Sequence[tuple[Waiting, Reservation]]
) -> list[Idle]:
    """Tell of which of these agents a part is kept from a graph, and for whom."""
    found: dict[str, list[str]] = {}
    owners = [(owner.graph_id, r) for owner, r in ahead if _is_kept_from(waiting, owner, r)]
    for agent in agents:
        graphs = (graph_id for graph_id, r in owners if agent.mesos_agent_id in r.needs)
        found.setdefault(agent.host, []).extend(graphs)
    return [
        Idle(
            host=host,
            reason=f"a part is kept for {listed(list(dict.fromkeys(of)))}, which is ahead",
            serves_others=True,
        )
        for host, of in found.items()
        if of
    ]


def _is_kept_from(waiting: Waiting, owner: Waiting, reservation: Reservation) -> bool:
    """Whether a graph may not use what is reserved for one ahead of it."""
    return reservation.firm or not (owner.queue.preempts and waiting.queue.preemptible)


class _Share:
    """What a reservation leaves to others: those who draw in other roles than its owner have more."""

    def __init__(self, state: State, roles: Sequence[str], reservation: Reservation) -> None:
        self._since = [o for o in state.occupants if o.name not in reservation.before]
        self._state, self._roles, self._reservation = state, roles, reservation
        self._inside = _held([in_roles(occupant, roles) for occupant in self._since])
        """What those hold that came later, in its owner's roles; by agent."""
        self._outside: dict[str, Resources] = {}
        """And in other roles."""
        if roles:
            held, inside = _held(self._since), self._inside
            self._outside = {i: less(h, inside.get(i, _NOTHING)) for i, h in held.items()}

    def left(self, agent_id: str, role: str) -> Resources | None:
        """Return what others may use of an agent, in one role; None: all of it."""
        if (left := self._reservation.left.get(agent_id)) is None:
            return None
        beyond = beyond_reach(self._state.fenced.get(agent_id, {}), self._roles)
        outside = self._outside.get(agent_id, _NOTHING)
        # Others draw what is fenced off first; what they hold beyond that, its owner could have had.
        left = less(less(left, self._inside.get(agent_id, _NOTHING)), less(outside, beyond))
        if not can_draw(self._roles, role):
            left = pooled(left, less(beyond, outside))
        return self._in_role(agent_id, role, left)

    def _in_role(self, agent_id: str, role: str, left: Resources) -> Resources:
        """Return what of `left` others may use in a role: not what is left in others only."""
        needed = self._reservation.left_in.get(agent_id, {})
        if role in needed:
            return both(left, less(needed[role], self._held_in(agent_id, lambda r: r == role)))
        known = (role, *(needed or self._roles))
        fences = beyond_reach(self._state.fenced.get(agent_id, {}), known if role else ())
        return less(left, less(fences, self._held_in(agent_id, lambda r: r not in known)))

    def _held_in(self, agent_id: str, which: Callable[[str], bool]) -> Resources:
        """Return what those that came later hold in some roles."""
        held = _NOTHING
        for occupant in self._since:
            for role, of_role in occupant.by_role.items():
                if which(role) and agent_id in of_role:
                    held = pooled(held, of_role[agent_id])
        return held


_NOTHING: Final = Resources()


def needs_ahead(
    state: State, waiting: Waiting, ahead: Sequence[tuple[Waiting, Reservation]]
) -> list[Mapping[str, Resources]]:
    """Return what is kept for those ahead of what a graph could use, by agent."""
    roles = waiting.queue.roles
    found = []
    for owner, reservation in ahead:
        needs = reservation.needs
        if roles and owner.queue.roles and not set(roles) & set(owner.queue.roles):
            # What is fenced off for them they draw first.
            needs = {
                agent_id: less(needed, beyond_reach(state.fenced.get(agent_id, {}), roles))
                for agent_id, needed in needs.items()
            }
        found.append(needs)
    return found


def in_roles(occupant: Occupant, roles: Sequence[str]) -> Occupant:
    """Return an occupant with what it holds in these roles only, as far as its roles are known."""
    if not roles or not occupant.by_role:
        return occupant
    mine = {role: held for role, held in occupant.by_role.items() if can_draw(roles, role)}
    holds = _held([Occupant(name=role, holds=held) for role, held in mine.items()])
    return replace(occupant, holds=holds, by_role=mine)


def narrowed(state: State, roles: Sequence[str]) -> State:
    """Return what a queue that is limited to roles can ever use, and what holds that."""
    if not roles:
        return state
    capacity = state.capacity and [
        within_reach(agent, state.fenced.get(agent.mesos_agent_id, {}), roles)
        for agent in state.capacity
    ]
    return replace(
        state,
        agents=[agent for agent in state.agents if can_draw(roles, agent.role)],
        capacity=capacity,
        occupants=[in_roles(occupant, roles) for occupant in state.occupants],
        fenced={agent_id: reachable(of, roles) for agent_id, of in state.fenced.items()},
        roles=[role for role in state.roles if role in roles],
    )


def seen_from(
    state: State, agents: Agents, occupants: Sequence[Occupant]
) -> tuple[Agents, Circumstances]:
    """Return agents place by place, and what stands around them.

    Parameters
    ----------
    state
        As it is :func:`narrowed` to the roles in which they are seen.
    occupants
        Those that can be ended.
    """
    agents, capacity, occupants = apart((agents, state.capacity, occupants), state.fenced)
    return agents, Circumstances(
        capacity=capacity, ceilings=state.ceilings, ways=state.ways, occupants=occupants
    )


def _held(occupants: Sequence[Occupant]) -> dict[str, Resources]:
    held: dict[str, Resources] = {}
    for occupant in occupants:
        for agent_id, resources in occupant.holds.items():
            held[agent_id] = pooled(resources, held.get(agent_id))
    return held


def without(base: Agents, needs: Sequence[Mapping[str, Resources]]) -> list[AgentSnapshot]:
    """Return `base` without what is needed of it."""
    result = []
    for agent in base:
        free = agent.free
        for of_one in needs:
            if (needed := of_one.get(agent.mesos_agent_id)) is not None:
                free = less(free, needed)
        result.append(agent if free is agent.free else replace(agent, free=free))
    return result
