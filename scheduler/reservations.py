"""What is kept for graphs that wait, and what that leaves to others; pure.

See :mod:`scheduler.turns` for whose turn it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from scheduler.limits import Held
from scheduler.packing import Occupant
from scheduler.packing.circumstances import pooled, with_freed
from scheduler.placement import Assignment, Placement
from scheduler.policy import Order, Queue
from scheduler.quantities import Ranges, Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

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
    fenced: Mapping[str, Mapping[str, Resources]] = field(default_factory=dict)
    """By agent id, then by role: what Mesos reserves for that role and those below it."""
    held: Mapping[str, Held] = field(default_factory=dict)
    """By queue: what its tasks hold, of those queues that have a limit."""


def reserved(
    state: State, waiting: Waiting, base: Agents, placement: Placement | None
) -> Reservation | None:
    """Make a reservation of a placement on `base`; None if there is none, or it is not on `base`."""
    if placement is None:
        return None
    needs = needed_by(waiting, placement.assignments)
    whole: dict[str, Resources] = {}
    for agent in base:
        whole[agent.mesos_agent_id] = pooled(agent.free, whole.get(agent.mesos_agent_id))
    if not all(i in whole and whole[i].contains(needed) for i, needed in needs.items()):
        return None
    left = {agent_id: whole[agent_id] - needed for agent_id, needed in needs.items()}
    return Reservation(needs, left, frozenset(o.name for o in state.occupants))


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
        and _less(whole[agent_id], lost.get(agent_id, Resources())).contains(needed)
        for agent_id, needed in reservation.needs.items()
    )


def _stays(occupant: Occupant, reservation: Reservation) -> bool:
    """Whether an occupant came later, and is not known to end."""
    return not ends(occupant) and occupant.name not in reservation.before


def ends(occupant: Occupant) -> bool:
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
        _Share(state, owner.queue.roles, reservation)
        for owner, reservation in ahead
        if reservation.firm or not (owner.queue.preempts and waiting.queue.preemptible)
    ]
    result = []
    for agent in state.agents:
        if not can_draw(waiting.queue.roles, agent.role):
            continue
        free = agent.free
        for share in kept:
            if (left := share.left(agent.mesos_agent_id, agent.role)) is not None:
                free = _both(free, left)
        result.append(agent if free is agent.free else replace(agent, free=free))
    return result


class _Share:
    """What a reservation leaves to others: those who draw in other roles than its owner have more."""

    def __init__(self, state: State, roles: Sequence[str], reservation: Reservation) -> None:
        since = [o for o in state.occupants if o.name not in reservation.before]
        self._state, self._roles, self._reservation = state, roles, reservation
        self._inside = _held([in_roles(occupant, roles) for occupant in since])
        """What those hold that came later, in its owner's roles; by agent."""
        self._outside: dict[str, Resources] = {}
        """And in other roles."""
        if roles:
            inside = self._inside
            self._outside = {i: _less(h, inside.get(i, _NOTHING)) for i, h in _held(since).items()}

    def left(self, agent_id: str, role: str) -> Resources | None:
        """Return what others may use of an agent, in one role; None: all of it."""
        if (left := self._reservation.left.get(agent_id)) is None:
            return None
        beyond = beyond_reach(self._state.fenced.get(agent_id, {}), self._roles)
        outside = self._outside.get(agent_id, _NOTHING)
        # Others draw what is fenced off first; what they hold beyond that, its owner could have had.
        left = _less(_less(left, self._inside.get(agent_id, _NOTHING)), _less(outside, beyond))
        return left if can_draw(self._roles, role) else pooled(left, _less(beyond, outside))


_NOTHING: Final = Resources()


def can_draw(roles: Sequence[str], role: str) -> bool:
    """Whether a queue that is limited to roles (none: it is not) may use what is offered in a role."""
    return not roles or role in ("", *roles)


def beyond_reach(fenced: Mapping[str, Resources], roles: Sequence[str]) -> Resources:
    """Return what of an agent can never be drawn in any of these roles: what is reserved for others.

    Mesos gives what is reserved for a role to those below it, too: ``sdp`` to ``sdp/batch``.
    """
    found = _NOTHING
    if roles:
        for owner, amount in fenced.items():
            if not any(role == owner or role.startswith(f"{owner}/") for role in roles):
                found = pooled(found, amount)
    return found


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
                agent_id: _less(needed, beyond_reach(state.fenced.get(agent_id, {}), roles))
                for agent_id, needed in needs.items()
            }
        found.append(needs)
    return found


def within_reach(
    agent: AgentSnapshot,
    fenced: Mapping[str, Resources],
    roles: Sequence[str],
    whole: AgentSnapshot | None = None,
) -> AgentSnapshot:
    """Return an agent with what can be had of it in these roles, at most.

    Parameters
    ----------
    whole
        The agent with all that it has, where `agent` is what is left of that: nobody tells whose that is.
    """
    if not (beyond := beyond_reach(fenced, roles)):
        return agent
    if whole is None:
        return replace(agent, free=_less(agent.free, beyond))
    return replace(agent, free=_both(agent.free, _less(whole.free, beyond)))


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
    )


def apart(
    agents: Agents, capacity: Agents | None, occupants: Sequence[Occupant]
) -> tuple[Agents, Agents | None, Sequence[Occupant]]:
    """Return all three role by role, where there are several: no task draws from two."""
    roles = {agent.role for agent in agents}.union(*(occupant.by_role for occupant in occupants))
    if len(roles) < 2:
        return agents, capacity, occupants
    split = [
        replace(o, holds={f"{i}/{r}": h for r, held in o.by_role.items() for i, h in held.items()})
        if o.by_role
        else o
        for o in occupants
    ]
    used = {place for occupant in split for place in occupant.holds}
    return (
        [replace(a, agent_id=f"{a.mesos_agent_id}/{a.role}") for a in agents],
        capacity
        and [
            replace(agent, agent_id=place, role=role)
            for agent in capacity
            for role in roles
            if (place := f"{agent.mesos_agent_id}/{role}") in used
        ],
        split,
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
