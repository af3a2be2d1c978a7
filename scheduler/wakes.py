"""Many that wait, each for something of its own, and little that they wait for at a time.

In a graph that comes up, hundreds of tasks wait, and each change of one of them may be what another waits for.
To wake them all, that each may look, is hundreds of turns of coroutines for every change, and of changes there
are thousands: with 1 000 tasks, seconds of the event loop. So they are looked at in their place; and of those
who say what they wait for, only those whom a change concerns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

Holds: TypeAlias = Callable[[], bool]
_Waiter: TypeAlias = asyncio.Future[None]


class Wakes:
    """Wakes who waits when what it waits for holds."""

    def __init__(self) -> None:
        self._waiting: dict[_Waiter, Holds] = {}
        """Everybody, with what is to be asked when anything may have changed."""
        self._indifferent: dict[_Waiter, Holds] = {}
        """Those of them who have not said what they wait for."""
        self._of: dict[object, dict[_Waiter, Holds]] = {}
        """Those who have, by that."""
        self._changed: dict[object, None] = {}
        self._all_changed = False
        self._due = False

    def look(self, about: object = None) -> None:
        """Something has changed: look, once for all that changes in this turn of the loop.

        Parameters
        ----------
        about
            What has: those who wait for other things only are not asked. None: all are.
        """
        if not self._waiting:
            return
        if about is None:
            self._all_changed = True
        else:
            self._changed[about] = None
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        concerned = dict(self._waiting if self._all_changed else self._indifferent)
        if not self._all_changed:
            for about in self._changed:
                for waiter, holds in tuple(self._of.get(about, {}).items()):
                    _ask(waiter, holds)
        self._changed.clear()
        self._due = self._all_changed = False
        for waiter, holds in concerned.items():
            _ask(waiter, holds)

    async def until(self, holds: Holds, about: Iterable[object] = ()) -> None:
        """Wait until something holds, which is asked after every change; it holds when this returns.

        Parameters
        ----------
        about
            All whose changes may bring it about, where not any may.
        """
        await self._until(holds, dict.fromkeys(about, holds))

    async def until_any(self, each: Mapping[object, Holds]) -> None:
        """Wait until one of these holds; each is asked after changes of that by which it is given."""
        await self._until(lambda: any(holds() for holds in each.values()), each)

    async def _until(self, holds: Holds, each: Mapping[object, Holds]) -> None:
        while not holds():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = holds
            if not each:
                self._indifferent[waiter] = holds
            for about, its in each.items():
                self._of.setdefault(about, {})[waiter] = its
            try:
                await waiter
            finally:
                self._forget(waiter, each)

    def _forget(self, waiter: _Waiter, each: Mapping[object, Holds]) -> None:
        del self._waiting[waiter]
        self._indifferent.pop(waiter, None)
        for about in each:
            del self._of[about][waiter]
            if not self._of[about]:
                del self._of[about]


def _ask(waiter: _Waiter, holds: Holds) -> None:
    if waiter.done():
        return
    try:
        if holds():
            waiter.set_result(None)
    except Exception as exc:  # it is of the one that waits, and of nobody else
        waiter.set_exception(exc)
