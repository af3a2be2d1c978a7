"""Long work lets others have their turn."""

from __future__ import annotations

import asyncio
import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import breath
from scheduler.breath import Breath, OneByOne, Ration


@given(steps=st.integers(1, 10), total=st.integers(0, 50))
def test_nobody_waits_for_more_than_so_many_steps(steps: int, total: int) -> None:
    async def main() -> list[int]:
        done, seen = 0, [0]

        async def other() -> None:
            while done < total:
                await asyncio.sleep(0)
                seen.append(done)

        watching = asyncio.create_task(other())
        await asyncio.sleep(0)
        pauses = Breath(steps)
        for _ in range(total):
            done += 1
            await pauses.step()
        await watching
        return seen

    seen = asyncio.run(main())
    assert all(after - before <= steps for before, after in itertools.pairwise(seen))


async def test_between_two_calls_others_have_their_turn() -> None:
    order: list[str] = []
    turns = OneByOne()

    def wrong() -> None:
        order.append("wrong")
        raise ZeroDivisionError

    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    for act in (lambda: order.append("a"), wrong, lambda: order.append("b")):
        turns.add(act)
    for _ in range(3):
        await asyncio.sleep(0)
        order.append("-")
    turns.add(lambda: order.append("c"))
    await asyncio.sleep(0)
    assert order == ["a", "-", "wrong", "-", "b", "-", "c"]
    assert [type(fault) for fault in faults] == [ZeroDivisionError]


class Clock:
    """Time that passes when somebody computes."""

    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


async def test_what_has_no_time_left_waits_in_order_until_others_had_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(breath, "time", clock)
    order: list[str] = []

    def act(name: str) -> None:
        order.append(name)
        clock.now += 0.004

    ration = Ration(seconds=0.01)
    for n in range(3):  # all that comes in half of all time is done at once
        assert not ration.full
        ration.do(functools.partial(act, "abc"[n]))
        clock.now += 0.004
    for n in range(10):
        if ration.full:
            ration.wait(functools.partial(act, str(n)))
        else:
            ration.do(functools.partial(act, str(n)))
    assert order == ["a", "b", "c", "0", "1", "2", "3", "4"], (
        "after ten milliseconds more than its share"
    )
    for _ in range(2):
        await asyncio.sleep(0)
        order.append("-")
    assert order[8:] == ["5", "6", "7", "-", "8", "9", "-"]
    assert ration.full
    clock.now += 0.02
    assert not ration.full, "all is paid back"


async def test_acts_are_begun_a_few_at_a_time_and_all_waited_for_though_one_fails() -> None:
    begun, done, seen = 0, 0, [0]

    async def act(n: int) -> None:
        nonlocal begun, done
        begun += 1
        await asyncio.sleep(0.001)
        done += 1
        if n in (40, 50):
            raise ValueError(str(n))

    async def other() -> None:
        while begun < 100:
            await asyncio.sleep(0)
            seen.append(begun)

    watching = asyncio.create_task(other())
    with pytest.raises(ValueError, match="40"):
        await breath.together(map(act, range(100)))
    await watching
    assert done == 100
    assert max(b - a for a, b in itertools.pairwise(seen)) <= breath.BREATH


async def test_acts_that_were_begun_are_cancelled_with_whoever_waits_for_them() -> None:
    ended: list[int] = []

    async def act(n: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)

    waiting = asyncio.create_task(breath.together(map(act, range(40))))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == list(range(40))


async def test_those_whose_time_runs_out_together_have_their_turns_one_after_the_other() -> None:
    turns, had, seen = OneByOne(), 0, [0]

    async def late() -> None:
        nonlocal had
        await turns.turn()
        had += 1

    waiting = [asyncio.create_task(late()) for _ in range(20)]
    waiting[3].cancel()
    while had < 19:
        await asyncio.sleep(0)
        seen.append(had)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert max(b - a for a, b in itertools.pairwise(seen)) == 1
