"""Numbers of dumps and heaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingest.numbering import DumpGrid, HeapAccount

MODULUS = 1 << 48
RATES = st.sampled_from([1.712e9, 1.712e9 / 7, 1e6, 1.0e3 + 1 / 3])


@given(
    origin=st.integers(0, MODULUS - 1),
    ticks=st.integers(1, 1 << 34),
    ratio=st.integers(1, 1000),
    rate=RATES,
)
def test_all_ingests_read_the_same_grid_from_the_first_timestamp(
    origin: int, ticks: int, ratio: int, rate: float
) -> None:
    mine = DumpGrid(origin, ticks, ratio, rate)
    assert DumpGrid.agreed(mine.output_time(0), ticks, ratio, rate) == mine


@given(
    origin=st.integers(0, MODULUS - 1),
    ticks=st.integers(1000, 1 << 34),
    number=st.integers(-1000, 4000),
    off=st.integers(1, 999),
)
def test_a_dump_has_the_same_number_before_and_after_the_wrap(
    origin: int, ticks: int, number: int, off: int
) -> None:
    grid = DumpGrid(origin, ticks, 3, 1e9)
    timestamp = origin + number * ticks
    assert grid.number(timestamp) == grid.number(timestamp % MODULUS) == number
    assert grid.number(timestamp + off) is None


@given(dumps=st.lists(st.tuples(st.integers(-5, 60), st.integers(1, 4)), min_size=1, max_size=40))
def test_received_and_lost_are_what_was_expected(dumps: list[tuple[int, int]]) -> None:
    account = HeapAccount(4)
    taken = {}
    for number, received in dumps:
        if account.add(number, received):
            assert not taken or number > max(taken)
            taken[number] = received
        else:
            assert number <= max(taken)
        span = max(taken) - min(taken) + 1
        assert account.expected == span * 4
        assert account.received == sum(taken.values())
        assert account.lost == span * 4 - sum(taken.values())
        assert account.dumps == len(taken)


def test_nothing_received_is_nothing_expected() -> None:
    account = HeapAccount(4)
    assert (account.expected, account.lost, account.received) == (0, 0, 0)
