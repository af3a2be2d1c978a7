"""From a placement on offers to a claim on them, and the way back to what a task had before."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias

from scheduler.offers import Offer, OfferPool
from scheduler.packing import Shortage
from scheduler.packing.shortage import listed
from scheduler.placement import Assignment, Placement, Running
from scheduler.quantities import Ranges, Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

Place: TypeAlias = tuple[str, str]
"""Where offers can be used together: agent id and role."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement in Mesos' terms, and what comes with it."""

    placement: Placement
    agents: Mapping[Place, AgentSnapshot]
    """Those that the placement uses."""
    drawn: Mapping[str, Resources]
    """What each task draws."""

    @classmethod
    def of(
        cls,
        placement: Placement,
        agents: Sequence[AgentSnapshot],
        requests: Mapping[str, TaskRequest],
    ) -> Self:
        """Look them up; of hundreds of tasks that is nothing for the event loop.

        Parameters
        ----------
        agents
            What the placement was made on: its assignments name these by their `agent_id`.
        """
        known = list(placement.assignments.values())
        by_id = {agent.agent_id: agent for agent in agents}
        agents_of = [by_id[assignment.agent_id] for assignment in known]
        named_by_mesos = Assignment.with_columns(
            known,
            agent_id=[agent.mesos_agent_id for agent in agents_of],
            role=[agent.role for agent in agents_of],
        )
        assignments = dict(zip(placement.assignments, named_by_mesos, strict=True))
        return cls(
            Placement(assignments),
            {(agent.mesos_agent_id, agent.role): agent for agent in agents_of},
            {name: a.resources(requests[name]) for name, a in assignments.items()},
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """A placed graph: its offers are out of the pool and belong to it."""

    placement: Placement
    agents: Mapping[Place, AgentSnapshot]
    """Those that the placement uses."""
    drawn: Mapping[str, Resources]
    """What each task draws."""
    offers: dict[Place, Sequence[Offer]]
    """Empty once its tasks are written: what else is needed of them is their ids."""
    settled: Callable[[], None] = field(default=lambda: None, compare=False)
    """To be called once its tasks are known to hold what they were given, or its offers were given back."""

    def __iter__(self) -> Iterator[Offer]:
        """Yield all its offers."""
        return itertools.chain.from_iterable(self.offers.values())

    @property
    def offer_ids(self) -> list[str]:
        """Ids of all its offers."""
        return [i for agent in self.agents.values() for i in agent.offer_ids]


def claimed(choice: Choice, pool: OfferPool) -> Claim | None:
    """Take the offers of a placement out of the pool; None when one of them is not there any more."""
    agents = choice.agents
    taken = pool.take(offer_id for agent in agents.values() for offer_id in agent.offer_ids)
    if taken is None:
        return None
    by_id = {offer["id"]["value"]: offer for offer in taken}
    offers: dict[Place, Sequence[Offer]] = {
        place: [by_id[i] for i in agent.offer_ids] for place, agent in agents.items()
    }
    return Claim(choice.placement, agents, choice.drawn, offers)


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


def why_not_again(
    fixed: Mapping[str, Assignment],
    requests: Mapping[str, TaskRequest],
    agents: Sequence[AgentSnapshot],
    running: Sequence[tuple[str, Running]],
) -> str:
    """Say why tasks cannot have what they had, for people.

    Parameters
    ----------
    agents
        What is offered.
    running
        What runs, with the ids of the graphs.
    """
    free = {(agent.mesos_agent_id, agent.role): agent.free for agent in agents}
    said: dict[str, None] = {}
    for name, assignment in fixed.items():
        host, place = assignment.host, (assignment.agent_id, assignment.role)
        if place not in free:
            said[f"nothing on {host} is offered"] = None
        elif missing := free[place].lacking(wanted := assignment.resources(requests[name])):
            held = _held(assignment.agent_id, missing, running)
            said[f"{name} lacks {missing} on {host}{held}"] = None
        else:
            free[place] -= wanted
    hosts = ", ".join(sorted({assignment.host for assignment in fixed.values()}))
    return f"what it had on {hosts} is not free: {'; '.join(said) or 'but is by now'}"


def _held(agent_id: str, missing: Resources, running: Sequence[tuple[str, Running]]) -> str:
    """Name the tasks that have cores or ports of these; empty where nobody of ours has."""
    holders = [
        f"{task.name} of {graph_id}"
        for graph_id, task in running
        if task.agent_id == agent_id
        and any(
            members & missing.ranges.get(name, Ranges())
            for name, members in task.assignment.resources(task.request).ranges.items()
        )
    ]
    return f", which {listed(holders)} has" if holders else ""


def beside_fixed(
    agents: Sequence[AgentSnapshot],
    requests: Mapping[str, TaskRequest],
    fixed: Mapping[str, Assignment],
    pack: Callable[
        [Sequence[AgentSnapshot], Mapping[str, TaskRequest]], Placement | Shortage | None
    ],
) -> Placement | Shortage | None:
    """Place tasks of which some must have again what they had; None when that is not there."""
    if not fixed:
        return pack(agents, requests)
    if (found := in_place(agents, requests, fixed)) is None:
        return None
    again, left = found
    anew = {name: request for name, request in requests.items() if name not in fixed}
    result = pack(left, anew) if anew else Placement()
    if isinstance(result, Placement):
        return Placement({**again.assignments, **result.assignments})
    return result
