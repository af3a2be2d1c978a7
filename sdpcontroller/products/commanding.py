"""One command of a product at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sdpcontroller.errors import CommandError
from sdpcontroller.logs import about
from sdpcontroller.products.keeper import Keeper


class Commanding:
    """Lets one command of a product run; others are refused meanwhile, or wait."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._lock = asyncio.Lock()
        self._busy = ""

    @asynccontextmanager
    async def command(self, what: str, *, wait: bool = False) -> AsyncIterator[None]:
        """Hold off other commands.

        Parameters
        ----------
        what
            What the product is busy with meanwhile, for people.
        wait
            Whether to wait for a command that runs.

        Raises
        ------
        CommandError
            If one runs, and it may not be waited for.
        """
        name = self._keeper.name
        if self._lock.locked() and not wait:
            raise CommandError(f"product {name} is busy with {self._busy}: try again later")
        async with self._lock:
            self._busy = what
            with about(product=name, capture_block=self._keeper.kept.current_block):
                yield
