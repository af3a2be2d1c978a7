"""Time of the observation against wall time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.correlator.clock import SimulationClock

SECONDS = st.floats(0.01, 100)


@given(SECONDS, SECONDS, st.integers(0, 1000), st.floats(0, 1e4))
def test_the_next_dump_begins_neither_before_nor_a_dump_later(
    int_time: float, ratio: float, dump: int, elapsed: float
) -> None:
    clock = SimulationClock(int_time, ratio, wall=50.0, dump=dump)
    first = clock.next_dump(50.0 + elapsed)
    begin = clock.due(first) - int_time * ratio
    assert begin >= 50.0 + elapsed - 1e-6 * (1 + elapsed)
    assert begin <= 50.0 + elapsed + int_time * ratio + 1e-6 * (1 + elapsed)
    assert clock.due(first + 1) - clock.due(first) == pytest.approx(int_time * ratio)


def test_without_a_ratio_everything_is_due() -> None:
    clock = SimulationClock(2.0, 0.0, wall=50.0, dump=7)
    assert clock.next_dump(1e9) == 7
    assert clock.due(10**9) < 0


def test_a_restarted_clock_begins_with_its_dump() -> None:
    clock = SimulationClock(2.0, 0.5, wall=50.0).restarted(80.0, 4)
    assert clock.due(4) == 81.0
    assert clock.next_dump(80.0) == 4
