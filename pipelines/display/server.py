"""The display's KATCP server: dumps from the network into the history, as many as there is time for."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common.l0 import Dump
from pipelines.common.l0.server import L0_QUALITY, L0Input, L0Server
from pipelines.display.frame import describe, frame, product_number
from pipelines.display.history import DEFAULT_DEPTH, Axes, History

DEFAULT_RATE: Final = 4.0
"""Dumps a second that are looked at: nobody sees more."""


class DisplayServer(L0Server):
    """Keeps the last dumps of a stream for the page.

    Dumps that come faster than `max_rate`, or while the one before is being worked on, are left out: the
    display never holds up the network, and nobody else depends on it.
    """

    STAGE = "display"
    QUALITY = (*L0_QUALITY, "flagged-fraction", "dumps-skipped")

    def __init__(
        self,
        options: argparse.Namespace,
        telstate: TelescopeState,
        source: L0Input,
        *,
        depth: int = DEFAULT_DEPTH,
        max_rate: float = DEFAULT_RATE,
    ) -> None:
        super().__init__(options, telstate, source)
        stream = source.stream
        self._history = History(Axes(stream.bls_ordering, stream.channel_freqs), depth)
        self._interval = 1 / max_rate
        # One thread: the history is for one at a time.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="display")
        self._shown = self.add_sensor(int, "dumps-shown", "Dumps that the page shows or has shown")
        self._skipped = self.add_sensor(int, "dumps-skipped", "Dumps left out, to keep up")
        self._flagged = self.add_sensor(
            float, "flagged-fraction", "Part of the newest dump that is flagged or did not come"
        )

    async def prepare(self, cbid: str) -> None:
        """Forget the block before."""
        await self._in_thread(self._history.clear)

    async def capture(self, cbid: str, dumps: AsyncIterator[Dump]) -> None:
        """Take dumps into the history."""
        loop = asyncio.get_running_loop()
        taking: asyncio.Task[None] | None = None
        due = 0.0
        async with asyncio.TaskGroup() as group:
            async for dump in dumps:
                if loop.time() < due or (taking is not None and not taking.done()):
                    dump.release()
                    self._skipped.value += 1
                    continue
                due = loop.time() + self._interval
                taking = group.create_task(self._take(dump))

    async def _take(self, dump: Dump) -> None:
        time = self.source.stream.sync_time + dump.timestamp
        try:
            await self._in_thread(self._history.take, time, dump.parts)
        finally:
            dump.release()
        self._shown.value += 1
        row = (self._history.dumps - 1) % self._history.depth
        self._flagged.value = float(np.mean(self._history.occupancy[row]))

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    async def description(self) -> dict[str, Any]:
        """Return the axes, for the page."""
        return describe(self._history, self.source.stream.name)

    async def frame(self, product: str, since: int) -> dict[str, Any]:
        """Return what is new since a dump (:func:`pipelines.display.frame.frame`), and how the block goes.

        Raises
        ------
        DisplayError
            The stream has no such product.
        """
        number = product_number(self._history, product)
        new: dict[str, Any] = await self._in_thread(frame, self._history, number, since)
        return new | {
            "capture_block": self.sensors["capture-block-id"].value,
            "heaps": self.sensors["input-heaps-total"].value,
            "lost": self.sensors["input-heaps-lost"].value,
            "skipped": self._skipped.value,
            "status": self.device_status.name.lower(),
        }

    async def on_stop(self) -> None:
        """Finish the block, then let the thread go."""
        await super().on_stop()
        await asyncio.to_thread(self._executor.shutdown)
