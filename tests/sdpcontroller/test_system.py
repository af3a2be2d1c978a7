"""The state of the whole, as a table, and as a running controller shows it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.views import LinkChanged, LinkState
from sdpcontroller.control import (
    AgentRecord,
    Alarm,
    ConfigureProduct,
    ProductRecord,
    ProductState,
    SetTargetState,
    Severity,
    ShutDown,
)
from sdpcontroller.errors import CommandError
from sdpcontroller.system import TargetState, alarms, reported
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House

TEXT = json.dumps(make_config(cal=False).to_json())


@given(
    target=st.sampled_from(TargetState),
    up=st.booleans(),
    any_product=st.booleans(),
    severities=st.sets(st.sampled_from(Severity)),
)
def test_the_reported_state(
    target: TargetState, up: bool, any_product: bool, severities: set[Severity]
) -> None:
    wrong = [Alarm("x", severity, "") for severity in severities]
    state = reported(target, up=up, any_product=any_product, wrong=wrong)
    if not up:
        assert state == "INIT"
    elif Severity.FAULT in severities:
        assert state == "FAULT"
    elif Severity.ALARM in severities:
        assert state == "ALARM"
    elif target is TargetState.ON:
        assert state == "ON"
    else:
        expected = {TargetState.DISABLE: "STANDBY", TargetState.STANDBY: "STANDBY"}
        assert state == ("DISABLE" if any_product else expected.get(target, "OFF"))


def agent(host: str, state: str) -> AgentRecord:
    return AgentRecord(host, f"S-{host}", state, "", "why" if state == "quarantined" else "")


def test_what_is_wrong_is_told_the_gravest_first() -> None:
    up = LinkChanged(LinkState.CONNECTED, "127.0.0.1:5050", "")
    failed = ProductRecord(name="a", state=ProductState.ERROR, config="{}", reason="ingest.0 died")
    agents = [agent(str(n), "up") for n in range(8)]
    assert alarms(up, [], agents) == ()
    agents[0] = agent("0", "quarantined")
    agents[1] = agent("1", "lost")
    found = alarms(up, [failed], agents)
    assert [(a.name, a.severity) for a in found] == [
        ("product.a", Severity.ALARM),
        ("agent.0", Severity.WARNING),
        ("agent.1", Severity.WARNING),
    ]
    agents[2] = agent("2", "lost")
    assert alarms(up, [], agents)[0].text == "2 of 8 agents are lost"
    gone = LinkChanged(LinkState.LOST, "", "Framework has been removed")
    assert alarms(gone, [failed], [])[0].severity is Severity.FAULT


async def test_disable_takes_no_new_products_and_lets_the_old_ones_finish(house: House) -> None:
    await house.master.execute(ConfigureProduct("p", TEXT))
    await house.master.execute(SetTargetState("DISABLE"))
    with pytest.raises(CommandError, match="commanded to DISABLE"):
        await house.master.execute(ConfigureProduct("q", TEXT))
    # What is there already stays there, and asking for it again changes nothing.
    await house.master.execute(ConfigureProduct("p", TEXT))
    assert house.product("p").state is ProductState.IDLE
    system = house.master.system()
    assert system.target_state == "DISABLE"


async def test_standby_aborts_and_the_next_controller_goes_on_with_it(
    house: House, open_house: Any
) -> None:
    await house.master.execute(ConfigureProduct("p", TEXT))
    house.scheduler.stops.clear()
    await house.master.execute(SetTargetState("STANDBY"))
    await house.crash()
    house.scheduler.stops.set()
    async with open_house(after=house) as other:
        await other.witness.until(lambda: "p" in other.witness.gone)
        assert other.master.system().target_state == "STANDBY"
        await other.master.execute(SetTargetState("ON"))
        await other.master.execute(ConfigureProduct("p", TEXT))


async def test_a_state_that_is_none_is_refused(house: House) -> None:
    with pytest.raises(CommandError, match="ON, DISABLE, STANDBY, OFF"):
        await house.master.execute(SetTargetState("SLEEP"))


async def test_shutdown_takes_everything_down_and_lists_what_was_switched_off(
    house: House,
) -> None:
    await house.master.execute(ConfigureProduct("p", TEXT))
    assert await house.master.execute(ShutDown()) == ()
    assert house.master.products() == {}
    assert house.master.system().target_state == "OFF"
