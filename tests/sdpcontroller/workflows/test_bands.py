from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sdpcontroller.errors import ConfigError
from sdpcontroller.workflows.bands import MIN_OUTPUT_CHANS, Band, endpoint_range, split_band


@st.composite
def streams(draw: st.DrawFn) -> dict[str, Any]:
    """Correlator streams and what is wanted of them, as the configuration's checks let them pass."""
    n_endpoints = draw(st.integers(1, 16))
    n_substreams = n_endpoints * draw(st.integers(1, 8))
    per_substream = draw(st.sampled_from([1, 2, 3, 4, 16, 128]))
    n_chans = n_substreams * per_substream
    first, last = sorted(
        draw(st.lists(st.integers(0, n_substreams), min_size=2, max_size=2, unique=True))
    )
    wanted = draw(st.sampled_from([None, (first * per_substream, last * per_substream)]))
    width = n_chans if wanted is None else wanted[1] - wanted[0]
    factor = draw(st.sampled_from([f for f in range(1, width + 1) if width % f == 0]))
    return {
        "n_chans": n_chans,
        "n_chans_per_substream": per_substream,
        "n_endpoints": n_endpoints,
        "output_channels": wanted,
        "continuum_factor": factor,
        "chan_mbps": draw(st.sampled_from([0.01, 1.0, 7.3, 900.0])),
        "max_mbps": 8000.0,
    }


def split(stream: dict[str, Any]) -> tuple[Band, ...]:
    width = stream["n_chans"]
    if stream["output_channels"] is not None:
        width = stream["output_channels"][1] - stream["output_channels"][0]
    assume(width >= MIN_OUTPUT_CHANS * stream["continuum_factor"])
    return split_band(**stream)


@given(streams())
def test_every_channel_that_is_wanted_is_in_one_band(stream: dict[str, Any]) -> None:
    bands = split(stream)
    first, last = stream["output_channels"] or (0, stream["n_chans"])
    covered = [channel for band in bands for channel in range(*band.channels)]
    assert covered == list(range(first, last))


@given(streams())
def test_a_band_is_whole_substreams_and_whole_averages(stream: dict[str, Any]) -> None:
    first = (stream["output_channels"] or (0, 0))[0]
    for band in split(stream):
        for edge in band.channels:
            assert edge % stream["n_chans_per_substream"] == 0
            assert (edge - first) % stream["continuum_factor"] == 0
        # What the ingest program asks for, or it does not start.
        assert band.n_chans // stream["continuum_factor"] >= MIN_OUTPUT_CHANS


@given(streams())
def test_a_band_joins_exactly_the_groups_that_carry_its_channels(stream: dict[str, Any]) -> None:
    """Substream i goes to endpoint i * n_endpoints // n_substreams (docs/reference/streams.md)."""
    per_substream = stream["n_chans_per_substream"]
    n_substreams = stream["n_chans"] // per_substream
    for band in split(stream):
        carrying = {
            channel // per_substream * stream["n_endpoints"] // n_substreams
            for channel in range(*band.channels)
        }
        assert carrying == set(range(*band.endpoints))


@given(streams())
def test_bands_are_equal_and_as_few_as_will_do(stream: dict[str, Any]) -> None:
    bands = split(stream)
    (width,) = {band.n_chans for band in bands}
    piece = math.lcm(stream["n_chans_per_substream"], stream["continuum_factor"])
    least = MIN_OUTPUT_CHANS * stream["continuum_factor"]

    def will_do(n: int) -> bool:
        """Whether `n` equal bands could be made that ingests can take, of which one may be lost."""
        each = width * len(bands) // n
        fits = each * stream["chan_mbps"] <= stream["max_mbps"] or each == piece
        return each * n == width * len(bands) and each % piece == 0 and n >= 2 and fits

    assert not any(will_do(n) for n in range(2, len(bands)))
    if not will_do(len(bands)):  # then no finer split would either
        finer = range(len(bands) + 1, width * len(bands) // least + 1)
        assert not any(will_do(n) and width * len(bands) // n >= least for n in finer)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"output_channels": (1, 16)}, "output_channels .1, 16. must begin and end"),
        ({"output_channels": (8, 31)}, "multiple of the 8 channels"),
        ({"continuum_factor": 3}, "must divide the 32 channels"),
        ({"continuum_factor": 32}, "leaves one output channel"),
    ],
)
def test_what_cannot_be_split_is_refused(changes: dict[str, Any], complaint: str) -> None:
    stream = {
        "n_chans": 32, "n_chans_per_substream": 8, "n_endpoints": 2, "output_channels": None,
        "continuum_factor": 1, "chan_mbps": 1.0, "max_mbps": 100.0,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=complaint):
        split_band(**{**stream, **changes})


@given(st.integers(0, 300), st.integers(1, 300))
def test_ranges_of_groups_say_first_and_how_many_more(start: int, count: int) -> None:
    text = endpoint_range("239.192.0.250", start, start + count, 7148)
    groups, _, port = text.partition(":")
    first, _, more = groups.partition("+")
    assert int(more or 0) == count - 1
    octets = [int(octet) for octet in first.split(".")]
    assert octets[2] * 256 + octets[3] == 250 + start
    assert port == "7148"
