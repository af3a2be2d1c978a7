"""Where tasks can draw: agents, role by role, as Mesos gives them; pure.

No task draws in two roles. What is reserved for a role Mesos gives to that role and those below it, what is
unreserved to one role at a time. So an agent is one *place* for each role. Where several roles have something
reserved, only one of these places can have what is unreserved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from scheduler.packing import Idle, Occupant
from scheduler.packing.circumstances import pooled
from scheduler.packing.shortage import listed
from scheduler.quantities import Ranges, Resources
from scheduler.topology import AgentSnapshot

Agents = Sequence[AgentSnapshot]
Fenced = Mapping[str, Resources]
"""Of one agent: what Mesos reserves, by the role that it is reserved for."""
Whole = tuple[Agents, Agents | None, Sequence[Occupant]]
"""What is free, all agents with all that they have, and what holds that."""

_NOTHING: Final = Resources()


def can_draw(roles: Sequence[str], role: str) -> bool:
    """Whether a queue that is limited to roles (none: it is not) may use what is offered in a role."""
    return not roles or role in ("", *roles)


def reaches(role: str, owner: str) -> bool:
    """Whether Mesos gives to a role what is reserved for `owner`: ``sdp`` to ``sdp/batch``, too."""
    return role == owner or role.startswith(f"{owner}/")


def beyond_reach(fenced: Fenced, roles: Sequence[str]) -> Resources:
    """Return what of an agent can never be drawn in any of these roles (none: in whatever role)."""
    return pooled_all(fenced[owner] for owner in beyond(fenced, roles))


def reachable(fenced: Fenced, roles: Sequence[str]) -> dict[str, Resources]:
    """Return what is reserved that some of these roles (none: whatever role) can have."""
    return {o: a for o, a in fenced.items() if not roles or any(reaches(r, o) for r in roles)}


def within_reach(agent: AgentSnapshot, fenced: Fenced, roles: Sequence[str]) -> AgentSnapshot:
    """Return an agent with what can be had of it in these roles (none: in whatever role), at most."""
    beyond = beyond_reach(fenced, roles)
    return replace(agent, free=less(agent.free, beyond)) if beyond else agent


def reserved_for_others(
    agents: Agents, fenced: Mapping[str, Fenced], roles: Sequence[str]
) -> list[Idle]:
    """Tell of which agents a part is reserved that can never be drawn in these roles."""
    found = []
    for agent in agents if roles else ():
        owners = beyond(fenced.get(agent.mesos_agent_id, {}), roles)
        if owners:
            found.append(Idle(host=agent.host, reason=kept_by(owners), serves_others=True))
    return found


def beyond(owners: Iterable[str], roles: Sequence[str]) -> list[str]:
    """Return those for whom something is reserved that none of these roles gets."""
    return [o for o in owners if roles and not any(reaches(role, o) for role in roles)]


def kept_by(owners: Sequence[str]) -> str:
    """Say for whom something is reserved."""
    return f"a part is reserved for role{'s' * (len(owners) > 1)} {listed(owners)}"


def places(agent: AgentSnapshot, fenced: Fenced, roles: Sequence[str]) -> list[AgentSnapshot]:
    """Return an agent as it is for each role, if that has all that is unreserved.

    Roles that have no more than another are left out; where one is enough, the agent keeps its id.
    """
    if len(roles) < 2:
        return [agent]
    owners = {role: {owner for owner in fenced if reaches(role, owner)} for role in roles}
    most: list[str] = []
    for role in sorted(roles, key=lambda role: (-len(owners[role]), role)):
        if not any(owners[role] <= owners[other] for other in most):
            most.append(role)
    several = len(most) > 1
    return [
        _named(agent, role, several=several, free=within_reach(agent, fenced, (role,)).free)
        for role in most
    ]


def ceilings(
    agents: Agents, fenced: Mapping[str, Fenced], roles: Sequence[str]
) -> list[AgentSnapshot]:
    """Return all places of agents, each as if it were the only one of its agent: more nobody ever has."""
    if len(roles) < 2:
        return list(agents)
    return [p for a in agents for p in places(a, fenced.get(a.mesos_agent_id, {}), roles)]


def ways(
    agents: Agents, fenced: Mapping[str, Fenced], roles: Sequence[str]
) -> list[list[AgentSnapshot]]:
    """Return ways in which all that agents have can be had at once, role by role.

    Where several roles may have what is unreserved on an agent, one way for each of them, and one in which they
    take turns from agent to agent. There are more.
    """
    if len(roles) < 2:
        return [list(agents)]
    known = [(a, fenced.get(a.mesos_agent_id, {})) for a in agents]
    every = [(fences, places(agent, fences, roles)) for agent, fences in known]
    most = max((len(alternatives) for _, alternatives in every), default=1)
    found = [[p for fences, of in every for p in _divided(of, fences, n)] for n in range(most)]
    if most > 1:
        found.append([p for n, (fences, of) in enumerate(every) for p in _divided(of, fences, n)])
    return found


def _divided(of_agent: list[AgentSnapshot], fenced: Fenced, first: int) -> list[AgentSnapshot]:
    """Let one of the places of an agent have what is unreserved, and each of the others what is left for it."""
    first %= len(of_agent)
    order = [of_agent[first], *of_agent[:first], *of_agent[first + 1 :]]
    found, earlier = order[:1], [order[0].role]
    for place in order[1:]:
        left = pooled_all(
            amount
            for owner, amount in fenced.items()
            if reaches(place.role, owner) and not any(reaches(role, owner) for role in earlier)
        )
        found.append(replace(place, free=both(place.free, left)))
        earlier.append(place.role)
    return found


def apart(whole: Whole, fenced: Mapping[str, Fenced]) -> Whole:
    """Return all three role by role, for those agents of which something is in several roles."""
    agents, capacity, occupants = whole
    roles: dict[str, set[str]] = {}
    for agent in agents:
        roles.setdefault(agent.mesos_agent_id, set()).add(agent.role)
    for occupant in occupants:
        for role, held in occupant.by_role.items():
            for agent_id in held:
                roles.setdefault(agent_id, set()).add(role)
    divided = {agent_id: sorted(found) for agent_id, found in roles.items() if len(found) > 1}
    if not divided:
        return whole
    return (
        [_named(a, a.role, several=a.mesos_agent_id in divided, free=a.free) for a in agents],
        capacity
        and [
            part
            for agent in capacity
            for part in _parts(agent, fenced, divided.get(agent.mesos_agent_id))
        ],
        [_split(occupant, divided) for occupant in occupants],
    )


def _parts(
    agent: AgentSnapshot, fenced: Mapping[str, Fenced], roles: Sequence[str] | None
) -> list[AgentSnapshot]:
    if roles is None:
        return [agent]
    fences = fenced.get(agent.mesos_agent_id, {})
    return [
        _named(agent, role, several=True, free=within_reach(agent, fences, (role,)).free)
        for role in roles
    ]


def _split(occupant: Occupant, divided: Mapping[str, Sequence[str]]) -> Occupant:
    """Let an occupant hold what it does in the place where it does."""
    if divided.keys().isdisjoint(occupant.holds) or not occupant.by_role:
        return occupant
    holds = {i: held for i, held in occupant.holds.items() if i not in divided}
    for role, of_role in occupant.by_role.items():
        holds |= {f"{i}/{role}": held for i, held in of_role.items() if i in divided}
    return replace(occupant, holds=holds)


def _named(agent: AgentSnapshot, role: str, *, several: bool, free: Resources) -> AgentSnapshot:
    name = f"{agent.mesos_agent_id}/{role}" if several else agent.agent_id
    return replace(agent, agent_id=name, role=role, free=free)


def pooled_all(amounts: Iterable[Resources]) -> Resources:
    """Add all up, where members of ranges may be in several."""
    found = _NOTHING
    for amount in amounts:
        found = pooled(found, amount)
    return found


def both(one: Resources, other: Resources) -> Resources:
    """Return what is in both."""
    scalars = {name: min(n, other.scalars.get(name, 0)) for name, n in one.scalars.items()}
    ranges = {name: r & other.ranges.get(name, Ranges()) for name, r in one.ranges.items()}
    return Resources(scalars, ranges)


def less(one: Resources, other: Resources) -> Resources:
    """Return what is left of `one`, nothing where `other` is more."""
    scalars = {name: max(0, n - other.scalars.get(name, 0)) for name, n in one.scalars.items()}
    ranges = {name: r - other.ranges.get(name, Ranges()) for name, r in one.ranges.items()}
    return Resources(scalars, ranges)
