"""What stands around a packing problem: the whole cluster, who runs on it, what is withheld."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scheduler.placement import Running
from scheduler.quantities import Ranges, Resources
from scheduler.topology import AgentSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """Something that runs and holds resources: a task, or a whole graph that would end as one."""

    name: str
    priority: int = 0
    preemptible: bool = False
    """Whether it may be ended for the sake of others, and is run again later."""
    holds: Mapping[str, Resources] = field(default_factory=dict)
    """By agent id."""
    by_role: Mapping[str, Mapping[str, Resources]] = field(default_factory=dict)
    """The same by the Mesos role in which it was drawn, then by agent id; empty where there is only one."""
    ends_by: float | None = None
    """When it has ended at the latest, by the clock of whoever asks; infinity: some time; None: it runs until
    it is told to end."""
    stuck: bool = False
    """Whether nobody may count on its end: it was told to end long ago, or nobody can tell it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """An agent, or a part of one, that is not among those to pack on."""

    host: str
    reason: str
    agent: AgentSnapshot | None = None
    """With what would be free on it; None where it cannot be read."""
    serves_others: bool = False
    """Whether it takes tasks, and only this is kept for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Everything that an explanation may speak of beside the problem itself."""

    capacity: Sequence[AgentSnapshot] | None = None
    """All agents with all that they have; None where that is not known."""
    ceilings: Sequence[AgentSnapshot] | None = None
    """The same where agents give role by role, each place with more than it ever gives beside the others; None:
    as :attr:`capacity`."""
    ways: Sequence[Sequence[AgentSnapshot]] = ()
    """And ways in which places give all that they have at once; none: as :attr:`capacity`."""
    occupants: Sequence[Occupant] = ()
    idle: Sequence[Idle] = ()
    running: Sequence[Running] = ()
    """The tasks that run on the agents, for the relations to them and their multicast groups."""

    @property
    def most(self) -> Sequence[AgentSnapshot] | None:
        """What does not fit on this never fits; None where that is not known."""
        return self.capacity if self.ceilings is None else self.ceilings

    @property
    def empty(self) -> Sequence[Sequence[AgentSnapshot]]:
        """What fits on one of these fits on the empty cluster."""
        return self.ways or ([] if self.capacity is None else [self.capacity])


def with_freed(
    agents: Sequence[AgentSnapshot],
    capacity: Sequence[AgentSnapshot] | None,
    occupants: Sequence[Occupant],
) -> list[AgentSnapshot]:
    """Return the agents as they would be once these occupants have ended.

    An agent of which nothing is free now is taken from `capacity`, if it is known there. What is seen twice (an
    end that was offered already, and not yet told) counts once, as far as that can be seen.
    """
    freed: dict[str, list[Resources]] = {}
    for occupant in occupants:
        for agent_id, held in occupant.holds.items():
            freed.setdefault(agent_id, []).append(held)
    whole = {agent.agent_id: agent.free for agent in capacity or ()}
    known = {agent.agent_id for agent in agents}
    empty = (replace(a, free=Resources()) for a in capacity or () if a.agent_id not in known)
    return [
        replace(agent, free=_together(agent.free, freed[agent.agent_id], whole.get(agent.agent_id)))
        if agent.agent_id in freed
        else agent
        for agent in (*agents, *(a for a in empty if a.agent_id in freed))
    ]


def _together(free: Resources, freed: Sequence[Resources], whole: Resources | None) -> Resources:
    for held in freed:
        free = pooled(free, held)
    if whole is None:
        return free
    scalars = {name: min(n, whole.scalars.get(name, n)) for name, n in free.scalars.items()}
    return Resources(scalars, free.ranges)


def pooled(one: Resources, other: Resources | None) -> Resources:
    """Add up, where members of ranges may be in both."""
    if other is None:
        return one
    scalars, ranges = dict(one.scalars), dict(one.ranges)
    for name, amount in other.scalars.items():
        scalars[name] = scalars.get(name, 0) + amount
    for name, members in other.ranges.items():
        ranges[name] = ranges.get(name, Ranges()) | members
    return Resources(scalars, ranges)
