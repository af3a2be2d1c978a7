from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.imaging.errors import NoVisibilitiesError
from pipelines.imaging.parallel_hands import pair_hands, stokes_i


@given(st.randoms(use_true_random=False))
def test_hands_are_found_in_any_order(random) -> None:
    products = [
        (f"m{a:03d}{p}", f"m{b:03d}{q}")
        for a in range(4)
        for b in range(a, 4)
        for p in "hv"
        for q in "hv"
    ]
    random.shuffle(products)
    pairs = pair_hands(products)
    assert len(set(pairs.baselines)) == 6
    for (a, b), hh, vv in zip(pairs.baselines, pairs.hh, pairs.vv, strict=True):
        assert products[hh] == (a + "h", b + "h")
        assert products[vv] == (a + "v", b + "v")


def test_a_baseline_with_one_hand_does_not_count() -> None:
    pairs = pair_hands([("ah", "bh"), ("ah", "ch"), ("av", "cv"), ("ah", "ah"), ("av", "av")])
    assert pairs.baselines == (("a", "c"),)


@pytest.mark.parametrize("products", [[], [("ah", "ah"), ("av", "av")], [("ah", "bh")], [("", "")]])
def test_without_baselines_there_is_an_error(products) -> None:
    with pytest.raises(NoVisibilitiesError):
        pair_hands(products)


def test_stokes_i_is_the_mean_of_the_hands_with_the_weight_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((2, 400_000)) / np.sqrt([[4.0], [0.5]])
    vis, weight = stokes_i(
        *(5 + noise).astype(np.complex64),
        np.full(400_000, 4, np.float32),
        np.full(400_000, 0.5, np.float32),
    )
    assert vis.real.mean() == pytest.approx(5, abs=0.01)
    assert 1 / vis.real.var() == pytest.approx(float(weight[0]), rel=0.02)


def test_polarised_sources_keep_their_total_intensity() -> None:
    one = np.ones(1, np.float32)
    vis, _ = stokes_i(np.array([1.5 + 0j], "c8"), np.array([0.5 + 0j], "c8"), one, 100 * one)
    assert vis[0] == 1


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_sample_with_a_useless_weight_counts_nothing(bad: float) -> None:
    vis = np.array([1 + 1j], np.complex64)
    good, useless = np.ones(1, np.float32), np.array([bad], np.float32)
    for first, second in ((good, useless), (useless, good)):
        stokes, weight = stokes_i(vis, vis, first, second)
        assert stokes[0] == 0 and weight[0] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, np.nan)])
def test_a_sample_that_is_no_number_counts_nothing(bad: complex) -> None:
    one = np.ones(1, np.float32)
    stokes, weight = stokes_i(np.array([bad], "c8"), np.array([1], "c8"), one, one)
    assert stokes[0] == 0 and weight[0] == 0
