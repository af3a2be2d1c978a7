from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import NoFitError
from sdpcontroller.control import (
    CaptureDone,
    CaptureInit,
    ConfigureProduct,
    DeconfigureProduct,
    ProductState,
    RestartTask,
)
from sdpcontroller.errors import CommandError
from sdpcontroller.products.restarts import RestartPolicy, Row
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House

DISPLAY = "display.l0_0"
SIMULATOR = "sim.corr"
"""Is told last when a block begins: receivers come first."""
DOCUMENT = json.dumps(make_config().to_json())

policies = st.builds(
    RestartPolicy,
    limit=st.integers(0, 6),
    first=st.floats(0.1, 10),
    longest=st.floats(1, 60),
    calm=st.floats(100, 1000),
)


@given(policies, st.lists(st.floats(0, 2000), max_size=20))
def test_restarts_in_a_row_are_few_and_further_and_further_apart(
    policy: RestartPolicy, lives: list[float]
) -> None:
    row, now, in_a_row, last_pause = Row(), 0.0, 0, 0.0
    for life in lives:
        now += life
        if now - row.last >= policy.calm:  # not `life`: floats add up to a little less
            in_a_row, last_pause = 0, 0.0
        row, pause = row.after_death(policy, now)
        if pause is None:
            assert in_a_row == policy.limit
            return
        in_a_row += 1
        assert in_a_row <= policy.limit
        assert last_pause <= pause <= policy.longest
        last_pause = pause
        now += pause


def blocks(house: House) -> set[str]:
    """Capture blocks that the programs are at."""
    servers = house.scheduler.servers.items()
    return {server.block.value for task_id, server in servers if ".quality." not in task_id}


@pytest.fixture
async def up(open_house: Any) -> AsyncIterator[House]:
    async with open_house() as house:
        await house.master.execute(ConfigureProduct("p", DOCUMENT))
        yield house


async def test_one_that_is_not_critical_is_started_again_and_joins_the_capture(up: House) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    await up.scheduler.die(DISPLAY, log=("last words",))
    await up.settle()
    record = up.product("p")
    assert (record.state, record.reason) == (ProductState.CAPTURING, "")
    assert up.scheduler.restarts == [DISPLAY]
    assert record.tasks[DISPLAY].state == "ready" and record.tasks[DISPLAY].task_id.endswith(".1")
    assert up.scheduler.journal[-1] == (DISPLAY, "capture-init done", cbid)
    await up.master.execute(DeconfigureProduct("p", force=True))
    assert up.scheduler.alive == set()


async def test_one_that_dies_again_and_again_stays_dead_and_that_is_told(up: House) -> None:
    for _ in range(4):
        await up.scheduler.die(DISPLAY)
        await up.settle()
    record = up.product("p")
    assert record.state is ProductState.IDLE
    assert record.reason == (
        f"{DISPLAY} on sdp-1 died: failed: exited with status 3; it died too often to be started again"
    )
    assert up.scheduler.restarts == [DISPLAY] * 3
    await up.master.execute(CaptureInit("p"))  # without it


async def test_a_restart_that_fails_is_tried_again(up: House) -> None:
    up.scheduler.restart_error = NoFitError("no room")
    await up.scheduler.die(DISPLAY)
    await up.settle()
    assert up.scheduler.restarts == [DISPLAY] * 3
    assert "too often" in up.product("p").reason
    failed, given_up = ("restarted", "display", "failed"), ("restarted", "display", "given_up")
    assert up.counted == [("died", "display", "failed"), *[failed] * 3, given_up]


async def test_it_is_not_started_again_when_the_product_goes(up: House) -> None:
    await up.scheduler.die(DISPLAY)
    await up.master.execute(DeconfigureProduct("p"))
    await up.settle()
    await asyncio.sleep(0)
    assert up.master.products() == {} and up.scheduler.alive == set()


async def test_what_was_said_of_it_is_over_when_an_operator_starts_it_again(up: House) -> None:
    for _ in range(4):
        await up.scheduler.die(DISPLAY)
        await up.settle()
    assert "too often" in up.product("p").reason
    await up.master.execute(RestartTask("p", DISPLAY))
    assert up.product("p").reason == ""
    await up.scheduler.die(DISPLAY)
    await up.settle()
    assert up.product("p").tasks[DISPLAY].state == "ready"


async def test_one_that_dies_as_a_block_begins_does_not_hold_it_up(up: House) -> None:
    """It was seen as: display.l0_0 refused capture-init: request cancelled."""
    up.scheduler.behaviour.hang[DISPLAY] = "capture-init"
    beginning = asyncio.ensure_future(up.master.execute(CaptureInit("p")))
    await up.asked(DISPLAY, "capture-init")
    up.scheduler.behaviour.hang.clear()
    await up.scheduler.die(DISPLAY)
    cbid = await beginning
    await up.settle()
    assert up.product("p").state is ProductState.CAPTURING
    assert up.scheduler.journal.count((DISPLAY, "capture-init done", cbid)) == 1


async def test_one_that_is_started_again_while_a_block_begins_is_told_once(up: House) -> None:
    up.scheduler.behaviour.hang[SIMULATOR] = "capture-init"  # the last one to be told
    beginning = asyncio.ensure_future(up.master.execute(CaptureInit("p")))
    await up.asked(SIMULATOR, "capture-init")
    await up.scheduler.die(DISPLAY)
    await up.witness.until(lambda: up.product("p").tasks[DISPLAY].task_id.endswith(".1"))
    # The simulator's link is cut: it hears of the block no more. So it is called off, for the display too.
    await up.scheduler.die(SIMULATOR)
    with pytest.raises(CommandError, match=r"sim\.corr"):
        await beginning
    await up.settle()
    assert blocks(up) == {""}


async def test_one_that_was_started_again_while_a_block_began_catches_up(up: House) -> None:
    up.scheduler.behaviour.slow[SIMULATOR] = asyncio.Event()
    beginning = asyncio.ensure_future(up.master.execute(CaptureInit("p")))
    await up.asked(SIMULATOR, "capture-init")
    await up.scheduler.die(DISPLAY)
    await up.witness.until(lambda: up.product("p").tasks[DISPLAY].task_id.endswith(".1"))
    up.scheduler.behaviour.slow[SIMULATOR].set()
    cbid = await beginning
    await up.settle()
    assert blocks(up) == {cbid}
    await up.master.execute(CaptureDone("p"))
    assert blocks(up) == {""}


async def test_one_that_refuses_to_end_does_not_fail_the_end(up: House) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    up.scheduler.behaviour.refuse[DISPLAY] = "capture-done"
    assert await up.master.execute(CaptureDone("p")) == cbid
