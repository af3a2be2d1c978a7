"""Long work in pieces, between which the event loop goes on.

A loop that serves hundreds of tasks meets them all at once again and again: a product's tasks start together,
a predecessor's are taken up together. What takes a tenth of a millisecond for one takes a fifth of a second
for two thousand, and nothing else is answered meanwhile.
"""

from __future__ import annotations

import asyncio
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
