"""Agents, role by role: what is claimed of them Mesos can keep."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scheduler.places import Fenced, ceilings, places, reachable, reaches, ways, within_reach
from scheduler.quantities import Resources
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing.machines import make_agent

ROLES = ("a", "b", "b/c", "d")
OWNERS = (*ROLES, "another")


def mem(amount: int) -> Resources:
    return Resources({"mem": amount})


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[AgentSnapshot], dict[str, Fenced]]:
    """Agents with something unreserved, and something for any of our roles."""
    agents, fenced = [], {}
    for n in range(draw(st.integers(1, 3))):
        agent = make_agent(f"h{n}")
        of = draw(st.dictionaries(st.sampled_from(ROLES), st.integers(1, 5), max_size=3))
        whole = draw(st.integers(0, 5)) + sum(of.values())
        agents.append(replace(agent, free=mem(whole)))
        fenced[agent.agent_id] = {role: mem(amount) for role, amount in of.items()}
    return agents, fenced


roles_of_ours = st.lists(st.sampled_from(ROLES), min_size=1, max_size=4, unique=True).map(tuple)


def amount(resources: Resources) -> int:
    return resources.scalars.get("mem", 0)


@given(clusters(), roles_of_ours)
def test_mesos_can_give_what_a_way_says(
    cluster: tuple[list[AgentSnapshot], dict[str, Mapping[str, Resources]]], roles: tuple[str, ...]
) -> None:
    """Some places of an agent together have no more than is unreserved, and reserved for them."""
    agents, fenced = cluster
    agents = [within_reach(agent, fenced[agent.agent_id], roles) for agent in agents]
    fenced = {agent_id: reachable(of, roles) for agent_id, of in fenced.items()}
    for way in ways(agents, fenced, roles):
        for agent in agents:
            of_agent = [place for place in way if place.mesos_agent_id == agent.agent_id]
            assert len({place.agent_id for place in of_agent}) == len(of_agent) > 0
            for count in range(1, len(of_agent) + 1):
                for some in itertools.combinations(of_agent, count):
                    drawing = tuple(place.role for place in some) if len(roles) > 1 else roles
                    most = within_reach(agent, fenced[agent.agent_id], drawing)
                    assert sum(amount(place.free) for place in some) <= amount(most.free)
            assert sum(amount(place.free) for place in of_agent) == amount(agent.free)


@given(clusters(), roles_of_ours, st.sampled_from(ROLES))
def test_no_role_ever_gets_more_than_a_ceiling(
    cluster: tuple[list[AgentSnapshot], dict[str, Mapping[str, Resources]]],
    roles: tuple[str, ...],
    role: str,
) -> None:
    agents, fenced = cluster
    role = role if role in roles else roles[0]
    for agent in agents:
        of = fenced[agent.agent_id]
        alone = within_reach(agent, of, (role,)).free
        ours = within_reach(agent, of, roles)
        most = ceilings([ours], {agent.agent_id: reachable(of, roles)}, roles)
        assert any(place.free.contains(alone) for place in most)


def test_an_agent_keeps_its_name_where_one_role_has_all_that_the_others_have() -> None:
    agent = replace(make_agent("x"), free=mem(10))
    for fenced in ({}, {"b": mem(2)}, {"b": mem(2), "b/c": mem(3)}):
        (place,) = places(agent, fenced, ("a", "b", "b/c"))
        assert place.agent_id == agent.agent_id and place.free == mem(10)
    several = places(agent, {"a": mem(1), "b": mem(2)}, ("a", "b", "b/c"))
    assert [(place.role, place.free) for place in several] == [("a", mem(8)), ("b", mem(9))]
    assert [place.place for place in several] == ["x in role a", "x in role b"]


def test_what_is_reserved_for_a_role_reaches_those_below_it() -> None:
    assert reaches("b/c", "b") and reaches("b", "b")
    assert not reaches("b", "b/c") and not reaches("bc", "b")
