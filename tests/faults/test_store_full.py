"""Rows 22 and 33, with a real Redis: one that takes no more writes, and a database of a later version."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis.asyncio

from sdpcontroller.cli import master
from sdpcontroller.cli.main import make_parser
from sdpcontroller.control import CaptureDone, CaptureInit, ConfigureProduct, ProductState
from sdpcontroller.election import Election
from sdpcontroller.errors import StoreError
from sdpcontroller.products.record import PRODUCTS
from sdpcontroller.store import Store
from tests.sdpcontroller.conftest import open_house as open_house
from tests.sdpcontroller.documents import make_config

DOCUMENT = json.dumps(make_config(cal=False).to_json())


async def test_row_22_a_store_that_is_full_takes_nothing_and_harms_nothing(
    redis_server: Any, open_house: Any
) -> None:
    """As with a full disk, Redis refuses every write and answers every question."""
    async with (
        open_house() as house,
        redis.asyncio.from_url(redis_server.url) as client,
    ):
        await house.master.execute(ConfigureProduct("p", DOCUMENT))
        alive, before = house.scheduler.alive, await house.stored("p")
        await client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match=r"cannot .*: .*maxmemory"):
            await house.master.execute(CaptureInit("p"))
        with pytest.raises(StoreError, match=r"cannot .*: .*maxmemory"):
            await house.master.execute(ConfigureProduct("q", DOCUMENT))
        assert house.scheduler.alive == alive, "what runs runs on"
        assert await house.stored("p") == before, "nothing is half written"
        assert house.product("p").state is ProductState.IDLE
        await client.config_set("maxmemory", 0)
        await house.witness.until(lambda: set(house.master.products()) == {"p"})
        cbid = await house.master.execute(CaptureInit("p"))
        assert await house.master.execute(CaptureDone("p")) == cbid


async def test_row_33_what_the_next_version_wrote_is_refused_before_anybody_leads(
    redis_server: Any, unused_port: int
) -> None:
    """The other way round: the version that leads goes on, and is not disturbed."""
    store = await Store.connect(f"{redis_server.url}/0")
    try:
        leadership = await Election(store, "old:1").win()
        later = PRODUCTS.schema + 1
        await store.put("product", "p", {"name": "p"}, event="of the next version", schema=later)
        leader = await store.client.get(store.key("leader"))
        options = make_parser("master").parse_args(
            ["master", "--redis", f"{redis_server.url}/0", "--port", str(unused_port)]
        )
        with pytest.raises(StoreError, match=r"product p was written by a later program"):
            await master.serve(options, asyncio.Event())
        assert await store.client.get(store.key("leader")) == leader
        assert await store.client.zcard(store.key("candidates")) == 0, "it was no candidate either"
        assert leadership.held
    finally:
        await store.close()
