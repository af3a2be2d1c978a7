"""How fast L0 is sent."""

from __future__ import annotations

import pytest

from pipelines.ingest.layout import InputLayout, OutputLayout
from pipelines.ingest.send import output_rate

LAYOUT = OutputLayout(
    source=InputLayout(
        n_chans=64,
        n_chans_per_substream=16,
        n_bls=4,
        channels=range(64),
        ticks_per_dump=1000,
        scale_factor_timestamp=1e3,
        scale=1.0,
    ),
    output_channels=range(64),
    ratio=2,
    continuum_factor=1,
)


@pytest.mark.parametrize("clock_ratio", [0.1, 1.0, 3.0])
def test_a_dump_leaves_a_little_faster_than_the_next_one_comes(clock_ratio: float) -> None:
    seconds = LAYOUT.heap_bytes / output_rate(LAYOUT, clock_ratio, 1e9)
    assert 0.9 * 2.0 * clock_ratio < seconds < 2.0 * clock_ratio


def test_without_a_clock_the_rate_is_given() -> None:
    assert output_rate(LAYOUT, 0.0, 8e6) == 1e6
