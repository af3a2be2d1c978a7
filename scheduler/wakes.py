"""Many that wait, each for something of its own, and little that they wait for at a time.

In a graph that comes up, hundreds of tasks wait, and each change of one of them may be what another waits for.
To wake them all, that each may look, is hundreds of turns of coroutines for every change, and of changes there
are thousands: with 1 000 tasks, seconds of the event loop. So they are looked at in their place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wakes:
    """Wakes who waits when what it waits for holds."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._due = False

    def look(self) -> None:
        """Something has changed: look, once for all that changes in this turn of the loop."""
        if self._waiting and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._due = False
        for waiter, holds in list(self._waiting.items()):
            if waiter.done():
                continue
            try:
                if holds():
                    waiter.set_result(None)
            except Exception as exc:  # it is of the one that waits, and of nobody else
                waiter.set_exception(exc)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, which is asked after every change; it holds when this returns."""
        while not holds():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = holds
            try:
                await waiter
            finally:
                del self._waiting[waiter]
