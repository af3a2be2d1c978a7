"""Long work lets others have their turn."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from scheduler.breath import Breath


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
