"""Row 21, at products: the database is as it was a moment before, the tasks are not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from scheduler.views import GraphEnds, StrangerKilled, TasksPutBack
from sdpcontroller.control import (
    CaptureBlockState,
    CaptureDone,
    CaptureInit,
    ConfigureProduct,
    DeconfigureProduct,
    ProductEvents,
    ProductState,
)
from sdpcontroller.products import evidence
from sdpcontroller.telstate import ProductTelstate
from tests.sdpcontroller.documents import make_config
from tests.sdpcontroller.fakes import House
from tests.sdpcontroller.products.test_product import IMAGE, STAGES, observe

DOCUMENT: Final = json.dumps(make_config(outputs={"image": IMAGE}).to_json())
NAMES: Final = [f"t{n}" for n in range(5)]
answers = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "7", "8", "x", "9" * 30]))


@given(answers, st.sets(st.sampled_from(NAMES)), st.integers(1, 4))
def test_evidence(told: dict[str, str], expendable: set[str], first: int) -> None:
    assert set(evidence.blocks(told, 100)) == {"7", "8"} & set(told.values())
    needed = set(NAMES) - expendable
    if evidence.captures(told, "7", needed):
        assert needed and {told[name] for name in needed} == {"7"}
    stages = [NAMES[:first], NAMES[first:]]
    if evidence.has_ended(told, "7", stages, expendable):
        sources = (set(s) - expendable for s in stages)
        stage = next(filter(None, sources))
        assert {told[n] for n in stage if n in told} not in ({"7"}, set())


class Past:
    """What the database held at a moment."""

    def __init__(self, url: str) -> None:
        self._client = redis.asyncio.from_url(f"{url}/1")
        self._kept: dict[bytes, bytes] = {}

    async def keep(self) -> None:
        """Remember now."""
        keys = await self._client.keys("*")
        self._kept = {key: await self._client.dump(key) for key in keys}

    async def restore(self) -> None:
        """Let it be as it was; whoever leads next counts on from what is recorded of leaders."""
        await self._client.flushdb()
        for key, value in self._kept.items():
            await self._client.restore(key, 0, value)

    async def close(self) -> None:
        await self._client.aclose()


@pytest.fixture
async def past(redis_server: Any) -> AsyncIterator[Past]:
    kept = Past(redis_server.url)
    yield kept
    await kept.close()


@pytest.fixture
async def up(open_house: Any) -> AsyncIterator[House]:
    async with open_house() as house:
        await house.master.execute(ConfigureProduct("p", DOCUMENT))
        yield house


def lost(house: House) -> str:
    """What the alarm says."""
    return "".join(a.text for a in house.master.system().alarms if a.name == "lost-writes")


async def events(house: House) -> str:
    return "\n".join(event.text for event in await house.master.execute(ProductEvents("p")))


async def test_a_capture_that_is_not_recorded_goes_on(
    up: House, open_house: Any, past: Past
) -> None:
    await past.keep()
    cbid = await up.master.execute(CaptureInit("p"))
    told = list(up.scheduler.journal)
    await up.crash()
    await past.restore()
    async with open_house(after=up) as house:
        await house.settle()
        record = house.product("p")
        assert (record.state, record.current_block) == (ProductState.CAPTURING, cbid)
        assert record.capture_blocks == {cbid: CaptureBlockState.CAPTURING}
        assert house.scheduler.journal == told, "no task was told anything"
        assert f"capture block {cbid} goes on" in lost(house)
        assert "as its tasks tell" in await events(house)
        assert await house.master.execute(CaptureDone("p")) == cbid
        await house.settle()
        assert await house.master.execute(CaptureInit("p")) > cbid


async def test_so_does_its_override(up: House, open_house: Any, past: Past) -> None:
    override = '{"outputs": {"image": {"min_time": 1}}}'
    await past.keep()
    cbid = await up.master.execute(CaptureInit("p", override))
    await up.crash()
    await past.restore()
    async with open_house(after=up) as house:
        await house.settle()
        stored = await house.stored("p")
        assert stored is not None and stored["blocks"][cbid]["override"] == override
        assert f"capture block {cbid} goes on, with the override" in lost(house)
        await observe(house, cbid, {"A": 20, "B": 3})
        await house.master.execute(CaptureDone("p"))
        await house.settle()
        assert len(house.scheduler.batches[-1].tasks) == 2, "B would be too short without it"


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ("", "the document is not JSON"),
        ('{"outputs": {"image": {"min_time": -1}}}', r"outputs.image.min_time"),
        ('{"outputs": {"l0_0": null}}', "l0_0"),
        (7, "is no text"),
        (None, "does not tell"),
    ],
)
async def test_an_override_that_is_none_is_told(
    up: House, open_house: Any, past: Past, there: object, why: str, redis_server: Any
) -> None:
    await past.keep()
    cbid = await up.master.execute(CaptureInit("p"))
    await up.crash()
    await past.restore()
    key = f"{cbid}_config_override"
    if there is not None:
        host, port = up.product("p").telstate or ("", 0)
        async with ProductTelstate.connect(host, port) as link:
            await link.publish({key: there})
    else:  # of another type than any value of telescope state
        client = redis.asyncio.from_url(redis_server.url)
        await client.lpush(key, "x")
        await client.aclose()
    async with open_house(after=up) as house:
        await house.settle()
        assert house.product("p").capture_blocks == {cbid: CaptureBlockState.CAPTURING}
        assert f"capture block {cbid} goes on, without its override" in lost(house)
        assert why in lost(house)


@pytest.mark.parametrize("begun", [1, len(STAGES) - 1])
async def test_one_that_had_not_begun_everywhere_is_called_off(
    up: House, open_house: Any, past: Past, begun: int
) -> None:
    await past.keep()
    cbid = await up.master.execute(CaptureInit("p"))
    for stage in STAGES[:-begun]:
        for name in stage:
            server = next(s for i, s in up.scheduler.servers.items() if f".{name}." in i)
            server.block.value = ""
    await up.crash()
    await past.restore()
    async with open_house(after=up) as house:
        await house.settle()
        assert house.product("p").state is ProductState.IDLE
        assert {server.block.value for server in house.scheduler.servers.values()} == {""}
        assert f"capture block {cbid} was called off" in lost(house)
        assert await house.master.execute(CaptureInit("p")) > cbid


@pytest.mark.parametrize("drained", [1, len(STAGES)])
async def test_a_block_that_was_told_to_end_ends(
    up: House, open_house: Any, past: Past, drained: int
) -> None:
    cbid = await up.master.execute(CaptureInit("p"))
    await past.keep()
    for stage in STAGES[:drained]:
        for name in stage:
            server = next(s for i, s in up.scheduler.servers.items() if f".{name}." in i)
            server.block.value = ""
    up.scheduler.gate.clear()  # postprocessing goes on
    await up.crash()
    await past.restore()
    async with open_house(after=up) as house:
        await house.witness.until(lambda: house.product("p").state is ProductState.IDLE)
        assert house.product("p").capture_blocks == {cbid: CaptureBlockState.POSTPROCESSING}
        assert {server.block.value for server in house.scheduler.servers.values()} == {""}
        assert f"capture block {cbid} ends" in lost(house)
        house.scheduler.gate.set()
        await house.settle()


@pytest.mark.parametrize("capturing", [False, True])
async def test_a_deconfigure_goes_on(
    up: House, open_house: Any, past: Past, capturing: bool
) -> None:
    if capturing:
        await up.master.execute(CaptureInit("p"))
    await past.keep()
    await up.crash()
    await past.restore()
    async with open_house(after=up) as house:
        await house.settle()
        graph_id = house.scheduler.launched[-1].graph_id
        house.scheduler.tell(GraphEnds(graph_id, "it was being taken down"))
        await house.witness.until(lambda: "p" in house.witness.gone)
        assert house.scheduler.alive == set() and await house.stored("p") is None
        assert f"graph {graph_id} is taken down" in lost(house)


async def test_tasks_that_were_put_back_join_the_capture(house: House) -> None:
    await house.master.execute(ConfigureProduct("p", DOCUMENT))
    cbid = await house.master.execute(CaptureInit("p"))
    graph_id = house.scheduler.launched[-1].graph_id
    server = house.scheduler.servers.pop(house.product("p").tasks["display.l0_0"].task_id)
    await server.stop()
    task_id = f"{graph_id}.display.l0_0.1"
    port = await house.scheduler._serve("display.l0_0", task_id)
    house.scheduler._become(graph_id, "display.l0_0", task_id=task_id, ports={"katcp": port})
    house.scheduler.tell(TasksPutBack(graph_id, ("display.l0_0",)))
    await house.settle()
    assert house.scheduler.servers[task_id].block.value == cbid
    assert "display.l0_0 run on" in await events(house) and "put back" in lost(house)
    house.scheduler.tell(StrangerKilled("q-1.sim.0", "nothing is recorded of its graph"))
    assert "task q-1.sim.0 was killed: nothing is recorded" in lost(house)
    house.scheduler.tell(StrangerKilled("q-1.cal.0", "nothing is recorded of its graph"))
    assert "2 tasks of graph q-1 were killed: nothing is recorded" in lost(house)
    await house.master.execute(DeconfigureProduct("p", force=True))
