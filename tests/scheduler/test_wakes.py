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
