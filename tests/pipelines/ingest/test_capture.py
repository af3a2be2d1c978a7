"""A capture block from packets to output dumps, against a model that knows what was sent.

Packets go in through spead2's in-process transport, one by one, as the network might deliver them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
import spead2
import spead2.send
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.common import spead
from pipelines.ingest.capture import CaptureBlock, CaptureCounts
from pipelines.ingest.compute import Averager, DumpStatistics, L0Dump, Processor
from pipelines.ingest.layout import InputLayout, OutputLayout
from pipelines.ingest.place import HeapClass
from pipelines.ingest.receive import Receiver
from tests.conftest import PATIENCE

LOST = 0x08
MODULUS = 1 << 48
TICKS = 1000
RATE = 1e4
N_HEAPS, PER_HEAP, N_BLS = 3, 4, 4
WINDOW = 4
CHANNELS = range(4, 16)


def make_layout(ratio: int = 2, factor: int = 2) -> OutputLayout:
    source = InputLayout(
        n_chans=20,
        n_chans_per_substream=PER_HEAP,
        n_bls=N_BLS,
        channels=CHANNELS,
        ticks_per_dump=TICKS,
        scale_factor_timestamp=RATE,
        scale=0.5,
    )
    return OutputLayout(
        source=source, output_channels=range(20), ratio=ratio, continuum_factor=factor
    )


class HeapMaker:
    """Makes the packets of correlator heaps."""

    def __init__(self) -> None:
        self.cnt = 0

    def packets(
        self, timestamp: int | None, channel: int | None, counts: np.ndarray, size: int = 100
    ) -> list[bytes]:
        items = spead.correlator_items(counts.shape[0], counts.shape[1])
        heap = spead2.send.Heap(spead.FLAVOUR)
        heap.repeat_pointers = True
        values = {"timestamp": timestamp, "frequency": channel, "xeng_raw": counts}
        for name, value in values.items():
            if value is not None:
                items[name].value = value
                heap.add_item(items[name])
        self.cnt += 1
        return [bytes(p) for p in spead2.send.PacketGenerator(heap, self.cnt, size)]


@dataclass
class Sink:
    """Keeps what is sent."""

    dumps: list[L0Dump] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)

    async def send(self, capture_block: int, dump: L0Dump) -> None:
        arrays = (dump.vis, dump.flags, dump.weights, dump.weights_channel)
        copies = [array.copy() for array in arrays]
        self.dumps.append(L0Dump(*copies, dump.index, dump.timestamp, dump.flagged))

    async def end(self, capture_block: int, n_dumps: int) -> None:
        self.ends.append((capture_block, n_dumps))


@dataclass
class Result:
    dumps: dict[int, L0Dump]
    counts: CaptureCounts
    classes: dict[HeapClass, int]
    incomplete: int


async def first_wins(proposal: float) -> float:
    return proposal


async def capture(
    layout: OutputLayout,
    packets: Iterable[bytes],
    agree: Callable[[float], Awaitable[float]] = first_wins,
    processor: Processor | None = None,
) -> Result:
    """Put the packets through a capture block."""
    receiver = Receiver(layout.source, [], ["127.0.0.1"], WINDOW)
    receiver.open()
    averager = Averager(layout, excise=True)
    averager.warm_up()  # what is not compiled yet takes longer than the time limit below
    queue = spead2.InprocQueue()
    sink = Sink()
    stream = await receiver.switch(active=True, queue=queue)
    buffers = [L0Dump.empty(layout) for _ in range(2)]
    block = CaptureBlock(17, layout, stream, processor or averager, sink, buffers, agree)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(block.run())
        for packet in packets:
            queue.add_packet(packet)
        queue.stop()  # a reader that comes to its end hands out the window
    result = Result(
        {d.index: d for d in sink.dumps}, block.counts, stream.classes(), stream.incomplete
    )
    assert sink.ends == [(17, len(sink.dumps))]
    assert len(result.dumps) == len(sink.dumps)
    account = block.counts.account
    assert account.received + account.lost == account.expected
    await receiver.close()
    return result


def counts_of(rng: np.random.Generator, n_dumps: int) -> np.ndarray:
    """Return counts (dump, heap, channel, product, 2)."""
    shape = (n_dumps, N_HEAPS, PER_HEAP, N_BLS, 2)
    return rng.integers(-(2**20), 2**20, shape, np.int32)


def check(
    result: Result, layout: OutputLayout, counts: np.ndarray, received: set[tuple[int, int]]
) -> None:
    """Compare with averages over the heaps that are said to have come: equal to the last bit."""
    numbers = sorted({dump for dump, _ in received})
    origin, factor = numbers[0], layout.continuum_factor
    indices = {(number - origin) // layout.ratio for number in numbers}
    assert set(result.dumps) == indices
    for index, out in result.dumps.items():
        first = origin + index * layout.ratio
        total = np.zeros((len(CHANNELS), N_BLS), complex)
        count = np.zeros((len(CHANNELS), N_BLS), int)
        for dump, heap in received:
            if first <= dump < first + layout.ratio:
                part = slice(heap * PER_HEAP, (heap + 1) * PER_HEAP)
                total[part] += 0.5 * (counts[dump, heap, ..., 0] + 1j * counts[dump, heap, ..., 1])
                count[part] += 1
        total = total.reshape(-1, factor, N_BLS).sum(axis=1)
        count = count.reshape(-1, factor, N_BLS).sum(axis=1)
        # A float32 holds sums of these halves exactly, and a mean but for its rounding.
        mean = total / np.maximum(count, 1)
        np.testing.assert_array_equal(out.vis, mean.astype(np.complex64))
        np.testing.assert_array_equal(out.flags, np.where(count > 0, 0, LOST))
        weights = out.weights * out.weights_channel[:, np.newaxis]
        np.testing.assert_allclose(weights, count, atol=count.max() / 500)


@dataclass(frozen=True)
class Heap:
    """A heap on its way, whole or not."""

    when: float
    dump: int
    heap: int
    packets: list[bytes]
    whole: bool


@dataclass(frozen=True)
class Faults:
    """Fractions of heaps, and how many come after their dump has left the window."""

    loss: float
    truncation: float
    repetition: float
    too_late: int


def transmitted(
    rng: np.random.Generator, counts: np.ndarray, start: int, faults: Faults
) -> list[Heap]:
    """Send all heaps through a bad network, each late by up to what the window can bear."""
    maker = HeapMaker()
    n_dumps = len(counts)
    sent = []
    hopeless = rng.choice(n_dumps * N_HEAPS, min(faults.too_late, n_dumps * N_HEAPS), replace=False)
    for dump, heap in np.ndindex(n_dumps, N_HEAPS):
        if rng.random() < faults.loss:
            continue
        delay = rng.random() * (WINDOW - 1)
        if dump * N_HEAPS + heap in hopeless:
            delay += WINDOW + 1
        # A copy is a heap of its own.
        for copy in range(1 + (rng.random() < faults.repetition)):
            timestamp, channel = (start + dump * TICKS) % MODULUS, CHANNELS[heap * PER_HEAP]
            packets = maker.packets(timestamp, channel, counts[dump, heap])
            whole = rng.random() >= faults.truncation
            if not whole:
                del packets[rng.integers(len(packets))]
            rng.shuffle(packets)
            sent.append(Heap(dump + delay + copy * 1e-9, dump, heap, packets, whole))
    return sorted(sent, key=lambda heap: heap.when)


def expected_fates(sent: list[Heap]) -> tuple[set[tuple[int, int]], Counter[str]]:
    """Return the heaps that a window of `WINDOW` dumps receives, and what becomes of the others."""
    received: set[tuple[int, int]] = set()
    placed: set[tuple[int, int]] = set()
    fates: Counter[str] = Counter()
    newest = sent[0].dump if sent else 0
    for heap in sent:
        place = (heap.dump, heap.heap)
        if newest - heap.dump >= WINDOW:
            fates["too old"] += 1
        elif place in placed:
            fates["repeated"] += 1
        else:
            newest = max(newest, heap.dump)
            placed.add(place)
            if heap.whole:
                received.add(place)
            else:
                fates["truncated"] += 1
    return received, fates


@given(
    seed=st.integers(0, 2**32 - 1),
    n_dumps=st.integers(1, 12),
    ratio=st.integers(1, 3),
    factor=st.sampled_from([1, 2]),
    start=st.sampled_from([0, 123 * TICKS + 7, MODULUS - 3 * TICKS - 5]),
    faults=st.builds(
        Faults,
        loss=st.sampled_from([0.0, 0.1, 0.6]),
        truncation=st.sampled_from([0.0, 0.2]),
        repetition=st.sampled_from([0.0, 0.3]),
        # More than these in a row would be believed: a sender whose clock was set back.
        too_late=st.integers(0, 1),
    ),
)
@settings(deadline=None, max_examples=150)
async def test_lost_heaps_are_flagged_and_the_others_are_exact(
    seed: int, n_dumps: int, ratio: int, factor: int, start: int, faults: Faults
) -> None:
    rng = np.random.default_rng(seed)
    layout = make_layout(ratio, factor)
    counts = counts_of(rng, n_dumps)
    sent = transmitted(rng, counts, start, faults)
    received, fates = expected_fates(sent)
    result = await capture(layout, [packet for heap in sent for packet in heap.packets])

    account = result.counts.account
    assert account.received == len(received)
    if received:
        dumps = [dump for dump, _ in received]
        assert account.expected == (max(dumps) - min(dumps) + 1) * N_HEAPS
        assert account.dumps == len(set(dumps))
        check(result, layout, counts, received)
    else:
        assert not result.dumps
    assert result.classes[HeapClass.DUPLICATE] == fates["repeated"]
    assert result.classes[HeapClass.TOO_OLD] == fates["too old"]
    assert result.classes[HeapClass.ACCEPTED] == len(received) + fates["truncated"]
    # spead2 counts what was turned away as well.
    assert result.incomplete == sum(not heap.whole for heap in sent)
    rejected = set(HeapClass) - {HeapClass.DUPLICATE, HeapClass.TOO_OLD, HeapClass.ACCEPTED}
    assert not any(result.classes[c] for c in rejected)


def all_packets(maker: HeapMaker, counts: np.ndarray, start: int = 0) -> list[bytes]:
    """Return packets of all heaps in order."""
    packets = []
    for dump in range(counts.shape[0]):
        for heap in range(N_HEAPS):
            channel = CHANNELS[heap * PER_HEAP]
            packets += maker.packets(start + dump * TICKS, channel, counts[dump, heap])
    return packets


def everything(n_dumps: int) -> set[tuple[int, int]]:
    return {(dump, heap) for dump in range(n_dumps) for heap in range(N_HEAPS)}


HEAP = np.zeros((PER_HEAP, N_BLS, 2), np.int32)


@pytest.mark.parametrize(
    ("hostile", "heap_class"),
    [
        (lambda m: m.packets(5 * TICKS + 1, 4, HEAP), HeapClass.BAD_TIMESTAMP),
        (lambda m: m.packets(10**12, 4, HEAP), HeapClass.BAD_TIMESTAMP),
        (lambda m: m.packets(5 * TICKS, 5, HEAP), HeapClass.BAD_CHANNEL),
        (lambda m: m.packets(5 * TICKS, 2**40, HEAP), HeapClass.BAD_CHANNEL),
        (lambda m: m.packets(5 * TICKS, 16, HEAP), HeapClass.FOREIGN),
        (lambda m: m.packets(5 * TICKS, 4, HEAP[:, :2]), HeapClass.WRONG_SIZE),
        (lambda m: m.packets(5 * TICKS, 4, np.zeros((40, 40, 2), np.int32)), HeapClass.WRONG_SIZE),
        (lambda m: m.packets(None, 4, HEAP), HeapClass.MISSING_ITEM),
        (lambda m: m.packets(5 * TICKS, None, HEAP), HeapClass.MISSING_ITEM),
        (lambda m: m.packets(None, None, HEAP), HeapClass.CONTROL),
    ],
)
async def test_hostile_heaps_are_counted_and_change_nothing(
    hostile: Callable[[HeapMaker], list[bytes]], heap_class: HeapClass
) -> None:
    maker, layout = HeapMaker(), make_layout()
    counts = counts_of(np.random.default_rng(0), 8)
    packets = all_packets(maker, counts)
    half = len(packets) // 2
    result = await capture(layout, [*packets[:half], *hostile(maker), *packets[half:]])
    assert result.classes[heap_class] == 1
    assert result.classes[HeapClass.ACCEPTED] == 8 * N_HEAPS
    check(result, layout, counts, everything(8))


async def test_rubbish_and_control_packets_change_nothing() -> None:
    maker, layout = HeapMaker(), make_layout()
    counts = counts_of(np.random.default_rng(0), 4)
    packets = all_packets(maker, counts)
    stop = spead2.send.Heap(spead.FLAVOUR)
    stop.add_end()
    items = spead.correlator_items(PER_HEAP, N_BLS)
    described = items.get_heap(descriptors="all", data="none")
    control = [
        bytes(p)
        for heap, cnt in ((stop, 10**6), (described, 10**6 + 1))
        for p in spead2.send.PacketGenerator(heap, cnt, 1000)
    ]
    rubbish = [b"", b"x", bytes(64), packets[0][:20], b"\x53\x04\x02\x06" + bytes(60)]
    result = await capture(layout, [*packets[:5], *control, *rubbish, *packets[5:]])
    check(result, layout, counts, everything(4))
    assert result.counts.account.lost == 0


@pytest.mark.parametrize("wrong", [10**13, 3 * TICKS + 1, MODULUS - 10**12])
async def test_a_bad_first_heap_does_not_become_the_origin(wrong: int) -> None:
    maker, layout = HeapMaker(), make_layout(ratio=1)
    counts = counts_of(np.random.default_rng(1), 12)
    first = maker.packets(wrong, 4, HEAP)
    result = await capture(layout, [*first, *all_packets(maker, counts)])
    assert result.counts.contradicted == 1
    # Heaps are turned away until enough of them agree; those are lost, and known to be.
    turned_away = result.classes[HeapClass.BAD_TIMESTAMP] + result.classes[HeapClass.TOO_OLD]
    assert turned_away <= 4
    assert result.counts.account.received == 12 * N_HEAPS - turned_away
    assert min(result.dumps) == 0
    assert max(d.timestamp for d in result.dumps.values()) == pytest.approx(11.5 * TICKS / RATE)


async def test_a_long_gap_is_counted_dump_by_dump() -> None:
    maker, layout = HeapMaker(), make_layout(ratio=1)
    counts = counts_of(np.random.default_rng(2), 6)
    packets = all_packets(maker, counts) + all_packets(maker, counts, start=1000 * TICKS)
    result = await capture(layout, packets)
    account = result.counts.account
    assert account.expected == 1006 * N_HEAPS
    turned_away = result.classes[HeapClass.BAD_TIMESTAMP]
    assert 0 < turned_away <= 3
    assert account.received == 12 * N_HEAPS - turned_away
    assert set(result.dumps) <= set(range(6)) | set(range(1000, 1006))
    assert {0, 5, 1002, 1005} <= set(result.dumps)


async def test_a_sender_that_starts_again_from_the_beginning_is_not_averaged_twice() -> None:
    maker, layout = HeapMaker(), make_layout(ratio=1)
    counts = counts_of(np.random.default_rng(3), 10)
    result = await capture(layout, all_packets(maker, counts) * 1 + all_packets(maker, counts))
    assert result.counts.past > 0
    assert max(result.dumps) == 9
    account = result.counts.account
    assert account.received <= account.expected


async def test_a_sender_that_starts_again_between_dumps_is_left_out() -> None:
    maker, layout = HeapMaker(), make_layout(ratio=1)
    counts = counts_of(np.random.default_rng(4), 6)
    packets = all_packets(maker, counts) + all_packets(maker, counts, start=100 * TICKS + 500)
    result = await capture(layout, packets)
    assert result.counts.off_grid > 0
    check(result, layout, counts, everything(6))


async def test_ingests_that_start_at_different_dumps_number_them_the_same() -> None:
    counts = counts_of(np.random.default_rng(5), 9)
    layout = make_layout(ratio=3)
    agreed: list[float] = []

    async def agree(proposal: float) -> float:
        agreed.append(proposal)
        return agreed[0]

    early = await capture(layout, all_packets(HeapMaker(), counts), agree)
    late = all_packets(HeapMaker(), counts[4:], start=4 * TICKS)
    later = await capture(layout, late, agree)
    assert set(early.dumps) == {0, 1, 2}
    assert set(later.dumps) == {1, 2}
    for index, dump in later.dumps.items():
        assert dump.timestamp == early.dumps[index].timestamp
    np.testing.assert_array_equal(later.dumps[2].vis, early.dumps[2].vis)
    # The other way round, what comes before the agreed first dump is left out, and counted.
    agreed[:] = [agreed[1]]
    before = await capture(layout, all_packets(HeapMaker(), counts), agree)
    assert before.counts.early_dumps == 4
    assert set(before.dumps) == {0, 1}
    assert before.counts.account.lost == 0


async def test_a_last_dump_that_is_not_full_is_sent() -> None:
    layout = make_layout(ratio=4)
    counts = counts_of(np.random.default_rng(6), 6)
    result = await capture(layout, all_packets(HeapMaker(), counts))
    assert set(result.dumps) == {0, 1}
    weights = result.dumps[1].weights * result.dumps[1].weights_channel[:, np.newaxis]
    np.testing.assert_allclose(weights, 2 * layout.continuum_factor, rtol=1e-6)
    check(result, layout, counts, everything(6))


async def test_an_error_of_telescope_state_ends_the_block() -> None:
    async def agree(proposal: float) -> float:
        raise ConnectionError("gone")

    counts = counts_of(np.random.default_rng(7), 6)
    with pytest.raises(ExceptionGroup):
        await capture(make_layout(), all_packets(HeapMaker(), counts), agree)


class NumpyProcessor:
    """What another device would do, in numpy: no flags, no averages over channels."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self.reset()

    def add(self, counts: np.ndarray, present: np.ndarray) -> DumpStatistics:
        self._total = self._total + self._scale * (counts[..., 0] + 1j * counts[..., 1])
        self._n += 1
        return DumpStatistics(counts[..., 0].size, 0, 0, 0)

    def finish(self, out: L0Dump) -> None:
        out.vis[:] = self._total / self._n
        out.flags[:] = 0
        out.weights[:], out.weights_channel[:] = self._n, 1
        self.reset()

    def reset(self) -> None:
        self._total: np.ndarray | float = 0.0
        self._n = 0


async def test_another_processor_can_take_over() -> None:
    layout = make_layout(ratio=2, factor=1)
    counts = counts_of(np.random.default_rng(8), 6)
    processor = NumpyProcessor(layout.source.scale)
    result = await capture(layout, all_packets(HeapMaker(), counts), processor=processor)
    check(result, layout, counts, everything(6))


def test_sink_sees_every_field_of_a_dump() -> None:
    names = {f.name for f in dataclasses.fields(L0Dump)}
    assert names == {
        "vis", "flags", "weights", "weights_channel", "index", "timestamp", "flagged",
    }  # fmt: skip
