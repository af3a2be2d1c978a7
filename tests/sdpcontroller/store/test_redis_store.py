from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdpcontroller.errors import FencedError, StoreError
from sdpcontroller.store import Store, Stored
from sdpcontroller.store.redis_store import SCHEMA_VERSION
from tests.conftest import PATIENCE

Connect = Callable[..., Awaitable[Store]]

FEW = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

keys = st.sampled_from(["a", "b", "c:d", "ä"])
documents = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    max_size=3,
)
steps = st.lists(
    st.tuples(keys, st.none() | documents, st.sampled_from(["no matter", "right", "wrong"])),
    max_size=25,
)


@FEW
@given(steps)
async def test_it_is_a_dict_with_versions_and_logs(connect: Connect, steps: list[Any]) -> None:
    store = await connect()
    model: dict[str, Stored] = {}
    versions: dict[str, int] = {}
    log: dict[str, list[str]] = {}
    for number, (key, document, expectation) in enumerate(steps):
        current = model[key].version if key in model else 0
        expected = {"no matter": None, "right": current, "wrong": current + 1}[expectation]
        event = f"{number} {document}"
        if expectation == "wrong":
            with pytest.raises(StoreError, match="was changed meanwhile"):
                if document is None:
                    await store.delete("t", key, event=event, expected_version=expected)
                else:
                    await store.put("t", key, document, event=event, expected_version=expected)
            continue
        if document is None:
            await store.delete("t", key, event=event, expected_version=expected)
            if model.pop(key, None) is None:
                continue
            versions[key] += 1
        else:
            versions[key] = versions.get(key, 0) + 1
            version = await store.put("t", key, document, event=event, expected_version=expected)
            assert version == versions[key]
            model[key] = Stored(document, version)
        log.setdefault(key, []).append(event)
        assert await store.get("t", key) == model.get(key)
    assert await store.load("t") == model
    assert await store.load("another table") == {}
    for key, events in log.items():
        assert [text for _, text in await store.events("t", key)] == events
        assert [text for _, text in await store.events("t", key, count=1)] == events[-1:]


async def test_of_concurrent_writers_none_loses_what_another_wrote(connect: Connect) -> None:
    writers = [await connect("shared") for _ in range(4)]
    conflicts = 0

    async def add(store: Store, mine: list[int]) -> None:
        nonlocal conflicts
        for number in mine:
            while True:
                found = await store.get("t", "list")
                numbers, version = (found.value["numbers"], found.version) if found else ([], 0)
                new = {"numbers": [*numbers, number]}
                try:
                    await store.put(
                        "t", "list", new, event=f"added {number}", expected_version=version
                    )
                except StoreError:
                    conflicts += 1
                else:
                    break

    await asyncio.gather(*(add(w, list(range(10 * i, 10 * i + 10))) for i, w in enumerate(writers)))
    stored = await writers[0].get("t", "list")
    assert stored is not None
    assert sorted(stored.value["numbers"]) == list(range(40))
    assert stored.version == 40
    # The log tells the same story, in the same order.
    events = await writers[0].events("t", "list")
    assert [text for _, text in events] == [f"added {n}" for n in stored.value["numbers"]]
    assert [at for at, _ in events] == sorted(at for at, _ in events)
    assert conflicts > 0


async def test_a_version_never_stands_for_two_documents(store: Store) -> None:
    """Or a writer that slept through a deletion would write over a stranger's record."""
    mine = await store.put("t", "a", {"of": "me"}, event="made")
    await store.delete("t", "a", event="gone")
    await store.put("t", "a", {"of": "another"}, event="made again", expected_version=0)
    with pytest.raises(StoreError, match="changed meanwhile"):
        await store.put("t", "a", {"of": "me"}, event="late", expected_version=mine)
    with pytest.raises(StoreError, match="changed meanwhile"):
        await store.delete("t", "a", event="late", expected_version=mine)
    found = await store.get("t", "a")
    assert found is not None and found.value == {"of": "another"}
    events = await store.events("t", "a")
    assert [text for _, text in events] == ["made", "gone", "made again"]


