"""Records of another version: migrated whole, or refused whole and before anybody leads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sdpcontroller.control import ProductState
from sdpcontroller.errors import FencedError, StoreError
from sdpcontroller.master import FORMS
from sdpcontroller.products.record import PRODUCTS, KeptProduct
from sdpcontroller.store import Store, schema
from sdpcontroller.store.records import Form, Table
from sdpcontroller.store.redis_store import SCHEMA_VERSION

Connect = Callable[..., Awaitable[Store]]

VERSION_1 = {
    "name": "p",
    "state": "idle",
    "config": {"version": "4.9"},
    "capture_blocks": {"17": "postprocessing"},
    "current_block": None,
    "reason": "",
    "graph_id": "p-1",
}


def numbers(version: int, **migrations: Any) -> Form[int]:
    """Records of one number; from version 2 on it counts in thousandths."""
    return Form(
        "number",
        write=lambda n: {"n": n},
        read=lambda document: int(document["n"]),
        schema=version,
        migrations={1: lambda document: {"n": 1000 * document["n"]}, **migrations},
    )


async def test_a_record_of_an_earlier_version_is_read_in_the_form_of_this_one(
    store: Store,
) -> None:
    await Table(store, numbers(1)).put("a", 7, event="made")
    row = await Table(store, numbers(2)).get("a")
    assert row is not None and (row.value, row.version) == (7000, 1)
    stored = await store.get("number", "a")
    assert stored is not None and stored.value == {"n": 7}  # reading changes nothing
    await Table(store, numbers(2)).put("a", 8000, event="changed")
    assert (await Table(store, numbers(2)).load())["a"].value == 8000


@pytest.mark.parametrize(
    ("version", "document", "complaint"),
    [
        (3, {"n": 7}, "was written by a later program"),
        (0, {"n": 7}, "has form 0, which nothing migrates"),
        (1, {"m": 7}, "cannot be read by this program: KeyError"),
        (1, {"n": None}, "cannot be read by this program: TypeError"),
        (2, {"n": "x"}, "cannot be read by this program: ValueError"),
    ],
)
async def test_one_that_cannot_be_read_refuses_the_table(
    store: Store, version: int, document: dict[str, Any], complaint: str
) -> None:
    await Table(store, numbers(2)).put("good", 1, event="made")
    await store.put("number", "bad", document, event="made", schema=version)
    for act in (Table(store, numbers(2)).load(), schema.check(store, [numbers(2)])):
        with pytest.raises(StoreError, match=f"number bad {complaint}"):
            await act


async def test_the_database_of_the_first_version_is_migrated_in_one_step(connect: Connect) -> None:
    store = await connect("old")
    await store.client.set(store.key("schema"), 1)
    await store.put("product", "p", VERSION_1, event="configure")
    await schema.check(store, FORMS)
    assert await store.schema() == 1  # looking changes nothing
    await schema.migrate(store, FORMS)
    assert await store.schema() == SCHEMA_VERSION
    stored = await store.get("product", "p")
    assert stored is not None and (stored.schema, stored.version) == (2, 1)
    kept = (await Table(store, PRODUCTS).load())["p"].value
    assert kept.state is ProductState.IDLE and kept.graph_id == "p-1" and kept.roles is None
    assert json.loads(kept.config) == VERSION_1["config"]
    assert list(kept.blocks) == ["17"]
    assert [e for _, e in await store.events("schema", "version")] == ["migrated 1 records"]
    await schema.migrate(store, FORMS)  # there already
    assert [e for _, e in await store.events("schema", "version")] == ["migrated 1 records"]


async def test_a_migration_that_fails_has_changed_nothing(connect: Connect) -> None:
    store = await connect("old")
    await store.client.set(store.key("schema"), 1)
    await store.put("product", "p", VERSION_1, event="configure")
    await store.put("product", "q", {"name": "q"}, event="configure")
    with pytest.raises(StoreError, match="product q cannot be read"):
        await schema.check(store, FORMS)  # before anybody leads
    with pytest.raises(StoreError, match="product q cannot be read"):
        await schema.migrate(store, FORMS)
    assert await store.schema() == 1
    stored = await store.get("product", "p")
    assert stored is not None and stored.value == VERSION_1


async def test_only_who_leads_migrates(connect: Connect) -> None:
    store = await connect("old")
    await store.client.set(store.key("schema"), 1)
    await store.client.set(store.key("fence"), "5 another")
    with pytest.raises(FencedError):
        await schema.migrate(store, FORMS)
    assert await store.schema() == 1


async def test_a_later_program_that_has_led_meanwhile_is_noticed(connect: Connect) -> None:
    store = await connect("new")
    await store.client.set(store.key("schema"), SCHEMA_VERSION + 1)
    with pytest.raises(StoreError, match=f"schema version {SCHEMA_VERSION + 1} now"):
        await schema.migrate(store, FORMS)


async def test_a_product_of_the_first_version_is_taken_down_with_the_reason(
    open_house: Any,
) -> None:
    """It does not say which addresses its streams have: nobody could go on with it."""
    from tests.sdpcontroller.products.test_product import DOCUMENT

    async with open_house() as house:
        record = {**VERSION_1, "config": json.loads(DOCUMENT), "capture_blocks": {}}
        await house.store.put("product", "p", record, event="configure")
        async with open_house(after=house) as successor:
            await successor.settle()
            assert successor.master.products() == {}
            events = await successor.store.events("product", "p")
            assert "earlier version" in events[-1][1]
            assert successor.scheduler.stopped == ["p-1"]


def test_what_is_kept_of_a_product_can_be_read_back() -> None:
    kept = KeptProduct(name="p", state=ProductState.IDLE, config="{}", telstate=("h", 1))
    assert PRODUCTS.read(json.loads(json.dumps(PRODUCTS.write(kept)))) == kept


async def test_what_was_read_is_made_out_anew_only_where_a_byte_of_it_has_changed(
    store: Store,
) -> None:
    """Not by its version: a database that has lost its last writes gives that a second time."""
    made: list[int] = []
    form = numbers(1)

    def read(document: dict[str, Any]) -> int:
        made.append(int(document["n"]))
        return made[-1]

    table = Table(store, dataclasses.replace(form, read=read))
    for key, n in (("a", 1), ("b", 2), ("c", 3)):
        await table.put(key, n, event="made")
    store.recollection = {}
    assert {key: row.value for key, row in (await table.load()).items()} == {"a": 1, "b": 2, "c": 3}
    await store.client.hset(store.key("number", "b"), "value", '{"n": 20}')  # of the same version
    await table.delete("c", event="gone")
    made.clear()
    loaded = await table.load()
    assert {key: row.value for key, row in loaded.items()} == {"a": 1, "b": 20}
    assert made == [20]
    assert store.recollection.keys() == {("number", "a"), ("number", "b")}
    store.recollection = None
    assert (await table.load()) == loaded
    assert made == [20, 1, 20]
