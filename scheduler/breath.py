"""Long work in pieces, between which the event loop goes on.

A loop that serves hundreds of tasks meets them all at once again and again: a product's tasks start together,
a predecessor's are taken up together. What takes a tenth of a millisecond for one takes a fifth of a second
for two thousand, and nothing else is answered meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

BREATH: Final = 32
"""Steps at a time, of some tenth of a millisecond each."""


class Breath:
    """Counts the steps of long work. By number, not by the clock: a test meets the same pauses each time.

    Parameters
    ----------
    steps
        How many are done before others have their turn.
    """

    def __init__(self, steps: int = BREATH) -> None:
        self._steps = self._left = steps

    async def step(self) -> None:
        """Note that a step is done; after every so many, let others have their turn.

        Whatever is read before must be taken to have changed after.
        """
        self._left -= 1
        if self._left <= 0:
            self._left = self._steps
            await asyncio.sleep(0)


class OneByOne:
    """Calls what it is given one after the other: between two of them others have their turn.

    Timers that end together are all called before anything else; ten products that each tell of two hundred
    tasks hold the loop up for a tenth of a second so.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, act: Callable[[], None]) -> None:
        """Call something soon."""
        self._waiting.append(act)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        try:
            self._waiting[0]()
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._next)
