"""Send heaps of flags: each dump in as many parts as its visibilities came in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import spead2
import spead2.send

from pipelines.common import spead
from pipelines.common.endpoints import Endpoint
from pipelines.common.l0 import L0Layout

_MAX_HEAPS: Final = 4


class FlagSender:
    """Sends a stream of flags; lives as long as the program.

    Parameters
    ----------
    layout
        Of the stream of flags.
    endpoints
        One for each part of the band.
    rate
        Bytes per second.
    """

    def __init__(
        self, layout: L0Layout, endpoints: Sequence[Endpoint], interface: str, rate: float
    ) -> None:
        self._layout = layout
        self._stream = spead.make_sender(
            endpoints, interface=interface, rate=rate, max_heaps=_MAX_HEAPS * layout.n_senders
        )

    async def send(
        self, capture_block: int, index: int, timestamp: float, flags: npt.NDArray[np.uint8]
    ) -> None:
        """Send the flags of a dump, uint8 (C, B), which must not change until this returns."""
        for part in range(self._layout.n_senders):
            channels = self._layout.channels(part)
            items = spead.flags_items(len(channels), self._layout.n_bls)
            items["flags"].value = flags[channels.start : channels.stop]
            items["timestamp"].value = timestamp
            items["dump_index"].value = index
            await self._send(items, part, capture_block)

    async def end(self, capture_block: int, n_dumps: int) -> None:
        """Say, as often as the interface wants it, that no more dumps will come."""
        for part in range(self._layout.n_senders):
            for _ in range(spead.END_HEAP_REPEATS):
                items = spead.flags_items(self._layout.channels_per_sender, self._layout.n_bls)
                items["timestamp"].value = float(n_dumps)
                items["dump_index"].value = spead.END_DUMP_INDEX
                await self._send(items, part, capture_block)

    async def _send(self, items: spead2.send.ItemGroup, part: int, capture_block: int) -> None:
        items["frequency"].value = self._layout.channels(part).start
        items["capture_block_id"].value = capture_block
        heap = spead2.send.Heap(spead.FLAVOUR)
        for item in items.values():
            if item.value is not None:
                heap.add_item(item)
        heap.repeat_pointers = True
        await self._stream.async_send_heap(heap, substream_index=part)
