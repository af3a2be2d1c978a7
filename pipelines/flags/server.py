"""The flagger's KATCP server: windows of dumps are filled, flagged, and sent on as flags."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import aiokatcp
from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.catalogue import FLAGS_WINDOW
from pipelines.common.errors import StreamError, TelstateError
from pipelines.common.l0 import Dump
from pipelines.common.l0.server import L0_QUALITY, L0Input, L0Server
from pipelines.common.rfi import FlaggerSettings
from pipelines.flags.bandpass import Bandpass, BandpassFollower
from pipelines.flags.send import FlagSender
from pipelines.flags.window import Window

WINDOWS: Final = 2
"""One is filled while the other is flagged and sent."""


class FlagsServer(L0Server):
    """Flags every capture block of an L0 stream with the time axis and sends the flags on.

    With a `cal_stream` spectra are divided by the newest bandpass of the block, as soon as there is one.
    """

    STAGE = "flags"
    QUALITY = (*L0_QUALITY, "output-heaps-total", "flagged-fraction", "rfi-fraction")

    def __init__(
        self,
        options: argparse.Namespace,
        telstate: TelescopeState,
        source: L0Input,
        sender: FlagSender,
        *,
        settings: FlaggerSettings | None = None,
        depth: int = FLAGS_WINDOW,
        cal_stream: str | None = None,
    ) -> None:
        super().__init__(options, telstate, source)
        self._bandpass = (
            None if cal_stream is None else BandpassFollower(telstate, cal_stream, source.stream)
        )
        self._sender = sender
        self._settings = settings or FlaggerSettings()
        layout = self.layout
        self._windows = [Window(depth, layout.n_chans, layout.n_bls) for _ in range(WINDOWS)]
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="flags")
        self._sent = self.add_sensor(int, "output-heaps-total", "Heaps of flags sent")
        self._flagged = self.add_sensor(float, "flagged-fraction", "Part of the window with a flag")
        self._rfi = self.add_sensor(
            float, "rfi-fraction", "Part of the window with interference that ingest had not seen"
        )

        self._bandpasses = self.add_sensor(int, "bandpasses", "Bandpass solutions taken up")

    async def capture(self, cbid: str, dumps: AsyncIterator[Dump]) -> None:
        """Fill windows, and hand each on when it is full."""
        block, n_dumps = int(cbid), 0
        filling, other = self._windows
        filling.clear()
        handing: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            async for dump in dumps:
                try:
                    await self._in_thread(filling.add, dump)
                finally:
                    dump.release()
                n_dumps = max(n_dumps, dump.index + 1)
                if filling.full:
                    if handing is not None:
                        await handing
                    handing = group.create_task(self._hand_on(block, filling))
                    filling, other = other, filling
                    filling.clear()
            if handing is not None:
                await handing
            await self._hand_on(block, filling)
        await self._sender.end(block, n_dumps)

    async def _hand_on(self, block: int, window: Window) -> None:
        """Flag a window and send the flags of its dumps."""
        if not window.dumps:
            return
        bandpass = await self._newest_bandpass(str(block))
        flags, found = await self._in_thread(window.flag, self._settings, bandpass)
        self._rfi.value = found / flags.size
        self._flagged.value = float(await self._in_thread(_fraction, flags))
        for row, (index, timestamp) in enumerate(window.dumps):
            await self._sender.send(block, index, timestamp, flags[row])
            self._sent.value += self.layout.n_senders

    async def _newest_bandpass(self, block: str) -> Bandpass | None:
        """Return what spectra are divided by; flags do not wait for it, nor fail without."""
        if self._bandpass is None:
            return None
        try:
            if await self._bandpass.refresh(block):
                self._bandpasses.value += 1
        except (TelstateError, StreamError) as exc:
            self.set_device_status(aiokatcp.DeviceStatus.DEGRADED, f"no bandpass: {exc}")
        return self._bandpass.newest

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    async def on_stop(self) -> None:
        """Finish the block, then let the threads go."""
        await super().on_stop()
        await asyncio.to_thread(self._executor.shutdown)


def _fraction(flags: Any) -> float:
    return float((flags != 0).mean())