async def test_the_log_of_what_is_gone_goes_in_the_end(store: Store, redis_server: Any) -> None:
    """Every graph has a record for each of its tasks: their logs would fill the memory."""
    await store.put("t", "a", {}, event="made")
    await store.delete("t", "a", event="gone")
    await store.delete("t", "never was", event="gone")
    async with redis.asyncio.from_url(redis_server.url) as client:
        assert 0 < await client.ttl("sdp:events:t:a") <= 31 * 86400
        await store.put("t", "a", {}, event="back")
        assert await client.ttl("sdp:events:t:a") == -1
        assert await client.exists("sdp:events:t:never was") == 0


async def test_a_writer_that_was_succeeded_is_refused(connect: Connect, redis_server: Any) -> None:
    old, new = await connect("sdp", fence="1 old"), await connect("sdp", fence="2 new")
    async with redis.asyncio.from_url(redis_server.url) as client:
        await client.set("sdp:fence", "1 old")
        version = await old.put("t", "a", {"by": "old"}, event="made")
        await client.set("sdp:fence", "2 new")
    for act in (
        old.put("t", "a", {"by": "old"}, event="again", expected_version=version),
        old.put("t", "b", {"by": "old"}, event="made"),
        old.delete("t", "a", event="gone"),
        old.take_numbers("n"),
        old.migrate([("t", "a", {"by": "old"}, 9)]),
        (await connect("sdp")).put("t", "b", {"by": "nobody"}, event="made"),
        # A Redis that lost its last writes may count to two again.
        (await connect("sdp", fence="2 old")).put("t", "b", {"by": "old"}, event="made"),
    ):
        with pytest.raises(FencedError, match="another controller has taken over"):
            await act
    assert await old.get("t", "a") == Stored({"by": "old"}, version)  # it may still look
    assert await new.put("t", "a", {"by": "new"}, event="taken") == version + 1
    assert [text for _, text in await new.events("t", "a")] == ["made", "taken"]
    assert await new.get("t", "b") is None
    assert await new.take_numbers("n") == 0


async def test_another_schema_is_refused_and_left_alone(
    connect: Connect, redis_server: Any
) -> None:
    await connect("sdp")
    async with redis.asyncio.from_url(redis_server.url, decode_responses=True) as client:
        for found in (str(SCHEMA_VERSION + 1), "0"):
            await client.set("sdp:schema", found)
            with pytest.raises(
                StoreError,
                match=f"schema version {found}, this program reads 1 to {SCHEMA_VERSION}",
            ):
                await connect("sdp")
            assert await client.get("sdp:schema") == found
    await connect("another")  # systems that share a Redis do not meet


@FEW
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 2**40)), min_size=1, max_size=12))
async def test_numbers_are_taken_once_and_never_too_low(
    connect: Connect, takes: list[tuple[int, int]]
) -> None:
    prefix = (await connect())._prefix
    writers = [await connect(prefix) for _ in range(2)]
    firsts = await asyncio.gather(
        *(
            writers[i % 2].take_numbers("n", count, at_least=least)
            for i, (count, least) in enumerate(takes)
        )
    )
    taken = [
        number for first, (count, _) in zip(firsts, takes, strict=True)
        for number in range(first, first + count)
    ]  # fmt: skip
    assert len(set(taken)) == len(taken)
    for first, (_, least) in zip(firsts, takes, strict=True):
        assert first >= least
    assert await writers[0].take_numbers("n") == max(taken) + 1
    assert await writers[0].take_numbers("another") == 0


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}", "no url", "redis://127.0.0.1:x"])
async def test_a_redis_that_is_not_there_is_one_line(url: str, unused_port: int) -> None:
    with pytest.raises(StoreError) as caught:
        await Store.connect(url.format(port=unused_port))
    assert "\n" not in str(caught.value)
    assert url.format(port=unused_port) in str(caught.value)


async def test_a_redis_that_goes_away_is_one_line(redis_server: Any) -> None:
    store = await Store.connect(redis_server.url)
    try:
        async with redis.asyncio.from_url(redis_server.url) as client:
            await client.shutdown(nosave=True)
        for act in (
            store.put("t", "a", {}, event="e"),
            store.delete("t", "a", event="e"),
            store.get("t", "a"),
            store.load("t"),
            store.events("t", "a"),
            store.take_numbers("n"),
        ):
            with pytest.raises(StoreError, match=r"^cannot \w+ .+: .+") as caught:
                await act
            assert "\n" not in str(caught.value)
    finally:
        await store.close()


