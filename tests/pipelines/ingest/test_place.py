"""Where heaps go: the decisions of the place callback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ingest import place
from pipelines.ingest.place import HeapClass

TICKS = 1000
WINDOW = 4
N_HEAPS = 2
MODULUS = 1 << 48
HEAP_BYTES = 64


class Callback:
    """The callback's decisions, in words."""

    def __init__(self) -> None:
        self.array, self._table = place.new_state(WINDOW, N_HEAPS)
        constants = {
            "active": 1,
            "heap_bytes": HEAP_BYTES,
            "n_chans": 64,
            "first_channel": 16,
            "channels_per_heap": 8,
            "ticks": TICKS,
            "max_ahead": 16,
            "confirmations": 4,
        }
        for name, value in constants.items():
            self.array[name] = value

    def __call__(
        self, timestamp: int, channel: int = 16, length: int = HEAP_BYTES
    ) -> tuple[HeapClass, int, int]:
        state: Any = self.array[0]
        verdict, chunk, index = place._classify(state, timestamp, channel, length)
        return HeapClass(verdict), chunk, index

    def verdict(self, timestamp: int, channel: int = 16, length: int = HEAP_BYTES) -> HeapClass:
        return self(timestamp, channel, length)[0]


@given(
    start=st.integers(0, MODULUS - 1),
    order=st.permutations([(dump, heap) for dump in range(WINDOW) for heap in range(N_HEAPS)]),
)
@settings(deadline=None, max_examples=50)
def test_every_heap_within_the_window_has_its_own_place_in_any_order(
    start: int, order: list[tuple[int, int]]
) -> None:
    callback = Callback()
    places = {}
    for dump, heap in order:
        # The newest may be up to a window ahead; anything not older than that is at home.
        verdict, chunk, index = callback((start + dump * TICKS) % MODULUS, 16 + 8 * heap)
        assert verdict is HeapClass.ACCEPTED
        assert index == heap
        places[dump, heap] = chunk
    first = {chunk - dump for (dump, _), chunk in places.items()}
    assert len(first) == 1  # the chunk id tells the dump, across the wrap of the counter too


@pytest.mark.parametrize(
    ("channel", "length", "verdict"),
    [
        (16, HEAP_BYTES - 1, HeapClass.WRONG_SIZE),
        (16, -1, HeapClass.WRONG_SIZE),
        (17, HEAP_BYTES, HeapClass.BAD_CHANNEL),
        (64, HEAP_BYTES, HeapClass.BAD_CHANNEL),
        (MODULUS - 8, HEAP_BYTES, HeapClass.BAD_CHANNEL),
        (8, HEAP_BYTES, HeapClass.FOREIGN),
        (32, HEAP_BYTES, HeapClass.FOREIGN),
        (-1, HEAP_BYTES, HeapClass.MISSING_ITEM),
        (24, HEAP_BYTES, HeapClass.ACCEPTED),
    ],
)
def test_malformed_heaps_are_told_apart(channel: int, length: int, verdict: HeapClass) -> None:
    assert Callback().verdict(5 * TICKS, channel, length) is verdict


def test_a_heap_without_timestamp_and_channel_is_control() -> None:
    assert Callback().verdict(-1, -1) is HeapClass.CONTROL


def test_nothing_is_accepted_between_captures() -> None:
    callback = Callback()
    callback.array["active"] = 0
    assert callback.verdict(0) is HeapClass.IDLE


def test_a_repeated_heap_is_not_written_again() -> None:
    callback = Callback()
    assert callback.verdict(0) is HeapClass.ACCEPTED
    assert callback.verdict(0) is HeapClass.DUPLICATE
    assert callback.verdict(0, 24) is HeapClass.ACCEPTED


def test_heaps_that_fell_out_of_the_window_are_too_old() -> None:
    callback = Callback()
    callback(100 * TICKS)
    callback((100 + WINDOW) * TICKS)
    assert callback.verdict(100 * TICKS, 24) is HeapClass.TOO_OLD
    assert callback.verdict(101 * TICKS, 24) is HeapClass.ACCEPTED


@given(st.lists(st.integers(0, MODULUS - 1), max_size=30))
@settings(deadline=None, max_examples=50)
def test_single_bad_heaps_never_shut_out_good_ones(timestamps: list[int]) -> None:
    callback = Callback()
    callback(1000 * TICKS)
    for n, bad in enumerate(timestamps):
        off_grid = bad - bad % TICKS + 1
        assert callback.verdict(off_grid % MODULUS, 24) in (
            HeapClass.BAD_TIMESTAMP,
            HeapClass.TOO_OLD,
        )
        assert callback.verdict((1001 + n) * TICKS) is HeapClass.ACCEPTED


@pytest.mark.parametrize("jump", [20 * TICKS, -20 * TICKS, 20 * TICKS + 1, MODULUS // 2 - TICKS])
def test_heaps_that_agree_are_believed_after_a_few(jump: int) -> None:
    callback = Callback()
    _, chunk, _ = callback(100 * TICKS)
    verdicts = [callback.verdict((100 * TICKS + jump + n * TICKS) % MODULUS) for n in range(5)]
    assert verdicts.count(HeapClass.ACCEPTED) == 2
    assert verdicts[3:] == [HeapClass.ACCEPTED] * 2
    assert callback((100 * TICKS + jump + 5 * TICKS) % MODULUS)[1] > chunk


def test_a_bad_first_heap_costs_a_few_heaps_and_no_more() -> None:
    callback = Callback()
    callback(123_456_789_123)
    verdicts = [callback.verdict(n // 2 * TICKS, 16 + 8 * (n % 2)) for n in range(40)]
    assert verdicts.count(HeapClass.ACCEPTED) == 40 - 3


@given(a=st.integers(0, MODULUS - 1), d=st.integers(-(1 << 47), (1 << 47) - 1))
def test_differences_of_timestamps_know_of_the_wrap(a: int, d: int) -> None:
    assert place.wrapped_difference((a + d) % MODULUS, a) == d


def test_state_is_as_big_as_its_parts() -> None:
    array, table = place.new_state(WINDOW, N_HEAPS)
    assert table.shape == (WINDOW, N_HEAPS)
    assert array["placed"][0] == table.ctypes.data
    assert np.all(table == -1)
