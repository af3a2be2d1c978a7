"""Send L0 heaps of one ingest to its endpoint."""

from __future__ import annotations

from typing import Final

import spead2
import spead2.send

from pipelines.common import spead
from pipelines.common.endpoints import Endpoint
from pipelines.ingest.compute import L0Dump
from pipelines.ingest.layout import OutputLayout

RATE_MARGIN: Final = 1.05
"""How much faster than real time heaps leave, so that a delay is made up for without a burst."""
_MAX_HEAPS: Final = 4


def output_rate(layout: OutputLayout, clock_ratio: float, max_rate: float) -> float:
    """Return the rate to send at, bytes per second.

    Parameters
    ----------
    layout
        What is sent.
    clock_ratio
        Seconds of wall clock per second of observation; 0 if the input comes as fast as it can.
    max_rate
        Bits per second, for want of a clock.
    """
    if clock_ratio == 0:
        return max_rate / 8
    return RATE_MARGIN * layout.heap_bytes / (layout.int_time * clock_ratio)


class L0Sender:
    """Sender of one ingest; lives as long as the program.

    Parameters
    ----------
    layout
        What is sent.
    endpoint
        Where to.
    interface
        Address of the interface that multicast leaves by.
    rate
        Bytes per second.
    """

    def __init__(
        self, layout: OutputLayout, endpoint: Endpoint, interface: str, rate: float
    ) -> None:
        self._layout = layout
        self._stream = spead.make_sender(
            [endpoint],
            interface=interface,
            rate=rate,
            max_heaps=_MAX_HEAPS,
        )
        # Heap counts of all ingests of a stream are different, and spread evenly modulo their number.
        own = len(layout.channels)
        self._stream.set_cnt_sequence(layout.channels.start // own, max(1, layout.n_chans // own))

    async def send(self, capture_block: int, dump: L0Dump) -> None:
        """Send a dump; its arrays are free again when this returns."""
        items = spead.l0_items(len(self._layout.channels), self._layout.source.n_bls)
        items["correlator_data"].value = dump.vis
        items["flags"].value = dump.flags
        items["weights"].value = dump.weights
        items["weights_channel"].value = dump.weights_channel
        items["timestamp"].value = dump.timestamp
        items["dump_index"].value = dump.index
        await self._send(items, capture_block)

    async def end(self, capture_block: int, n_dumps: int) -> None:
        """Say, as often as the interface wants it, that `n_dumps` dumps were sent and no more will come."""
        for _ in range(spead.END_HEAP_REPEATS):
            items = spead.l0_items(len(self._layout.channels), self._layout.source.n_bls)
            items["timestamp"].value = float(n_dumps)
            items["dump_index"].value = spead.END_DUMP_INDEX
            await self._send(items, capture_block)

    async def _send(self, items: spead2.send.ItemGroup, capture_block: int) -> None:
        items["frequency"].value = self._layout.channels.start
        items["capture_block_id"].value = capture_block
        heap = spead2.send.Heap(spead.FLAVOUR)
        for item in items.values():
            if item.value is not None:
                heap.add_item(item)
        # Receivers place a heap by the first packet that they see of it, whichever that is.
        heap.repeat_pointers = True
        await self._stream.async_send_heap(heap)
