"""The queues of controllers: of products and their postprocessing, over takeovers, and of a pair."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from scheduler.views import MadeRoom
from sdpcontroller.control import (
    CaptureDone,
    CaptureInit,
    ConfigureProduct,
    ProductEvents,
    Severity,
)
from sdpcontroller.election import Election, ElectionTiming
from sdpcontroller.queues import BUILT_IN, Agreement, QueuesConfig, digest, parse
from sdpcontroller.store import Store
from tests.conftest import PATIENCE
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House
from tests.sdpcontroller.products.test_product import IMAGE, observe

DOCUMENT = json.dumps(make_config(outputs={"image": IMAGE}).to_json())
CONFIGURE = ConfigureProduct("p", DOCUMENT)
TIMING = ElectionTiming(lease=60, renewal=0.02, poll=0.02)
Connect = Callable[..., Awaitable[Store]]


def declared(**queues: dict[str, Any]) -> QueuesConfig:
    work = {"products": next(iter(queues)), "postprocessing": [*queues][-1]}
    return parse(json.dumps({"queues": queues, "work": work}))


async def events_of(house: House, product: str) -> str:
    events = await house.master.execute(ProductEvents(product))
    return "\n".join(event.text for event in events)


PAIR = declared(fast={"priority": 9, "preempts": True}, slow={"preemptible": True})


async def test_a_product_waits_in_the_queue_of_its_work_and_keeps_it(open_house: Any) -> None:
    async with open_house(queues=PAIR) as house:
        await house.master.execute(CONFIGURE)
        (graph_id,) = house.scheduler.waited_in
        assert house.scheduler.waited_in[graph_id] == "fast"
        assert house.product("p").queue == "fast"
        kept = await house.stored("p")
        assert kept is not None and kept["queue"] == "fast"
        await house.crash()
        both = declared(
            other={"priority": 5},
            fast={"priority": 9, "preempts": True},
            slow={"preemptible": True},
        )
        async with open_house(after=house, queues=both) as successor:
            await successor.settle()
            assert successor.scheduler.waited_in[graph_id] == "fast", "though another would be new"
            assert successor.product("p").queue == "fast"


async def test_a_queue_that_is_gone_is_replaced_and_that_is_an_event(open_house: Any) -> None:
    async with open_house(queues=PAIR) as house:
        await house.master.execute(CONFIGURE)
        await house.crash()
        async with open_house(after=house) as successor:
            await successor.settle()
            assert successor.product("p").queue == "realtime"
            said = "queue fast is not declared any more: it waits in realtime"
            assert said in await events_of(successor, "p")


async def test_postprocessing_waits_in_its_own_queue(open_house: Any) -> None:
    async with open_house(queues=PAIR) as house:
        await house.master.execute(CONFIGURE)
        cbid = await house.master.execute(CaptureInit("p"))
        await observe(house, cbid, {"A": 600.0})
        await house.master.execute(CaptureDone("p"))
        await house.settle()
        (batch,) = house.scheduler.batches
        assert house.scheduler.waited_in[batch.graph_id] == "slow"


async def test_who_made_room_for_whom_is_an_event_of_both_and_an_alarm_until_it_runs_again(
    open_house: Any,
) -> None:
    async with open_house(queues=PAIR) as house:
        await house.master.execute(CONFIGURE)
        await house.master.execute(ConfigureProduct("q", DOCUMENT))
        first, second = house.scheduler.waited_in
        house.scheduler.tell(MadeRoom(first, ("image.7", "image.8"), second, "fast"))
        await house.settle()
        (alarm,) = house.master.system().alarms
        assert (alarm.name, alarm.severity) == ("queues.preempted", Severity.WARNING)
        assert f"image.7 of {first} for q, image.8 of {first} for q" in alarm.text
        said = f"image.7, image.8 made room for {second} (queue fast), which did not fit"
        assert said in await events_of(house, "p")
        said = f"it did not fit: image.7, image.8 of {first} made room"
        assert said in await events_of(house, "q")


async def test_a_controller_says_what_is_different_from_the_one_before(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await Agreement(store, BUILT_IN, "a:1").lead()
    assert not caplog.records, "there was none before"
    assert await Agreement(store, BUILT_IN, "b:1").compare() == []
    other = parse(json.dumps({"queues": {"realtime": {"priority": 99}, "batch": {}}}))
    await Agreement(store, other, "b:1").lead()
    assert "at a:1, which led last, had other queues: queues.realtime.priority: 100 → 99" in (
        caplog.text
    )
    assert await Agreement(store, other, "a:1").compare() == []


async def test_who_stands_by_with_other_queues_is_an_alarm_of_who_leads(connect: Connect) -> None:
    store = await connect("e")
    elections = []
    for name, config in (("a:1", BUILT_IN), ("b:1", PAIR), ("c:1", BUILT_IN)):
        election = Election(await connect("e"), name, TIMING)
        election.lead_on(digest(config))
        elections.append(election)
    leader, *others = elections
    leadership = await leader.win()
    agreement = Agreement(store, BUILT_IN, "a:1", lambda: leadership.strangers)
    assert agreement.alarms() == ()
    changed = asyncio.Event()
    work = [asyncio.create_task(election.win()) for election in others]
    work.append(asyncio.create_task(leadership.keep(changed.set)))
    async with asyncio.timeout(PATIENCE):
        while len(leadership.candidates) < 2:
            await changed.wait()
            changed.clear()
    assert leadership.candidates == ["b:1", "c:1"]
    (alarm,) = agreement.alarms()
    assert (alarm.name, alarm.severity) == ("queues", Severity.WARNING)
    assert "the queues of b:1 (standing by) are others" in alarm.text
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)


def test_the_same_queues_have_the_same_digest_however_they_are_written() -> None:
    written = parse('{"queues": {"batch": {"priority": 0}, "realtime": {"priority": 100}}}')
    assert digest(written) == digest(BUILT_IN) != digest(PAIR)
