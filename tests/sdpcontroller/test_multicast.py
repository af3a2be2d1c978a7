from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpcontroller.errors import CommandError, ControllerError
from sdpcontroller.multicast import MulticastPool


class Counters:
    """What the pool needs of the store."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.records: dict[str, Any] = {}

    async def put(self, table: str, key: str, value: Any, **_: Any) -> int:
        self.records[key] = value
        await asyncio.sleep(0)
        return 1

    async def delete(self, table: str, key: str, **_: Any) -> None:
        self.records.pop(key)

    recollection = None

    async def rows(self, table: str) -> dict[str, dict[str, str]]:
        return {
            key: {"value": json.dumps(value), "schema": "1", "version": "1"}
            for key, value in self.records.items()
        }

    async def take_numbers(self, counter: str, count: int = 1, *, at_least: int = 0) -> int:
        first = max(self.counters.get(counter, 0), at_least)
        self.counters[counter] = first + count
        await asyncio.sleep(0)
        return first


def pool(network: str, counters: Counters | None = None) -> MulticastPool:
    store: Any = counters or Counters()
    return MulticastPool(store, network)


def addresses(first: str, count: int) -> set[int]:
    start = int(ipaddress.IPv4Address(first))
    return set(range(start, start + count))


takes = st.tuples(st.sampled_from("abcd"), st.integers(1, 9))
releases = st.tuples(st.sampled_from("abcd"), st.none())


@settings(max_examples=150, deadline=None)
@given(st.lists(takes | releases, max_size=40), st.integers(26, 29))
async def test_no_address_has_two_owners_and_none_is_free_in_vain(
    steps: list[tuple[str, int | None]], bits: int
) -> None:
    network = ipaddress.IPv4Network(f"239.192.0.0/{bits}")
    tested = pool(str(network))
    free = {int(address) for address in list(network)[1:]}
    owned: dict[str, set[int]] = {}
    for owner, count in steps:
        if count is None:
            await tested.release(owner)
            free |= owned.pop(owner, set())
            continue
        possible = any(all(a + i in free for i in range(count)) for a in free)
        try:
            given_to = addresses(await tested.take(owner, count), count)
        except CommandError:
            assert not possible
        else:
            assert given_to <= free
            free -= given_to
            owned.setdefault(owner, set()).update(given_to)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=8))
async def test_takes_at_the_same_time_do_not_meet(counts: list[int]) -> None:
    tested = pool("239.192.0.0/26")
    firsts = await asyncio.gather(*(tested.take(str(i), n) for i, n in enumerate(counts)))
    given_to = [addresses(first, n) for first, n in zip(firsts, counts, strict=True)]
    assert sum(map(len, given_to)) == len(set().union(*given_to))


async def test_what_was_released_just_now_is_given_last_even_after_a_restart() -> None:
    counters = Counters()
    before = pool("239.192.0.0/28", counters)
    first = await before.take("a", 5)
    await before.release("a")
    successor = pool("239.192.0.0/28", counters)
    await successor.load()
    others = [await successor.take("b", 5), await successor.take("c", 5)]
    seen = addresses(first, 5).union(*(addresses(other, 5) for other in others))
    assert len(seen) == 15
    await successor.release("b")
    await successor.release("c")
    assert await successor.take("d", 5) == first


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=8), st.integers(1, 9)
)
async def test_what_is_in_use_is_given_to_nobody_else_after_a_restart(
    taken: list[tuple[str, int]], count: int
) -> None:
    counters = Counters()
    before = pool("239.192.0.0/26", counters)
    in_use = [addresses(await before.take(owner, n), n) for owner, n in taken]
    counters.counters.clear()  # were the turns lost, the records would do alone
    successor = pool("239.192.0.0/26", counters)
    await successor.load()
    assert successor.owners == {owner for owner, _ in taken}
    assert not addresses(await successor.take("d", count), count) & set().union(*in_use)


async def test_what_was_skipped_is_not_given_next() -> None:
    tested = pool("239.192.0.0/28")
    await tested.take("a", 8)
    await tested.take("b", 6)
    await tested.release("a")
    assert await tested.take("c", 4) == "239.192.0.1"  # one address was left at the end
    await tested.release("c")
    assert await tested.take("d", 2) == "239.192.0.5"


@pytest.mark.parametrize("count", [-1, 0, 16])
async def test_more_than_there_is_takes_nothing(count: int) -> None:
    counters = Counters()
    with pytest.raises(CommandError, match="has 15"):
        await pool("239.192.0.0/28", counters).take("a", count)
    assert counters.counters == {}


@pytest.mark.parametrize("network", ["10.0.0.0/8", "239.192.0.1/18", "everywhere", "ff15::/64"])
def test_a_pool_of_anything_else_is_refused(network: str) -> None:
    with pytest.raises(ControllerError):
        pool(network)
