"""The flagger side by side against the flagger of one spectrum, and its parts against numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.common.rfi import FlaggerSettings, flag_spectrum, running_median
from pipelines.common.rfi_lanes import LANES, flag_products, medians, running_medians

RFI, LOST = 0x10, 0x08
SETTINGS = FlaggerSettings()


def one_by_one(vis: np.ndarray, flags: np.ndarray, floor: float) -> np.ndarray:
    """Return where the flagger of single spectra finds interference."""
    hit = np.zeros(vis.shape, bool)
    amplitude = np.abs(vis)
    amplitude[flags != 0] = np.nan
    found = np.empty(len(vis), bool)
    for product in range(vis.shape[1]):
        flag_spectrum(
            np.ascontiguousarray(amplitude[:, product]), SETTINGS.half_width, SETTINGS.n_sigma,
            SETTINGS.falloff, SETTINGS.doublings, floor, found,
        )  # fmt: skip
        hit[:, product] = found
    return hit


@given(
    seed=st.integers(0, 2**32 - 1),
    n_chans=st.sampled_from([33, 64, 200]),
    products=st.sampled_from([1, LANES - 1, LANES, 2 * LANES + 5]),
    loss=st.sampled_from([0.0, 0.02, 0.9]),
    gap=st.integers(0, 40),
    slope=st.sampled_from([0.0, 50.0]),
)
@settings(deadline=None, max_examples=40)
def test_it_flags_what_the_flagger_of_single_spectra_flags(
    seed: int, n_chans: int, products: int, loss: float, gap: int, slope: float
) -> None:
    rng = np.random.default_rng(seed)
    shape = (n_chans, products)
    vis = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    vis += slope * np.sin(np.arange(n_chans) / 20)[:, np.newaxis]
    strong = rng.random(shape) < 0.02
    vis[strong] += 10 ** rng.uniform(0.5, 3, np.count_nonzero(strong))
    vis[10:13, ::3] += 40
    flags = np.where(rng.random(shape) < loss, LOST, 0).astype(np.uint8)
    flags[5 : 5 + gap] = LOST
    expected = one_by_one(vis, flags, 0.0)
    found = flags.copy()
    n = flag_products(
        vis, found, 0, products, SETTINGS.half_width, SETTINGS.n_sigma, SETTINGS.falloff,
        SETTINGS.doublings, 0.0,
    )  # fmt: skip
    hit = (found & RFI) != 0
    assert n == np.count_nonzero(hit)
    np.testing.assert_array_equal(found & ~np.uint8(RFI), flags)
    # A median to a part in 2^15 can turn a sample that is at its threshold to just that part.
    assert np.count_nonzero(hit != expected) <= 2


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    half_width=st.integers(1, 6),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(deadline=None, max_examples=60)
def test_running_medians_are_those_of_single_spectra(
    seed: int, n: int, half_width: int, missing: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 9, (n, LANES)).astype(np.float32)  # with many that are equal
    x[rng.random(x.shape) < missing] = np.inf
    background = np.empty_like(x)
    running_medians(x, half_width, background)
    expected = np.empty(n, np.float32)
    for lane in range(LANES):
        column = np.where(np.isinf(x[:, lane]), np.float32(np.nan), x[:, lane])
        running_median(column, half_width, expected)
        np.testing.assert_array_equal(np.isinf(background[:, lane]), np.isnan(expected))
        good = ~np.isnan(expected)
        np.testing.assert_array_equal(background[good, lane], expected[good])


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 50), scale=st.floats(1e-20, 1e20))
@settings(deadline=None, max_examples=60)
def test_medians_are_medians_to_a_part_in_30000(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    values = (scale * rng.random((n, LANES))).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.inf
    out, count = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
    medians(values, out, count)
    for lane in range(LANES):
        good = values[np.isfinite(values[:, lane]), lane]
        assert count[lane] == len(good)
        if len(good):
            np.testing.assert_allclose(out[lane], np.median(good), rtol=2**-15)
