"""A correlator's stream for the benchmarks, and the process that sends it.

The sender is spead2's asyncio sender with heaps that are made once; it paces itself by spead2's own rate limit.
All receivers get their data from it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import spead2.send
import spead2.send.asyncio
from numpy.typing import NDArray

from pipelines.catalogue import n_products
from pipelines.common import spead
from pipelines.common.baselines import correlator_ordering
from pipelines.common.endpoints import Endpoint
from pipelines.common.stream_info import CorrelatorStream
from pipelines.correlator.model import spectra
from pipelines.ingest.layout import InputLayout

BANDWIDTH: Final = 856e6
SLOTS: Final = 4
"""Dumps that are kept and sent over and over again."""
POWER: Final = 1_000_000
"""Counts of an autocorrelation; the noise is a thousandth of it."""
STOP_REPEATS: Final = 5


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent: dumps of some heaps, at a rate."""

    antennas: int
    n_chans: int
    n_heaps: int
    """Heaps of a dump."""
    gigabits: float
    """Rate of the data, Gb/s."""
    packet: int
    """Payload of a UDP packet, bytes."""
    port: int

    @property
    def dump_gigabits(self) -> float:
        """Data of one dump."""
        return self.n_chans * n_products(self.antennas) * 64e-9

    @property
    def int_time(self) -> float:
        """Seconds from one dump to the next."""
        return self.dump_gigabits / self.gigabits

    def n_dumps(self, seconds: float) -> int:
        """Dumps that are sent in so long."""
        return max(12, round(seconds / self.int_time))

    @property
    def stream(self) -> CorrelatorStream:
        """Its description."""
        ticks, n_accs = spectra(self.n_chans, BANDWIDTH, 2 * BANDWIDTH, self.int_time)
        return CorrelatorStream(
            name="corr",
            n_chans=self.n_chans,
            bandwidth=BANDWIDTH,
            center_freq=1284e6,
            sync_time=1.6e9,
            int_time=n_accs * ticks / (2 * BANDWIDTH),
            bls_ordering=correlator_ordering([f"m{i:03}" for i in range(self.antennas)]),
            n_chans_per_substream=self.n_chans // self.n_heaps,
            n_accs=n_accs,
            scale_factor_timestamp=2 * BANDWIDTH,
            ticks_between_spectra=ticks,
            scale=1e-3,
        )

    @property
    def layout(self) -> InputLayout:
        """The same for an ingest that takes all of it."""
        return InputLayout.of(self.stream, range(self.n_chans))

    @property
    def arguments(self) -> list[str]:
        """Command line that :meth:`parse` understands."""
        values = (self.antennas, self.n_chans, self.n_heaps, self.gigabits, self.packet, self.port)
        return [str(value) for value in values]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Read what :attr:`arguments` wrote."""
        antennas, n_chans, n_heaps, gigabits, packet, port = arguments
        return cls(
            int(antennas), int(n_chans), int(n_heaps), float(gigabits), int(packet), int(port)
        )


def noise(traffic: Traffic) -> NDArray[np.int32]:
    """Counts of one dump, shape (n_heaps, chans per heap, n_bls, 2): noise, and the inputs' powers."""
    stream = traffic.stream
    shape = (traffic.n_heaps, stream.n_chans_per_substream, stream.n_bls, 2)
    counts = np.random.default_rng(1).normal(0, POWER / 1000, shape).astype(np.int32)
    autos = [a == b for a, b in stream.bls_ordering]
    counts[..., autos, 0] += POWER
    counts[..., autos, 1] = 0
    return counts


class Sender:
    """Heaps of `SLOTS` dumps, sent over and over."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._ticks = traffic.stream.dump_ticks
        self._sender = spead.make_sender(
            [Endpoint("127.0.0.1", traffic.port)],
            rate=traffic.gigabits * 1e9 / 8 * traffic.packet / (traffic.packet - 64),
            max_packet_size=traffic.packet,
        )
        self._stamps = [np.zeros((), ">u8") for _ in range(SLOTS)]
        counts = noise(traffic)
        self._heaps = [
            [self._heap(stamp, i, part) for i, part in enumerate(counts)] for stamp in self._stamps
        ]

    def _heap(
        self, stamp: NDArray[np.uint64], substream: int, counts: NDArray[np.int32]
    ) -> spead2.send.Heap:
        items = spead.correlator_items(*counts.shape[:2])
        items["timestamp"].value = stamp
        items["frequency"].value = substream * counts.shape[0]
        items["xeng_raw"].value = counts
        heap = items.get_heap(data="all", descriptors="none")
        heap.repeat_pointers = True
        return heap

    async def send(self, n_dumps: int) -> None:
        """Send dumps; some are always under way, so that the rate limit alone sets the pace."""
        pending: set[asyncio.Task[int]] = set()
        for dump in range(n_dumps):
            while len(pending) > 2 * self._traffic.n_heaps:  # none is changed that is still sent
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            self._stamps[dump % SLOTS][...] = dump * self._ticks
            for heap in self._heaps[dump % SLOTS]:
                pending.add(asyncio.ensure_future(self._sender.async_send_heap(heap)))
        await asyncio.wait(pending)

    async def stop(self) -> None:
        """Say that the stream is over, to receivers that end by themselves."""
        for _ in range(STOP_REPEATS):
            heap = spead2.send.Heap(spead.FLAVOUR)
            heap.add_end()
            await self._sender.async_send_heap(heap)


async def _run(traffic: Traffic, n_dumps: int) -> None:
    sender = Sender(traffic)
    await sender.send(n_dumps)
    # A receiver that is behind gets what it has in its socket before the end.
    await asyncio.sleep(0.5)
    await sender.stop()


def command(traffic: Traffic, n_dumps: int) -> list[str]:
    """Command line of a process that sends."""
    program = [sys.executable, "-m", "benchmarks.ingest.traffic"]
    return [*program, *traffic.arguments, str(n_dumps)]


def main() -> None:
    """Send what the command line says."""
    parser = argparse.ArgumentParser(description="Send a correlator's stream")
    parser.add_argument("traffic", nargs=6)
    parser.add_argument("n_dumps", type=int)
    args = parser.parse_args()
    asyncio.run(_run(Traffic.parse(args.traffic), args.n_dumps))


if __name__ == "__main__":
    main()
