"""Long work in pieces, between which the event loop goes on.

A loop that serves hundreds of tasks meets them all at once again and again: a product's tasks start together,
a predecessor's are taken up together. What takes a tenth of a millisecond for one takes a fifth of a second
for two thousand, and nothing else is answered meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

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


async def together(acts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Begin these, some at a time; wait for all, whatever becomes of one; then raise the first failure."""
    breath, begun = Breath(), list[asyncio.Task[None]]()
    try:
        for act in acts:
            begun.append(asyncio.create_task(act))
            await breath.step()
    except asyncio.CancelledError:
        for task in begun:
            task.cancel()
        await asyncio.wait(begun)
        raise
    for result in await asyncio.gather(*begun, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


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

    async def turn(self) -> None:
        """Wait for one's turn."""
        its: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(lambda: None if its.done() else its.set_result(None))
        await its

    def _next(self) -> None:
        try:
            self._waiting[0]()
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._next)


RATION: Final = 0.01
"""Seconds of the loop's time that many callbacks of one kind may take at a stretch."""


class Ration:
    """Time for callbacks of one kind that come all at once: beyond it, they wait until others had their turn.

    A loop that was held up finds all its sockets ready, and would read them all before anything else.

    Parameters
    ----------
    seconds
        What they may take at a stretch; they have half of all time in the long run before any of them waits.
    """

    def __init__(self, seconds: float = RATION) -> None:
        self._seconds = seconds
        self._debt = 0.0
        self._at = float("-inf")
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def full(self) -> bool:
        """Whether there is no time left now."""
        now = time.perf_counter()
        self._debt = max(0.0, self._debt - (now - self._at) / 2)
        self._at = now
        return bool(self._waiting) or self._debt >= self._seconds

    def do(self, act: Callable[[], None]) -> None:
        """Do something now."""
        begun = time.perf_counter()
        try:
            act()
        finally:
            self._debt += time.perf_counter() - begun

    def wait(self, act: Callable[[], None]) -> None:
        """Do something soon, in order."""
        self._waiting.append(act)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Do what waits, as long as there is time; and go on with the rest in the next turn."""
        end = time.perf_counter() + self._seconds
        try:
            while self._waiting and time.perf_counter() < end:
                try:
                    self._waiting[0]()
                finally:
                    self._waiting.popleft()
        finally:
            self._debt, self._at = self._seconds, time.perf_counter()  # used up, for this turn
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._go_on)
