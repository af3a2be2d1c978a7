from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.imaging.beam import Beam
from pipelines.imaging.geometry import ARCSEC, ImageGrid, celestial_wcs
from pipelines.imaging.sources import find_sources, peak_of

BEAM = Beam(6.5, 5, 0.7)
GRID = ImageGrid(256, 5 * ARCSEC)
WCS = celestial_wcs(GRID, 1.0, -0.6)


def sky_of(sources: list[tuple[float, float, float]]) -> np.ndarray:
    offsets = np.arange(256.0)
    image = np.zeros((256, 256))
    for row, column, flux in sources:
        image += flux * np.exp(-BEAM.exponents(offsets[:, None] - row, offsets[None, :] - column))
    return image


@settings(deadline=None, max_examples=100)
@given(row=st.floats(-0.5, 0.5), column=st.floats(-0.5, 0.5), flux=st.floats(1e-6, 1e4))
def test_the_peak_of_a_gaussian_is_found_exactly(row: float, column: float, flux: float) -> None:
    y, x = np.mgrid[-1.0:2.0, -1.0:2.0]
    values = flux * np.exp(-BEAM.exponents(y - row, x - column))
    assert peak_of(values) == pytest.approx((row, column, flux), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("values", [np.zeros((3, 3)), -np.ones((3, 3)), np.eye(3) * 1e-30])
def test_what_has_no_peak_stays_near_its_pixel(values: np.ndarray) -> None:
    row, column, flux = peak_of(values)
    assert abs(row) <= 1.5 and abs(column) <= 1.5 and np.isfinite(flux)


def test_sources_are_found_brightest_first_and_noise_is_not() -> None:
    noise = np.random.default_rng(1).normal(0, 1e-3, (256, 256)).astype(np.float32)
    true = [(100.3, 60.8, 0.1), (30.2, 200.4, 1.0), (0.4, 128.1, 0.3)]
    image = (sky_of(true) + noise).astype(np.float32)
    found = find_sources(image, noise, BEAM, WCS)
    assert len(found) == 3
    for source, (row, column, flux) in zip(found, sorted(true, key=lambda s: -s[2]), strict=True):
        assert (source.row, source.column) == pytest.approx((row, column), abs=0.3)
        assert source.flux == pytest.approx(flux, rel=0.05)
        assert source.snr == pytest.approx(flux / 1e-3, rel=0.1)
        back = WCS.all_world2pix(source.ra, source.dec, 0)
        assert [float(x) for x in back] == pytest.approx([source.column, source.row], abs=1e-6)


def test_what_a_bright_source_leaves_around_it_is_no_source() -> None:
    rng = np.random.default_rng(2)
    residual = rng.normal(0, 1e-3, (256, 256)).astype(np.float32)
    row, column = np.mgrid[-128.0:128.0, -128.0:128.0]
    residual *= 1 + 20 * np.exp(-(row**2 + column**2) / 2 / 50**2).astype(np.float32)
    image = (sky_of([(128, 128, 5.0)]) + residual).astype(np.float32)
    assert len(find_sources(image, residual, BEAM, WCS)) == 1


@pytest.mark.parametrize(("flux", "row", "n"), [(0.02, 150, 1), (0.05, 150, 2), (0.02, 200, 2)])
def test_ripples_beside_a_bright_source_do_not_count(flux: float, row: float, n: int) -> None:
    residual = np.random.default_rng(4).normal(0, 1e-3, (256, 256)).astype(np.float32)
    image = (sky_of([(128, 128, 5.0), (row, 128, flux)]) + residual).astype(np.float32)
    assert len(find_sources(image, residual, BEAM, WCS)) == n


def test_a_perfect_or_an_empty_image_is_no_trouble() -> None:
    nothing = np.zeros((256, 256), np.float32)
    assert find_sources(nothing, nothing, BEAM, WCS) == ()
    image = sky_of([(128, 128, 1.0)]).astype(np.float32)
    found = find_sources(image, nothing, BEAM, WCS)
    assert len(found) == 1
    json.dumps(found[0].document(), allow_nan=False)
