"""Shapes and frequencies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingest.errors import LayoutError
from pipelines.ingest.layout import InputLayout, OutputLayout, dumps_per_output


def make(
    channels: range = range(32, 64), whole: range = range(16, 112), **kwargs: Any
) -> OutputLayout:
    source = InputLayout(
        n_chans=128,
        n_chans_per_substream=16,
        n_bls=4,
        channels=channels,
        ticks_per_dump=1000,
        scale_factor_timestamp=1e4,
        scale=0.5,
    )
    values = {"ratio": 2, "continuum_factor": 4} | kwargs
    return OutputLayout(source=source, output_channels=whole, **values)


def test_parts() -> None:
    layout = make()
    assert layout.source.n_heaps == 2
    assert layout.source.heap_bytes == 16 * 4 * 8
    assert layout.n_chans == 24
    assert layout.channels == range(4, 12)
    assert layout.int_time == pytest.approx(0.2)
    assert layout.heap_bytes == 8 * (4 * 10 + 4) + 8


@given(
    factor=st.sampled_from([1, 2, 4, 8, 16]),
    start=st.integers(0, 7),
    length=st.integers(1, 8),
)
def test_averaged_channels_stand_at_the_mean_of_their_channels(
    factor: int, start: int, length: int
) -> None:
    whole = range(start * 16, min(128, (start + length) * 16))
    layout = make(range(whole.start, whole.stop), whole, continuum_factor=min(factor, 8))
    bandwidth, center = 856e6, 1284e6
    freqs = center + (np.arange(128) - 64) * bandwidth / 128
    expected = freqs[whole.start : whole.stop].reshape(layout.n_chans, -1).mean(axis=1)
    out_bandwidth, out_center = layout.frequency_axis(bandwidth, center)
    n = layout.n_chans
    np.testing.assert_allclose(
        out_center + (np.arange(n) - n // 2) * out_bandwidth / n, expected, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("channels", "whole", "changes", "message"),
    [
        (range(32, 60), range(128), {}, "whole substreams"),
        (range(8, 24), range(128), {}, "whole substreams"),
        (range(32, 144), range(128), {}, "outside"),
        (range(32, 32), range(128), {}, "empty"),
        (range(32, 64), range(48, 112), {}, "outside of"),
        (range(32, 64), range(32, 110), {}, "whole averages"),
        (range(32, 48), range(128), {"continuum_factor": 32}, "splits an average"),
        (range(32, 48), range(128), {"continuum_factor": 16}, "at least two"),
        (range(32, 64), range(128), {"ratio": 0}, "at least one"),
        (range(32, 64), range(128), {"continuum_factor": 0}, "at least one"),
    ],
)
def test_what_does_not_fit_is_refused(
    channels: range, whole: range, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(LayoutError, match=message):
        make(channels, whole, **changes)


@pytest.mark.parametrize(
    ("wanted", "int_time", "ratio"), [(2.0, 0.5, 4), (2.0, 0.499, 4), (0.1, 0.5, 1), (8, 3, 3)]
)
def test_output_is_the_nearest_whole_number_of_dumps(
    wanted: float, int_time: float, ratio: int
) -> None:
    assert dumps_per_output(wanted, int_time) == ratio


@pytest.mark.parametrize("wanted", [0.0, -1.0, float("nan")])
def test_an_output_interval_must_be_positive(wanted: float) -> None:
    with pytest.raises(LayoutError, match="positive"):
        dumps_per_output(wanted, 0.5)
