"""Heaps on the network, as a receiver of the interface gets them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.common.baselines import correlator_ordering
from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import EndpointError
from pipelines.common.stream_info import CorrelatorStream
from pipelines.correlator.errors import ModelError
from pipelines.correlator.faults import Fate, FaultPlan
from pipelines.correlator.sender import DumpBuffer, HeapSender, send_rate

Groups = Callable[[int], tuple[Endpoint, ...]]

STREAM = CorrelatorStream(
    name="bcp",
    n_chans=64,
    n_chans_per_substream=16,
    bandwidth=856e6,
    center_freq=1284e6,
    sync_time=1.6e9,
    int_time=10**6 * 128 / 1712e6,
    n_accs=10**6,
    ticks_between_spectra=128,
    scale_factor_timestamp=1712e6,
    scale=0.25,
    bls_ordering=correlator_ordering(["m000", "m001", "m002"]),
)


async def test_every_heap_arrives_with_its_content(receiving: Any, groups: Groups) -> None:
    endpoints = groups(2)
    sender = HeapSender(STREAM, endpoints, rate=2e7, max_packet_size=1472)
    buffer = DumpBuffer(STREAM)
    rng = np.random.default_rng(1)
    expected: dict[tuple[int, int], Any] = {}
    async with receiving(endpoints) as received:
        await sender.send_descriptors()
        for dump in range(5):
            # The memory is used again: what was sent before must not change.
            buffer.counts[:] = rng.integers(-(2**31), 2**31, buffer.counts.shape)
            for first in range(0, 64, 16):
                expected[dump * STREAM.dump_ticks, first] = buffer.counts[first : first + 16].copy()
            sent = await sender.send(buffer, dump)
            assert sent.heaps == 4
            assert sent.bytes > buffer.counts.nbytes
        await received.until(lambda: len(received.heaps) == 20 and len(received.descriptors) == 2)
    assert received.heaps.keys() == expected.keys()
    for key, counts in expected.items():
        np.testing.assert_array_equal(received.heaps[key].reshape(counts.shape), counts)
    assert received.endpoint == {0: 0, 16: 0, 32: 1, 48: 1}
    assert len(set(received.counts)) == len(received.counts) == 22
    for descriptor in received.descriptors:
        assert set(descriptor) == {"timestamp", "frequency", "xeng_raw"}
        item: Any = descriptor["xeng_raw"]
        assert (item.id, item.shape, item.dtype) == (0x1800, (16, 24, 2), np.int32)


async def test_faults_are_as_planned(receiving: Any, groups: Groups) -> None:
    endpoints = groups(1)
    plan = FaultPlan(0.25, 0.25, 0.25, seed=3)
    sender = HeapSender(STREAM, endpoints, rate=2e7, max_packet_size=1472, faults=plan)
    buffer = DumpBuffer(STREAM)
    fates: Counter[Fate] = Counter()
    async with receiving(endpoints) as received:
        for dump in range(8):
            sent = await sender.send(buffer, dump)
            fates.update(sent.fates)
            assert sent.heaps == sent.fates.get(Fate.SENT, 0) + 2 * sent.fates.get(
                Fate.DUPLICATED, 0
            )
        whole = {
            (dump * STREAM.dump_ticks, 16 * substream)
            for dump in range(8)
            for substream in range(4)
            if plan.fate(dump, substream) in (Fate.SENT, Fate.DUPLICATED)
        }
        await received.until(lambda: set(received.heaps) >= whole)
    assert set(received.heaps) == whole
    assert {fate for fate in fates if fates[fate]} == set(Fate) - {Fate.REORDERED, Fate.LATE}


async def test_late_heaps_come_with_the_next_dump_as_they_were(
    receiving: Any, groups: Groups
) -> None:
    endpoints = groups(1)
    plan = FaultPlan(seed=4, reorder=0.3, late=0.3)
    sender = HeapSender(STREAM, endpoints, rate=2e6, max_packet_size=1472, faults=plan)
    buffer = DumpBuffer(STREAM)
    rng = np.random.default_rng(1)
    expected: dict[tuple[int, int], Any] = {}
    order: list[tuple[int, int]] = []
    late: list[tuple[int, int]] = []
    heaps = 0
    async with receiving(endpoints) as received:
        for dump in range(6):
            buffer.counts[:] = rng.integers(-(2**31), 2**31, buffer.counts.shape)
            keys = [(dump * STREAM.dump_ticks, 16 * substream) for substream in range(4)]
            for key in keys:
                expected[key] = buffer.counts[key[1] : key[1] + 16].copy()
            fate = {key: plan.fate(dump, key[1] // 16) for key in keys}
            order += [key for key in keys if fate[key] is Fate.SENT]
            order += [*late, *(key for key in keys if fate[key] is Fate.REORDERED)]
            late = [key for key in keys if fate[key] is Fate.LATE]
            heaps += (await sender.send(buffer, dump)).heaps
        buffer.counts[:] = 0
        heaps += (await sender.send_late()).heaps
        await received.until(lambda: len(received.heaps) == 24)
    assert heaps == 24
    assert list(received.heaps) == [*order, *late]
    for key, counts in expected.items():
        np.testing.assert_array_equal(received.heaps[key].reshape(counts.shape), counts)


async def test_timestamps_wrap_around(receiving: Any, groups: Groups) -> None:
    endpoints = groups(1)
    sender = HeapSender(STREAM, endpoints, rate=2e7)
    dump = 2**48 // STREAM.dump_ticks + 1
    async with receiving(endpoints) as received:
        await sender.send(DumpBuffer(STREAM), dump)
        await received.until(lambda: len(received.heaps) == 4)
    assert {timestamp for timestamp, _ in received.heaps} == {dump * STREAM.dump_ticks - 2**48}


def test_the_rate_is_a_little_more_than_real_time() -> None:
    size = 4 * STREAM.heap_bytes
    rate = send_rate(STREAM, 1.0, 1e9)
    assert 1.05 * size / STREAM.int_time <= rate <= 1.1 * size / STREAM.int_time
    assert send_rate(STREAM, 0.1, 1e9) == pytest.approx(10 * rate)
    assert send_rate(STREAM, 0.0, 8e6) == 1e6
    with pytest.raises(ModelError, match="larger clock ratio"):
        send_rate(STREAM, 1e-9, 1e9)


async def test_what_cannot_be_sent_to_is_refused(groups: Groups) -> None:
    with pytest.raises(ModelError, match="5 endpoints for 4 substreams"):
        HeapSender(STREAM, groups(5), rate=1e6)
    with pytest.raises(EndpointError, match="multicast"):
        HeapSender(STREAM, (*groups(1), Endpoint("127.0.0.1", 7148)), rate=1e6)
    with pytest.raises(EndpointError, match="interface no-such"):
        HeapSender(STREAM, groups(1), rate=1e6, interface="no-such")
