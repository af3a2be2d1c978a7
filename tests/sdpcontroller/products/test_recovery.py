"""A controller dies, without a word or in order; its successor goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from scheduler.views import AgentsChanged
from sdpcontroller.control import (
    CaptureBlockState,
    CaptureDone,
    CaptureInit,
    ConfigureProduct,
    DeconfigureProduct,
    ExplainProduct,
    MulticastGroups,
    ProductState,
    ResumeRepair,
)
from sdpcontroller.errors import CommandError
from tests.conftest import PATIENCE
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House
from tests.sdpcontroller.products.test_product import IMAGE, STAGES, TASKS, observe

DOCUMENT = json.dumps(make_config(outputs={"image": IMAGE}).to_json())
CONFIGURE = ConfigureProduct("p", DOCUMENT)
ORDER = [name for stage in STAGES for name in stage]


@pytest.fixture
async def up(open_house: Any) -> AsyncIterator[House]:
    async with open_house() as house:
        await house.master.execute(CONFIGURE)
        yield house


async def test_a_product_goes_on(up: House, open_house: Any) -> None:
    group = await up.master.execute(MulticastGroups("p", 3))
    before, alive = up.product("p"), up.scheduler.alive
    await up.crash()
    async with open_house(after=up) as house:
        await house.settle()
        assert house.product("p") == before
        assert house.scheduler.alive == alive and house.scheduler.stopped == []
        assert (await house.master.execute(CONFIGURE)).name == "p"
        assert await house.master.execute(MulticastGroups("p", 1)) != group.partition("+")[0]
        cbid = await house.master.execute(CaptureInit("p"))
        assert await house.master.execute(CaptureDone("p")) == cbid
        await house.scheduler.die("cal.cal_0")
        await house.witness.until(lambda: house.product("p").state is ProductState.ERROR)


async def test_an_end_in_order_leaves_everything_to_the_next(open_house: Any) -> None:
    async with open_house(end_products=False) as house:
        await house.master.execute(CONFIGURE)
        cbid = await house.master.execute(CaptureInit("p"))
        alive = house.scheduler.alive
        house.scheduler.survives = True
        await house.end()
        assert house.scheduler.alive == alive
        async with open_house(after=house) as successor:
            assert successor.product("p").state is ProductState.CAPTURING
            await successor.settle()
            assert await successor.master.execute(CaptureDone("p")) == cbid


async def test_a_command_that_is_interrupted_says_so_and_undoes_nothing(open_house: Any) -> None:
    async with open_house(end_products=False) as house:
        await house.master.execute(CONFIGURE)
        house.scheduler.behaviour.hang["ingest.l0_0.1"] = "capture-init"
        beginning = asyncio.ensure_future(house.master.execute(CaptureInit("p")))
        await house.asked("ingest.l0_0.1", "capture-init")
        house.scheduler.survives = True
        await house.end()
        with pytest.raises(CommandError, match="ask the one that takes over"):
            await beginning
        assert "capture-done" not in {entry[1] for entry in house.scheduler.journal}
        house.scheduler.behaviour.hang.clear()
        async with open_house(after=house) as successor:
            await successor.settle()


async def test_a_capture_goes_on(up: House, open_house: Any) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    await up.crash()
    told = list(up.scheduler.journal)
    async with open_house(after=up) as house:
        await house.settle()
        record = house.product("p")
        assert (record.state, record.current_block) == (ProductState.CAPTURING, cbid)
        assert house.scheduler.journal == told  # no task was told anything
        with pytest.raises(CommandError, match="is capturing"):
            await house.master.execute(CaptureInit("p"))
        assert await house.master.execute(CaptureDone("p")) == cbid
        await house.settle()
        assert await house.master.execute(CaptureInit("p")) > cbid


@pytest.mark.parametrize("hanging", [*ORDER, None])
async def test_a_capture_that_begins_is_called_off_unless_it_has_begun(
    up: House, open_house: Any, hanging: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hanging is not None:
        up.scheduler.behaviour.hang[hanging] = "capture-init"
        beginning = asyncio.ensure_future(up.master.execute(CaptureInit("p")))
        await up.asked(hanging, "capture-init")
    else:
        put = up.store.put

        async def slow(*args: Any, **kwargs: Any) -> int:
            if kwargs["event"].startswith("capturing"):
                await asyncio.Event().wait()
            return await put(*args, **kwargs)

        monkeypatch.setattr(up.store, "put", slow)
        beginning = asyncio.ensure_future(up.master.execute(CaptureInit("p")))
        await up.witness.until(lambda: bool(up.product("p").capture_blocks))
        for task in ORDER:
            await up.asked(task, "capture-init done")
    await up.crash()
    with pytest.raises(CommandError):
        await beginning
    up.scheduler.behaviour.hang.clear()
    async with open_house(after=up) as house:
        await house.settle()
        record = house.product("p")
        servers = house.scheduler.servers.values()
        blocks = {s.block.value for s in servers if s._name in ORDER}
        if hanging is None:
            assert record.state is ProductState.CAPTURING
            assert blocks == {record.current_block}
            await house.master.execute(CaptureDone("p"))
        else:
            assert (record.state, record.capture_blocks) == (ProductState.IDLE, {})
            assert blocks == {""}
            await house.master.execute(CaptureInit("p"))


@pytest.mark.parametrize("hanging", ORDER)
async def test_a_capture_that_drains_is_drained_to_the_end(
    up: House, open_house: Any, hanging: str
) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    await observe(up, cbid, {"A": 20})
    up.scheduler.behaviour.hang[hanging] = "capture-done"
    ending = asyncio.ensure_future(up.master.execute(CaptureDone("p")))
    await up.asked(hanging, "capture-done")
    await up.crash()
    with pytest.raises(CommandError):
        await ending
    up.scheduler.behaviour.hang.clear()
    async with open_house(after=up) as house:
        await house.settle()
        record = house.product("p")
        assert (record.state, record.current_block) == (ProductState.IDLE, None)
        assert record.reason == "" and len(house.scheduler.batches) == 1
        drained = [e[0] for e in house.scheduler.journal if e[1] == "capture-done done"]
        assert sorted(drained) == sorted(ORDER)  # each once
        stages = [next(i for i, stage in enumerate(STAGES) if task in stage) for task in drained]
        assert stages == sorted(stages)  # in the order of the data's flow


async def test_postprocessing_goes_on(up: House, open_house: Any) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    await observe(up, cbid, {"A": 20})
    up.scheduler.gate.clear()
    await up.master.execute(CaptureDone("p"))
    await up.witness.until(lambda: bool(up.scheduler.batches))
    await up.master.execute(DeconfigureProduct("p"))
    await up.crash()
    async with open_house(after=up) as house:
        record = house.product("p")
        assert record.state is ProductState.POSTPROCESSING
        assert record.capture_blocks == {cbid: CaptureBlockState.POSTPROCESSING}
        house.scheduler.gate.set()
        await house.settle()
        assert house.master.products() == {}
        assert {graph.graph_id for graph in house.scheduler.batches} == {
            up.scheduler.batches[0].graph_id
        }
        assert await house.store.load("batch") == {}


async def test_postprocessing_asks_whether_it_may_try_again_whoever_leads(
    up: House, open_house: Any
) -> None:
    """Where many agents were lost at once, an operator says."""
    cbid = await up.master.execute(CaptureInit("p"))
    await observe(up, cbid, {"A": 20})
    up.scheduler.gate.clear()
    await up.master.execute(CaptureDone("p"))
    up.scheduler.tell(AgentsChanged())
    up.scheduler.agent_views = tuple(replace(v, active=False) for v in up.scheduler.agent_views)
    up.scheduler.tell(AgentsChanged())
    await up.witness.until(lambda: bool(up.scheduler.batches))
    await up.crash()
    why: list[str] = []
    async with open_house(after=up) as house:
        await house.witness.until(lambda: len(house.scheduler.batches) == 2)
        asking = [
            asyncio.create_task(ask(lost=False, refused=why.append))
            for ask in house.scheduler.retries
        ]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in asking)
        assert len(why) == 2 and why[0].startswith("not started again until repair-resume: 2 of 2")
        explained = await house.master.execute(ExplainProduct("p"))
        assert f"{house.scheduler.batches[0].graph_id} waits for 2 cores" in explained
        await house.master.execute(ResumeRepair())
        await asyncio.wait({asking[1]}, timeout=1)
        assert asking[1].done()
        asking[0].cancel()  # of the controller that is gone
        house.scheduler.gate.set()
        await house.settle()


async def test_tasks_of_postprocessing_are_shown_as_long_as_they_run(
    up: House, open_house: Any
) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    await observe(up, cbid, {"A": 20})
    up.scheduler.gate.clear()
    await up.master.execute(CaptureDone("p"))
    await up.witness.until(lambda: bool(up.scheduler.batches))
    await up.crash()
    (imager,) = up.scheduler.batches[0].tasks
    async with open_house(after=up) as house:
        await house.witness.until(lambda: imager in house.product("p").tasks)
        house.scheduler.gate.set()
        await house.settle()
        assert set(house.product("p").tasks) == TASKS
        assert house.product("p").capture_blocks == {}


async def test_a_half_done_deconfigure_is_finished(up: House, open_house: Any) -> None:
    up.scheduler.stops.clear()
    ending = asyncio.ensure_future(up.master.execute(DeconfigureProduct("p")))
    await up.witness.until(lambda: up.product("p").state is ProductState.DECONFIGURING)
    await up.crash()
    with pytest.raises(CommandError):
        await ending
    up.scheduler.stops.set()
    async with open_house(after=up) as house:
        await house.settle()
        assert house.master.products() == {} and house.scheduler.alive == set()
        assert await house.stored("p") is None and await house.store.load("multicast") == {}


async def test_a_deconfigure_that_hangs_can_be_forced(up: House) -> None:
    """All that is left is killed at once then, and both requests are answered."""
    up.scheduler.stops.clear()
    ending = asyncio.ensure_future(up.master.execute(DeconfigureProduct("p")))
    await up.witness.until(lambda: up.product("p").state is ProductState.DECONFIGURING)
    assert up.scheduler.forced == []
    forcing = asyncio.ensure_future(up.master.execute(DeconfigureProduct("p", force=True)))
    async with asyncio.timeout(PATIENCE):
        while not up.scheduler.forced:  # noqa: ASYNC110 - the scheduler is told, nobody else
            await asyncio.sleep(0.01)
    up.scheduler.stops.set()
    await asyncio.gather(ending, forcing)
    await up.settle()
    assert up.master.products() == {} and up.scheduler.alive == set()


async def test_what_was_not_launched_is_rolled_back_with_the_reason(
    house: House, open_house: Any
) -> None:
    house.scheduler.gate.clear()
    configuring = asyncio.ensure_future(house.master.execute(CONFIGURE))
    await house.witness.until(lambda: bool(house.scheduler.launched))
    await house.crash()
    with pytest.raises(CommandError):
        await configuring
    house.scheduler._views.clear()
    house.scheduler.gate.set()
    async with open_house(after=house) as successor:
        await successor.settle()
        assert successor.master.products() == {}
        events = await successor.store.events("product", "p")
        assert events[-1][1].startswith(
            "dead: configure failed: the controller was restarted before"
        )
        await successor.master.execute(CONFIGURE)


async def test_a_launch_goes_on(house: House, open_house: Any) -> None:
    house.scheduler.steps.clear()
    configuring = asyncio.ensure_future(house.master.execute(CONFIGURE))
    await house.witness.until(lambda: len(house.scheduler.alive) == len(TASKS))
    await house.crash()
    with pytest.raises(CommandError):
        await configuring
    alive = house.scheduler.alive
    async with open_house(after=house) as successor:
        again = asyncio.ensure_future(successor.master.execute(CONFIGURE))  # the client comes back
        for _ in range(20):
            await asyncio.sleep(0)
        assert successor.product("p").state is ProductState.CONFIGURING
        house.scheduler.steps.set()
        assert (await again).name == "p"
        assert successor.product("p").state is ProductState.IDLE
        assert house.scheduler.alive == alive and len(house.scheduler.resumed) == 1
        assert successor.product("p").telstate is not None
        await successor.master.execute(CaptureInit("p"))


async def test_a_launch_goes_on_in_which_tasks_were_being_started(
    house: House, open_house: Any
) -> None:
    configuring = asyncio.ensure_future(house.master.execute(CONFIGURE))
    for _ in range(10_000):
        if house.scheduler.servers:
            break
        await asyncio.sleep(0)
    await house.crash()
    with pytest.raises(CommandError):
        await configuring
    assert (begun := set(house.scheduler.servers.values()))
    async with open_house(after=house) as successor:
        await successor.settle()
        assert successor.product("p").state is ProductState.IDLE
        assert begun <= set(house.scheduler.servers.values())


async def test_a_launch_that_was_being_undone_has_failed(house: House, open_house: Any) -> None:
    house.scheduler.steps.clear()
    configuring = asyncio.ensure_future(house.master.execute(CONFIGURE))
    await house.witness.until(lambda: len(house.scheduler.alive) == len(TASKS))
    await house.crash()
    with pytest.raises(CommandError):
        await configuring
    house.scheduler.undone |= set(house.scheduler.graphs())
    async with open_house(after=house) as successor:
        await successor.settle()
        events = await successor.store.events("product", "p")
        told = [text for _, text in events]
        assert any("its launch had failed" in text for text in told)
        assert not any("all tasks ready" in text for text in told)
        assert successor.scheduler.alive == set()


async def test_a_task_that_died_without_a_controller_is_an_error(
    up: House, open_house: Any
) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    await up.crash()
    await up.scheduler.die("cal.cal_0")
    async with open_house(after=up) as house:
        await house.settle()
        record = house.product("p")
        assert record.state is ProductState.ERROR and record.reason.startswith("cal.cal_0")
        assert record.current_block is None
        events = await house.store.events("product", "p")
        assert f"captured {cbid}" in [text for _, text in events]


async def test_it_dies_again_and_again(up: House, open_house: Any) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    before = up
    await before.crash()
    for steps in range(0, 40, 7):
        async with open_house(after=before) as house:
            for _ in range(steps):
                await asyncio.sleep(0)
            await house.crash()
            before = house
    async with open_house(after=before) as house:
        await house.settle()
        assert house.product("p").current_block == cbid
        assert {view.state for view in house.product("p").tasks.values()} == {"ready"}
        assert set(house.product("p").tasks) == TASKS


async def test_what_nobody_owns_is_cleared_away(up: House, open_house: Any) -> None:
    await up.store.put("multicast", "gone", {"ranges": [[4022337537, 1]]}, event="taken")
    up.scheduler._views["stray-1"] = {}
    await up.crash()
    async with open_house(after=up) as house:
        await house.settle()
        assert "stray-1" in house.scheduler.stopped
        assert list(await house.store.load("multicast")) == ["p"]
