from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest
import spead2
import spead2.send
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import StreamError
from pipelines.common.l0 import HeapClass, L0Layout, L0Receiver
from pipelines.common.l0.receiver import buffer_bytes
from pipelines.common.spead import (
    CAPTURE_BLOCK_ID,
    DUMP_INDEX_ID,
    END_DUMP_INDEX,
    FLAVOUR,
    FREQUENCY_ID,
    IMMEDIATE_FORMAT,
    L0_TIMESTAMP_ID,
    l0_items,
)

CBID = 1234567890
LAYOUT = L0Layout(n_chans=6, n_bls=4, n_senders=2, int_time=0.5)
FIRST = 100.25


@dataclass(frozen=True)
class Data:
    """One heap's content, made from its place."""

    dump: int
    sender: int
    block: int = CBID
    time_error: float = 0.0

    def arrays(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.dump, self.sender])
        n, b = LAYOUT.channels_per_sender, LAYOUT.n_bls
        return {
            "correlator_data": (rng.normal(size=(n, b)) + 1j * rng.normal(size=(n, b))).astype(
                "c8"
            ),
            "flags": rng.integers(0, 256, (n, b), dtype="u1"),
            "weights": rng.integers(0, 256, (n, b), dtype="u1"),
            "weights_channel": rng.normal(size=n).astype("f4"),
        }

    def heap(self) -> spead2.send.Heap:
        items = l0_items(LAYOUT.channels_per_sender, LAYOUT.n_bls)
        values = self.arrays() | {
            "timestamp": FIRST + self.dump * LAYOUT.int_time + self.time_error,
            "dump_index": self.dump,
            "frequency": self.sender * LAYOUT.channels_per_sender,
            "capture_block_id": self.block,
        }
        for name, value in values.items():
            items[name].value = value
        return items.get_heap(descriptors="none", data="all")


@dataclass(frozen=True)
class End:
    sender: int
    count: float

    def heap(self) -> spead2.send.Heap:
        items = spead2.send.ItemGroup(flavour=FLAVOUR)
        items.add_item(L0_TIMESTAMP_ID, "timestamp", "", (), np.float64, value=self.count)
        for item, value in (
            (DUMP_INDEX_ID, END_DUMP_INDEX),
            (FREQUENCY_ID, self.sender * LAYOUT.channels_per_sender),
            (CAPTURE_BLOCK_ID, CBID),
        ):
            items.add_item(item, f"i{item}", "", (), format=IMMEDIATE_FORMAT, value=value)
        return items.get_heap(descriptors="none", data="all")


Event = Data | End


def send(queue: spead2.InprocQueue, events: Iterable[Event]) -> None:
    stream = spead2.send.InprocStream(spead2.ThreadPool(), [queue], spead2.send.StreamConfig())
    for event in events:
        heap = event.heap()
        heap.repeat_pointers = True
        stream.send_heap(heap)