@pytest.mark.parametrize(
    "row",
    [
        {"version": "1"},
        {"value": "{}"},
        {"version": "1", "value": "{"},
        {"version": "x", "value": "{}"},
        {"version": "1", "value": b"\xff"},
    ],
)
async def test_a_damaged_record_is_named(store: Store, redis_server: Any, row: Any) -> None:
    await store.put("t", "a", {}, event="made")
    async with redis.asyncio.from_url(redis_server.url) as client:
        await client.delete("sdp:t:a")
        await client.hset("sdp:t:a", mapping=row)
    with pytest.raises(StoreError, match="read t a: it is damaged"):
        await store.get("t", "a")
    with pytest.raises(StoreError, match="read t: it is damaged"):
        await store.load("t")


async def test_a_record_that_is_no_json_is_a_fault_of_ours(store: Store) -> None:
    with pytest.raises(TypeError):
        await store.put("t", "a", {"x": object()}, event="e")
    assert await store.get("t", "a") is None


async def test_whoever_is_cancelled_ends_there_and_the_write_is_whole(store: Store) -> None:
    """At whatever moment of an exchange."""
    for steps in range(15):
        went_on = False

        async def write(number: int) -> None:
            nonlocal went_on
            await store.put("t", "a", {"number": number}, event="e")
            went_on = True
            await asyncio.Event().wait()

        task = asyncio.create_task(write(steps))
        for _ in range(steps):
            await asyncio.sleep(0)
        done = went_on
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        assert went_on == done
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))  # the last writes
    found = await store.get("t", "a")
    assert found is not None and found.value["number"] in range(15)
    assert len(await store.events("t", "a")) == found.version


async def test_what_many_write_at_once_goes_over_together_in_order(store: Store) -> None:
    exchanges: list[str] = []
    store.timed = lambda kind, seconds: exchanges.append(kind)
    writes = [store.put("t", "same", {"n": n}, event=f"{n}") for n in range(300)]
    conflict = store.put("t", "same", {}, event="late", expected_version=7)
    *versions, refused = await asyncio.gather(*writes, conflict, return_exceptions=True)
    assert versions == list(range(1, 301))
    assert isinstance(refused, StoreError) and "changed meanwhile" in str(refused)
    assert len(exchanges) <= 3 and set(exchanges) == {"write"}
    found = await store.get("t", "same")
    assert found is not None and found.value == {"n": 299}


async def test_a_write_whose_caller_is_cancelled_is_done_all_the_same(store: Store) -> None:
    writing = asyncio.create_task(store.put("t", "a", {"n": 1}, event="made"))
    other = asyncio.create_task(store.put("t", "b", {"n": 2}, event="made"))
    await asyncio.sleep(0)
    writing.cancel()
    assert await other == 1
    assert writing.cancelled()
    found = await store.get("t", "a")
    assert found is not None and found.value == {"n": 1}


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@127.0.0.1:1/0", "redis://127.0.0.1:1/0?password=hunter2"]
)
async def test_a_password_in_the_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StoreError, match="SDP_REDIS_PASSWORD") as caught:
        await Store.connect(url)
    assert "hunter2" not in str(caught.value)


async def test_a_user_of_an_acl_stands_in_the_address(redis_server: Any) -> None:
    async with redis.asyncio.from_url(redis_server.url) as client:
        await client.acl_setuser(
            "sdp", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all"]
        )
        try:
            url = redis_server.url.replace("redis://", "redis://sdp@")
            store = await Store.connect(url, password="pw", prefix="acl")  # noqa: S106
            assert await store.client.acl_whoami() == "sdp"
            await store.close()
            with pytest.raises(StoreError):
                await Store.connect(url, password="another", prefix="acl")  # noqa: S106
        finally:
            await client.acl_deluser("sdp")


async def test_a_fault_of_ours_in_an_exchange_is_heard_by_all_who_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(store._writes, "_exchange", broken)
    writes = [store.put("t", key, {}, event="made") for key in "ab"]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [str(result) for result in results] == ["a fault of ours"] * 2
    monkeypatch.undo()
    assert await store.put("t", "a", {}, event="made") == 1
