"""Automatic repair pauses when many agents are lost at once, until an operator resumes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.task import Outcome
from scheduler.views import AgentsChanged, AgentView, LinkChanged, LinkState
from sdpcontroller import repair
from sdpcontroller.control import (
    AgentRecord,
    ConfigureProduct,
    ProductState,
    ResumeRepair,
)
from sdpcontroller.repair import LOST_TOGETHER, WINDOW, Losses
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House

DISPLAY = "display.l0_0"
DOCUMENT = json.dumps(make_config(cal=False).to_json())

states = st.sampled_from(["up", "lost", "quarantined", "draining", "absent"])
histories = st.lists(
    st.tuples(
        st.floats(0.0, 2 * WINDOW), st.lists(states, min_size=6, max_size=6)
    ),
    max_size=12,
)  # fmt: skip


@given(histories)
def test_many_are_more_than_one_and_a_fifth_within_a_minute(
    history: list[tuple[float, list[str]]],
) -> None:
    looks, now = Losses(), 0.0
    since: dict[int, float] = {}
    """When each agent that is not there now was lost."""
    before: set[int] = set()
    for seconds, agents in history:
        now += seconds
        there = {n for n, state in enumerate(agents) if state not in ("lost", "absent")}
        since = {n: at for n, at in since.items() if n not in there and now - at <= WINDOW}
        since |= dict.fromkeys(before - there, now)
        before = there
        records = [
            AgentRecord(f"h{n}", f"S{n}", state, "", "")
            for n, state in enumerate(agents)
            if state != "absent"
        ]
        lost = looks.see(records, now)
        known = len(there) + len(since)
        if len(since) > 1 and len(since) >= LOST_TOGETHER * known:
            assert lost == sorted(f"h{n}" for n in since)
        else:
            assert lost == []


def lose(house: House, *hosts: str) -> None:
    house.scheduler.agent_views = tuple(
        replace(view, active=view.host not in hosts) for view in house.scheduler.agent_views
    )
    house.scheduler.tell(AgentsChanged())


@pytest.fixture(autouse=True)
def look_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "LOOK", 0.01)


def paused(house: House) -> Mapping[str, str]:
    return {a.name: a.text for a in house.master.system().alarms if a.name == "repair"}


async def test_what_died_with_many_agents_waits_for_an_operator_whoever_leads(
    open_house: Any,
) -> None:
    async with open_house(end_products=False) as house:
        await house.master.execute(ConfigureProduct("p", DOCUMENT))
        house.scheduler.tell(AgentsChanged())
        lose(house, "sdp-1", "sdp-2")
        assert "2 of 2 agents were lost within 60 s: sdp-1, sdp-2" in paused(house)["repair"]
        assert house.master.system().state == "ALARM"
        await house.scheduler.die(DISPLAY, outcome=Outcome.LOST)
        lose(house)  # they are back; the pause stays
        await asyncio.sleep(0.05)
        assert house.scheduler.restarts == [] and paused(house)
        assert house.product("p").state is ProductState.IDLE
        assert "not started again until repair-resume: 2 of 2" in house.product("p").reason
        await house.crash()
        async with open_house(after=house) as successor:
            await asyncio.sleep(0.05)
            assert successor.scheduler.restarts == [] and paused(successor)
            reason = await successor.master.execute(ResumeRepair())
            assert reason.startswith("2 of 2 agents")
            await successor.settle()
            assert successor.scheduler.restarts == [DISPLAY] and not paused(successor)
            assert successor.product("p").tasks[DISPLAY].state == "ready"
            assert successor.product("p").reason == ""
            assert await successor.master.execute(ResumeRepair()) == ""


async def test_one_agent_is_no_reason(house: House) -> None:
    await house.master.execute(ConfigureProduct("p", DOCUMENT))
    house.scheduler.tell(AgentsChanged())
    lose(house, "sdp-1")
    await house.scheduler.die(DISPLAY, outcome=Outcome.LOST)
    await house.settle()
    assert house.scheduler.restarts == [DISPLAY] and not paused(house)


async def fail_over(house: House, *registered: str, awaited: frozenset[str]) -> None:
    """Let another master lead, with which only these hosts have registered so far."""
    house.scheduler.tell(AgentsChanged())
    house.scheduler.awaited = None
    house.scheduler.tell(LinkChanged(LinkState.DISCONNECTED, "", "it died"))
    house.scheduler.tell(LinkChanged(LinkState.CONNECTED, "10.0.0.2:5050", ""))
    house.scheduler.tell(AgentsChanged())  # an offer came; the list is still that of the other
    house.scheduler.awaited = awaited
    views = house.scheduler.agent_views
    house.scheduler.agent_views = tuple(view for view in views if view.host in registered)
    house.scheduler.tell(AgentsChanged())


@pytest.mark.parametrize("awaited", [frozenset(), frozenset({"sdp-1", "sdp-2"})])
async def test_another_master_knows_only_those_that_have_registered(
    house: House, awaited: frozenset[str]
) -> None:
    views = house.scheduler.agent_views
    await fail_over(house, awaited=awaited)
    house.scheduler.agent_views, house.scheduler.awaited = views, frozenset()
    house.scheduler.tell(AgentsChanged())
    assert not paused(house)


async def test_what_was_lost_after_it_had_come_to_another_master_is_lost(house: House) -> None:
    house.scheduler.agent_views += (
        AgentView(agent_id="S2", host="sdp-3"), AgentView(agent_id="S3", host="sdp-4")
    )  # fmt: skip
    await fail_over(house, "sdp-3", awaited=frozenset({"sdp-4"}))
    assert "2 of 4 agents were lost within 60 s: sdp-1, sdp-2" in paused(house)["repair"]


async def test_all_can_be_lost(house: House) -> None:
    house.scheduler.tell(AgentsChanged())
    house.scheduler.agent_views = ()
    house.scheduler.tell(AgentsChanged())
    assert "2 of 2 agents were lost" in paused(house)["repair"]


async def test_what_does_not_come_to_another_master_is_lost_when_it_says_so(house: House) -> None:
    await fail_over(house, awaited=frozenset({"sdp-1", "sdp-2"}))
    assert not paused(house)
    house.scheduler.agent_views = (AgentView(agent_id="S9", host="sdp-9"),)
    house.scheduler.awaited = frozenset()
    house.scheduler.tell(AgentsChanged())
    assert "2 of 3 agents were lost within 60 s: sdp-1, sdp-2" in paused(house)["repair"]
