"""Who waits is woken when what it waits for holds, and costs nothing much until then."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.wakes import Wakes


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=30))
def test_whoever_waits_goes_on_when_it_holds_and_not_before(
    changes: list[tuple[int, int, bool]],
) -> None:
    """Five wait, each for its number to reach another one; some changes come in the same turn of the loop."""

    async def main() -> None:
        wakes, values = Wakes(), [0] * 5
        woken: set[int] = set()

        async def wait(n: int) -> None:
            await wakes.until(lambda: values[n] >= n)
            assert values[n] >= n
            woken.add(n)

        waiting = [asyncio.create_task(wait(n)) for n in range(5)]
        await turns()
        for n, value, pause in changes:
            values[n] = value
            wakes.look()
            if pause:
                await turns()
                assert woken >= {n for n in range(5) if values[n] >= n}
        await turns()
        assert woken >= {n for n in range(5) if values[n] >= n}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(main())


async def test_a_thousand_are_asked_once_a_turn_and_only_one_is_woken() -> None:
    wakes, asked, now = Wakes(), list[int](), {7}

    def holds(n: int) -> bool:
        asked.append(n)
        return n in now and len(asked) > 1000

    waiting = [asyncio.create_task(wakes.until(lambda n=n: holds(n))) for n in range(1000)]
    await turns()
    assert len(asked) == 1000
    for _ in range(50):
        wakes.look()
    await turns()
    assert [n for n, task in enumerate(waiting) if task.done()] == [7]
    assert len(asked) == 2001, "and the one that is woken asks again"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    wakes.look()
    await turns()
    assert len(asked) == 2001, "nobody waits any more"


async def test_what_cannot_be_asked_fails_for_the_one_that_asks() -> None:
    wakes, values = Wakes(), dict[str, int](a=1)
    bad = asyncio.create_task(wakes.until(lambda: values["a"] > 1))
    good = asyncio.create_task(wakes.until(lambda: "b" in values))
    await turns()
    del values["a"]
    wakes.look()
    with pytest.raises(KeyError):
        await bad
    values["b"] = 1
    wakes.look()
    await good


async def test_what_held_for_a_moment_only_is_waited_for_again() -> None:
    wakes, open_ = Wakes(), False
    waiting = asyncio.create_task(wakes.until(lambda: open_))
    await turns()
    open_ = True
    wakes.look()
    await asyncio.sleep(0)
    open_ = False
    await turns()
    assert not waiting.done()
    open_ = True
    wakes.look()
    await waiting


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.frozensets(st.integers(0, 3), max_size=3), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=20),
)
def test_a_change_concerns_those_who_wait_for_it_and_nobody_else(
    waits: list[frozenset[int]], changes: list[tuple[int, bool, bool]]
) -> None:
    """Each waits until all of some switches are on, and says which; with none named, for the first one."""

    async def main() -> None:
        wakes, on, asked = Wakes(), [False] * 4, set[int]()

        def holds(n: int) -> bool:
            asked.add(n)
            return all(on[switch] for switch in waits[n] or {0})

        waiting = [
            asyncio.create_task(wakes.until(lambda n=n: holds(n), waits[n]))
            for n in range(len(waits))
        ]
        await turns()
        for switch, value, to_all in changes:
            still = {n for n, task in enumerate(waiting) if not task.done()}
            on[switch] = value
            asked.clear()
            wakes.look(None if to_all else switch)
            await turns()
            assert asked == {n for n in still if to_all or not waits[n] or switch in waits[n]}
            for n in still:
                assert waiting[n].done() == all(on[switch] for switch in waits[n] or {0})
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not wakes._of

    asyncio.run(main())


async def test_of_many_each_is_asked_after_its_own_change_only() -> None:
    wakes, asked, dead = Wakes(), list[int](), set[int]()

    def died(n: int) -> bool:
        asked.append(n)
        return n in dead

    each = {n: (lambda n=n: died(n)) for n in range(100)}
    waiting = asyncio.create_task(wakes.until_any(each))
    await turns()
    asked.clear()
    for n in (3, 5, 3):
        wakes.look(n)
    await turns()
    assert asked == [3, 5]
    dead.add(7)
    wakes.look(7)
    await waiting