async def receive(
    events: list[Event], *, deadline: float | None = None
) -> tuple[dict[tuple[int, int], dict[str, np.ndarray]], list[float], L0Receiver]:
    """What comes out, by dump and sender, with each dump's time."""
    queue = spead2.InprocQueue()
    got: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    times: list[float] = []
    async with L0Receiver(LAYOUT, CBID, window=4, held=2) as receiver:
        receiver.add_inproc(queue)
        sending = asyncio.create_task(asyncio.to_thread(send, queue, events))
        if deadline is not None:
            receiver.finish_within(deadline)
        async for dump in receiver:
            times.append(dump.timestamp)
            for part in dump.parts:
                sender = part.channels.start // LAYOUT.channels_per_sender
                assert part.channels == LAYOUT.channels(sender)
                got[dump.index, sender] = {
                    "correlator_data": part.vis.copy(),
                    "flags": part.flags.copy(),
                    "weights": part.weights.copy(),
                    "weights_channel": part.weights_channel.copy(),
                }
            dump.release()
        await sending
        assert times == sorted(times)
        return got, times, receiver


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process nothing is overtaken: no need to wait for stragglers."""
    monkeypatch.setattr("pipelines.common.l0.receiver._SETTLE", 0.0)
    monkeypatch.setattr("pipelines.common.l0.receiver._POLL", 0.005)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Event], dict[int, int], set[tuple[int, int]]]:
    """Heaps as they arrive, the count each sender announces, and what of its heaps arrives in time.

    Heaps are lost, doubled, and moved by less than the window of four dumps.
    """
    n_dumps = draw(st.integers(0, 12))
    start = draw(st.sampled_from([0, 3, 900]))
    sent = [(start + d, s) for d in range(n_dumps) for s in range(2)]
    kept = [h for h in sent if draw(st.integers(0, 5)) > 0]
    copies = [h for h in kept for _ in range(draw(st.sampled_from([1, 1, 1, 2])))]
    # A sort by a key that differs from the order by less than two dumps keeps each heap in the window.
    keyed = sorted(copies, key=lambda h: h[0] + draw(st.integers(0, 2)))
    ends: list[Event] = [End(s, n_dumps) for s in (0, 1) for _ in range(3)]
    return [*(Data(*h) for h in keyed), *ends], {0: n_dumps, 1: n_dumps}, set(kept)


@given(arrivals())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_arrives_comes_out_exactly_once_and_the_rest_is_counted(
    case: tuple[list[Event], dict[int, int], set[tuple[int, int]]],
) -> None:
    events, announced, arrived = case
    got, _, receiver = asyncio.run(receive(events))
    assert set(got) == arrived
    for (dump, sender), arrays in got.items():
        for name, value in Data(dump, sender).arrays().items():
            np.testing.assert_array_equal(arrays[name], value)
    for sender, count in enumerate(receiver.counts):
        assert count.announced == announced[sender]
        assert count.lost == announced[sender] - sum(s == sender for _, s in arrived)


async def test_a_block_without_end_heaps_ends_at_the_deadline() -> None:
    events: list[Event] = [Data(d, s) for d in range(6) for s in range(2) if (d, s) != (5, 1)]
    got, times, receiver = await receive([*events, End(0, 6)], deadline=0.3)
    assert len(got) == 11
    assert times == [FIRST + 0.5 * d for d in range(6)]
    first, second = receiver.counts
    assert (first.announced, first.lost) == (6, 0)
    assert (second.announced, second.lost) == (None, 1)


async def test_heaps_of_other_blocks_and_with_wrong_times_are_not_taken() -> None:
    events: list[Event] = [
        Data(0, 0),
        Data(1, 0, block=7),
        Data(2, 0, time_error=0.5),
        Data(10_000_000, 0),
        Data(5000, 0),
        Data(1, 1),
        End(0, 3),
        End(1, 1),
    ]
    got, _, receiver = await receive(events)
    assert set(got) == {(0, 0), (1, 1)}
    assert receiver.bad_timestamps == 1
    assert receiver.heaps[HeapClass.OTHER_BLOCK] == 1
    assert receiver.heaps[HeapClass.BAD_DUMP] == 2
    assert [c.lost for c in receiver.counts] == [2, 0]


async def test_a_second_heap_confirms_a_jump() -> None:
    events: list[Event] = [Data(0, 0), Data(5000, 0), Data(5000, 1), Data(5001, 0)]
    got, _, _ = await receive([*events, End(0, 3), End(1, 1)])
    assert set(got) == {(0, 0), (5000, 1), (5001, 0)}


heap_ids = itertools.count(7000)


def packet(length: int, items: dict[int, int], payload: bytes) -> bytes:
    """A SPEAD packet that claims to be the first of a heap of `length` bytes."""
    pointers = {1: next(heap_ids), 2: length, 3: 0, 4: len(payload)} | items
    header = struct.pack(">BBBBHH", 0x53, 4, 2, 6, 0, len(pointers))
    words = (1 << 63 | item << 48 | value for item, value in pointers.items())
    return header + b"".join(struct.pack(">Q", word) for word in words) + payload


async def test_hostile_packets_neither_stop_the_receiver_nor_reach_the_data(
    unused_port: int,
) -> None:
    endpoint = Endpoint("239.192.71.5", unused_port)
    place = {DUMP_INDEX_ID: 1, FREQUENCY_ID: 0, CAPTURE_BLOCK_ID: CBID}
    hostile = [
        packet(1 << 46, place, b"x" * 8),
        packet(8, place, b"x" * 8),
        packet(LAYOUT.heap_bytes, place | {FREQUENCY_ID: 1}, b"x" * 8),
        packet(LAYOUT.heap_bytes, place | {FREQUENCY_ID: 6}, b"x" * 8),
        packet(LAYOUT.heap_bytes, {DUMP_INDEX_ID: 1}, b"x" * 8),
        packet(LAYOUT.heap_bytes + 8, place | {DUMP_INDEX_ID: END_DUMP_INDEX}, b"x" * 8),
        b"",
        b"\x53" * 40,
        b"noise",
    ]
    async with L0Receiver(LAYOUT, CBID, window=4, held=2) as receiver:
        receiver.listen(endpoint)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            for data in hostile:
                sock.sendto(data, (endpoint.host, endpoint.port))
        sender = spead2.send.UdpStream(
            spead2.ThreadPool(),
            [(endpoint.host, endpoint.port)],
            spead2.send.StreamConfig(max_packet_size=1400, rate=1e6),
            ttl=1,
            interface_address="127.0.0.1",
        )
        for cnt, event in enumerate([Data(0, 0), Data(0, 1), End(0, 1), End(1, 1)]):
            heap = event.heap()
            heap.repeat_pointers = True
            sender.send_heap(heap, cnt=1000 + cnt)
        dumps = [dump.index async for dump in receiver]
        heaps = receiver.heaps
    assert dumps == [0]
    assert [c.lost for c in receiver.counts] == [0, 0]
    assert heaps[HeapClass.WRONG_SIZE] == 3
    assert heaps[HeapClass.BAD_CHANNEL] == 2
    assert heaps[HeapClass.MISSING_ITEM] == 1


@given(
    st.integers(1, 64), st.integers(1, 40), st.integers(1, 8), st.integers(1, 10), st.integers(0, 9)
)
def test_memory_follows_the_formula(
    channels: int, n_bls: int, senders: int, window: int, held: int
) -> None:
    layout = L0Layout(channels * senders, n_bls, senders, 1.0)
    per_dump = buffer_bytes(layout, window, held) / (window + held + 1)
    payload = senders * layout.heap_bytes
    assert payload <= per_dump <= payload + senders * 72 + 8


@pytest.mark.parametrize(
    ("n_chans", "n_bls", "senders", "int_time"),
    [(0, 4, 1, 1.0), (8, 0, 1, 1.0), (8, 4, 0, 1.0), (8, 4, 3, 1.0), (8, 4, 2, float("nan"))],
)
def test_layouts_that_cannot_be_are_refused(
    n_chans: int, n_bls: int, senders: int, int_time: float
) -> None:
    with pytest.raises(StreamError):
        L0Layout(n_chans, n_bls, senders, int_time)
