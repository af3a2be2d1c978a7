"""What the display remembers of dumps, against plain numpy."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import catalogue
from pipelines.common.baselines import correlator_ordering
from pipelines.common.l0 import DumpPart
from pipelines.display.errors import DisplayError
from pipelines.display.frame import frame, product_number
from pipelines.display.history import MAX_WATCHED, Axes, History

ORDERING = correlator_ordering(["m000", "m001", "m002"])
N_BLS = len(ORDERING)


def make_axes(n_chans: int, max_bins: int) -> Axes:
    return Axes(ORDERING, 1e9 + 1e6 * np.arange(n_chans), max_bins)


def make_part(channels: range, seed: int) -> DumpPart:
    generator = np.random.default_rng(seed)
    shape = (len(channels), N_BLS)
    vis = generator.normal(size=shape) + 1j * generator.normal(size=shape)
    weights = generator.integers(0, 3, shape, dtype=np.uint8)
    return DumpPart(
        channels,
        np.where(weights > 0, vis, 0).astype(np.complex64),
        (generator.random(shape) < 0.3).astype(np.uint8) * 16,
        weights,
        np.ones(len(channels), np.float32),
    )


@given(
    n_chans=st.integers(2, 24),
    max_bins=st.integers(1, 24),
    seeds=st.lists(st.integers(0, 1000), min_size=1, max_size=6),
    split=st.floats(0, 1),
    lost=st.booleans(),
)
def test_bins_are_means_of_what_has_weight_and_what_did_not_come_counts_as_flagged(
    n_chans: int, max_bins: int, seeds: list[int], split: float, lost: bool
) -> None:
    axes = make_axes(n_chans, max_bins)
    history = History(axes, depth=3)
    cut = 1 + int(split * (n_chans - 2))
    for seed in seeds:
        parts = [make_part(range(cut), seed), make_part(range(cut, n_chans), seed + 1)]
        history.take(float(seed), parts[:1] if lost else parts)
    good = np.concatenate([part.weights > 0 for part in parts])
    flags = np.concatenate([part.flags > 0 for part in parts])
    vis = np.concatenate([part.vis for part in parts]).astype(np.complex128)
    if lost:
        good[cut:], flags[cut:] = False, True
    vis[~good] = 0
    for b in range(history.n_bins):
        inside = axes.bins == b
        count = good[inside].sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.where(count > 0, vis[inside].sum(axis=0) / count, np.nan)
        np.testing.assert_allclose(history.spectrum[b], expected, rtol=1e-4, atol=1e-5)
        newest = history.occupancy[(history.dumps - 1) % 3]
        assert newest[b] == pytest.approx(flags[inside].mean(), abs=1e-6)
    np.testing.assert_allclose(history.flagged, flags.mean(axis=0), atol=1e-6)
    assert history.times[history.rows()].tolist() == [float(seed) for seed in seeds[-3:]]


def test_bins_cover_all_channels_in_order_and_about_equally() -> None:
    bins = make_axes(1000, 512).bins
    widths = np.bincount(bins)
    assert len(widths) == 512
    assert set(widths) <= {1, 2}
    assert (np.diff(bins) >= 0).all()


def test_inputs_have_their_past_and_other_products_one_from_when_they_are_watched() -> None:
    history = History(make_axes(4, 4), depth=5)
    for n in range(3):
        history.take(n, [make_part(range(4), n)])
    auto, cross = ORDERING.index(("m001h", "m001h")), ORDERING.index(("m000h", "m001h"))
    assert np.isfinite(history.waterfall(auto)[history.rows()]).any(axis=1).all()
    assert np.isnan(history.waterfall(cross)[history.rows()][:2]).all()
    history.take(3, [make_part(range(4), 3)])
    watched = history.waterfall(cross)[history.rows()]
    np.testing.assert_array_equal(watched[-1], np.abs(history.spectrum[:, cross]))


def test_watched_products_are_bounded_and_the_least_wanted_is_given_up() -> None:
    history = History(make_axes(4, 4), depth=2)
    crosses = [i for i, (a, b) in enumerate(ORDERING) if a != b][: MAX_WATCHED + 1]
    first = history.waterfall(crosses[0])
    for product in (*crosses[1:MAX_WATCHED], crosses[0], crosses[MAX_WATCHED]):
        history.waterfall(product)
    assert history.waterfall(crosses[0]) is first
    history.take(0, [make_part(range(4), 0)])
    assert np.isfinite(first[0]).any()


def test_a_page_gets_each_dump_once_and_starts_anew_with_a_block() -> None:
    history = History(make_axes(4, 4), depth=10)
    history.take(1.0, [make_part(range(4), 1)])
    seen = frame(history, 0, 0)
    assert (seen["times"], seen["dumps"]) == ([1.0], 1)
    history.take(2.0, [make_part(range(4), 2)])
    assert frame(history, 0, seen["dumps"])["times"] == [2.0]
    history.clear()
    assert frame(history, 0, 0) | {"start": 2, "times": []} == frame(history, 0, 0)
    history.take(3.0, [make_part(range(4), 3)])
    new = frame(history, 0, 2)
    assert new["times"] == [3.0]
    # A page that has seen more than there is has seen another program's.
    assert frame(history, 0, 99)["times"] == [3.0]
    waterfall = np.frombuffer(base64.b64decode(new["waterfall"]), "<f4")
    np.testing.assert_array_equal(waterfall, history.waterfall(0)[history.rows(2)[0]])


def test_an_unknown_product_is_told() -> None:
    history = History(make_axes(4, 4), depth=2)
    assert product_number(history, "m000h-m001v") == ORDERING.index(("m000h", "m001v"))
    with pytest.raises(DisplayError, match="m000h-m001h"):
        product_number(history, "m001h")


@given(n_chans=st.integers(1, 2000), n_antennas=st.integers(1, 5))
def test_memory_is_what_the_catalogue_says(n_chans: int, n_antennas: int) -> None:
    ordering = correlator_ordering([f"m{i:03}" for i in range(n_antennas)])
    history = History(Axes(ordering, np.linspace(1e9, 2e9, n_chans)))
    for i, (a, b) in enumerate(ordering):
        if a != b:
            history.waterfall(i)
    arrays = [
        *(history.spectrum, history._good, history._flagged, history.flagged),
        *(history.times, history.band, history.occupancy, history._inputs),
        *history._watched.values(),
    ]
    used = sum(array.nbytes for array in arrays)
    spare = (catalogue.DISPLAY_WATCHED - len(history._watched)) * history._inputs[:, 0].nbytes
    assert used + spare == catalogue.display_bytes(n_chans, n_antennas)
