"""How things stand when a turn is decided: noted on the event loop, added up beside it.

What ten products of two hundred tasks draw takes tens of milliseconds to add up, and as long as somebody waits
it is wanted at every change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from scheduler.limits import Held
from scheduler.packing import Occupant
from scheduler.placement import Assignment
from scheduler.quantities import Ranges, Resources
from scheduler.reservations import State

Drawn: TypeAlias = tuple[Assignment, Resources]
"""A place, and all that is drawn there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody who holds resources; see :class:`scheduler.packing.Occupant`."""

    name: str
    priority: int = 0
    preemptible: bool = False
    drawn: Sequence[Drawn] = ()
    in_roles: bool = False
    """Whether it matters in which roles of Mesos that is."""
    ends_by: float | None = None
    stuck: bool = False

    def occupant(self) -> Occupant:
        """Add up what it draws."""
        return Occupant(
            name=self.name,
            priority=self.priority,
            preemptible=self.preemptible,
            holds=holdings(self.drawn),
            by_role=_by_role(self.drawn) if self.in_roles else {},
            ends_by=self.ends_by,
            stuck=self.stuck,
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a turn is decided on."""

    noted: State
    """Without what follows from the rest."""
    holders: Sequence[Holder]
    limited: Sequence[tuple[str, Sequence[Resources]]]
    """What tasks of queues that have a limit draw, with the name of the queue; one may come several times."""

    def state(self) -> State:
        """Add up who holds what; nothing for the event loop."""
        held: dict[str, Held] = {}
        for queue, drawn in self.limited:
            held[queue] = held.get(queue, Held()) + Held.by(drawn)
        return replace(self.noted, occupants=[h.occupant() for h in self.holders], held=held)


def holdings(drawn: Iterable[Drawn]) -> dict[str, Resources]:
    """Add up what is drawn, by agent id; members of ranges may be drawn twice."""
    scalars: dict[str, dict[str, int]] = {}
    intervals: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for assignment, resources in drawn:
        sums = scalars.setdefault(assignment.agent_id, {})
        for name, amount in resources.scalars.items():
            sums[name] = sums.get(name, 0) + amount
        lists = intervals.setdefault(assignment.agent_id, {})
        for name, members in resources.ranges.items():
            lists.setdefault(name, []).extend(members.intervals)
    return {
        agent_id: Resources(
            sums, {name: Ranges.of(several) for name, several in intervals[agent_id].items()}
        )
        for agent_id, sums in scalars.items()
    }


def _by_role(drawn: Sequence[Drawn]) -> Mapping[str, Mapping[str, Resources]]:
    """Add up what is drawn, by role and agent id."""
    roles: dict[str, list[Drawn]] = {}
    for assignment, resources in drawn:
        roles.setdefault(assignment.role, []).append((assignment, resources))
    return {role: holdings(of_role) for role, of_role in roles.items()}
