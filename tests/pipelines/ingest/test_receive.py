"""Heaps over real UDP: several groups, several interfaces, and where they do not belong."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from pipelines.common import spead
from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import EndpointError
from pipelines.common.sockets import open_socket
from pipelines.ingest.layout import InputLayout
from pipelines.ingest.place import HeapClass
from pipelines.ingest.receive import HeapStream, Receiver
from tests.conftest import PATIENCE

LOOPBACK = "127.0.0.1"
TICKS, N_BLS, PER_HEAP, N_HEAPS = 1000, 4, 8, 6
LAYOUT = InputLayout(
    n_chans=PER_HEAP * N_HEAPS,
    n_chans_per_substream=PER_HEAP,
    n_bls=N_BLS,
    channels=range(PER_HEAP * N_HEAPS),
    ticks_per_dump=TICKS,
    scale_factor_timestamp=1e4,
    scale=1.0,
)


class Source:
    """Sends heaps of the interface to groups by one interface; nothing leaves the machine."""

    _cnt = itertools.count(1)

    def __init__(self, groups: Sequence[Endpoint], interface: str) -> None:
        self._sender = spead.make_sender(groups, rate=2e7, interface=interface, ttl=0)

    async def send(self, dump: int, substream: int, group: int, counts: np.ndarray) -> None:
        items = spead.correlator_items(PER_HEAP, N_BLS)
        items["timestamp"].value = dump * TICKS
        items["frequency"].value = substream * PER_HEAP
        items["xeng_raw"].value = counts
        heap = items.get_heap(data="all", descriptors="none")
        heap.repeat_pointers = True
        await self._sender.async_send_heap(heap, next(self._cnt), substream_index=group)


async def until(stream: HeapStream, heap_class: HeapClass, n: int) -> None:
    """Wait for the callback to have seen `n` heaps of a class."""
    async with asyncio.timeout(PATIENCE):
        # The network thread counts; nothing tells this one.
        while stream.classes()[heap_class] < n:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def received(stream: HeapStream) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return counts and presence by timestamp, to the end of the stream."""
    stream.finish()
    dumps = {}
    async for dump in stream.dumps():
        dumps[dump.timestamp] = (dump.counts.copy(), dump.present.copy())
        stream.give_back(dump.slot)
    return dumps


def groups_of(n: int, port: int) -> list[Endpoint]:
    return [Endpoint(f"239.102.31.{i + 1}", port) for i in range(n)]


def random_counts(n_dumps: int) -> np.ndarray:
    shape = (n_dumps, N_HEAPS, PER_HEAP, N_BLS, 2)
    return np.random.default_rng(1).integers(-(2**31), 2**31, shape, np.int32)


@pytest.mark.parametrize("n_groups", [1, 3, 6])
async def test_one_ingest_receives_all_substreams_of_several_groups(
    n_groups: int, unused_port: int
) -> None:
    groups = groups_of(n_groups, unused_port)
    receiver = Receiver(LAYOUT, groups, [LOOPBACK])
    receiver.open()
    stream = await receiver.switch(active=True)
    source, counts = Source(groups, LOOPBACK), random_counts(3)
    for dump in range(3):
        for substream in range(N_HEAPS):
            group = substream * n_groups // N_HEAPS
            await source.send(dump, substream, group, counts[dump, substream])
    await until(stream, HeapClass.ACCEPTED, 3 * N_HEAPS)
    dumps = await received(stream)
    await receiver.close()
    assert set(dumps) == {0, TICKS, 2 * TICKS}
    for timestamp, (data, present) in dumps.items():
        assert present.all()
        np.testing.assert_array_equal(data, counts[timestamp // TICKS].reshape(data.shape))


async def test_groups_are_shared_out_among_interfaces_and_heard_on_their_own_only(
    unused_port: int, other_interface: str
) -> None:
    groups = groups_of(3, unused_port)
    receiver = Receiver(LAYOUT, groups, [LOOPBACK, other_interface])  # two groups on the first
    receiver.open()
    stream = await receiver.switch(active=True)
    sources, counts = [Source(groups, LOOPBACK), Source(groups, other_interface)], random_counts(2)
    # Somebody else on this machine hears the last group on the wrong interface.
    with open_socket(groups[2], LOOPBACK, 0):
        for dump in range(2):
            for substream in range(N_HEAPS):
                group = substream // 2
                own = group // 2
                await sources[1 - own].send(dump, substream, group, ~counts[dump, substream])
                await sources[own].send(dump, substream, group, counts[dump, substream])
    await until(stream, HeapClass.ACCEPTED, 2 * N_HEAPS)
    assert stream.classes()[HeapClass.DUPLICATE] == 0
    dumps = await received(stream)
    await receiver.close()
    for timestamp, (data, present) in dumps.items():
        assert present.all()
        np.testing.assert_array_equal(data, counts[timestamp // TICKS].reshape(data.shape))


def test_an_interface_that_would_get_nothing_is_refused(unused_port: int) -> None:
    receiver = Receiver(LAYOUT, groups_of(1, unused_port), [LOOPBACK, LOOPBACK])
    with pytest.raises(EndpointError, match="2 interfaces for 1 groups"):
        receiver.open()


def test_an_interface_that_is_not_there_is_named(unused_port: int) -> None:
    receiver = Receiver(LAYOUT, groups_of(2, unused_port), [LOOPBACK, "10.255.255.1"])
    with pytest.raises(EndpointError, match=r"239\.102\.31\.2:\d+ on interface 10\.255\.255\.1"):
        receiver.open()
