"""Long work lets others have their turn."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from scheduler.breath import Breath, OneByOne


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
        breath = Breath(steps)
        for _ in range(total):
            done += 1
            await breath.step()
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
