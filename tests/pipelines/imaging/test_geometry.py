from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.imaging.errors import SettingsError
from pipelines.imaging.geometry import (
    ARCSEC,
    MAX_DEFAULT_SIZE,
    ImageGrid,
    celestial_wcs,
    choose_grid,
    direction_cosines,
    good_size,
    primary_beam,
)


@given(st.integers(1, 20_000))
def test_a_good_size_is_even_smooth_and_not_much_larger(minimum: int) -> None:
    size = good_size(minimum)
    assert size >= minimum and size % 2 == 0
    assert size <= max(1.25 * minimum, minimum + 2)
    for prime in (2, 3, 5):
        while size % prime == 0:
            size //= prime
    assert size == 1


@given(longest=st.floats(100, 1e6), diameter=st.floats(1, 100), frequency=st.floats(1e8, 2e10))
def test_defaults_sample_the_beam_and_cover_the_primary_beam_if_they_can(
    longest: float, diameter: float, frequency: float
) -> None:
    beam = primary_beam(diameter, frequency)
    grid = choose_grid(longest, beam)
    assert 3 - 1e-6 <= 1 / (longest * grid.pixel) <= 5 + 1e-6
    assert grid.size <= MAX_DEFAULT_SIZE
    if grid.size < MAX_DEFAULT_SIZE:
        assert grid.field + 2 * grid.pixel >= min(1.2 * beam, 0.7)  # an even number of pixels


@given(longest=st.floats(0.5, 1e7), beam=st.floats(1e-4, 3), pixel=st.none() | st.floats(1, 1000))
def test_there_is_an_image_for_every_array(
    longest: float, beam: float, pixel: float | None
) -> None:
    choose_grid(longest, beam, pixel=None if pixel is None else pixel * ARCSEC)


def test_the_primary_beam_of_a_meerkat_dish() -> None:
    assert math.degrees(primary_beam(13.5, 1284e6)) == pytest.approx(1.1, abs=0.02)


@pytest.mark.parametrize(
    ("size", "pixel"), [(0, None), (63, None), (-2, None), (101, 1.0), (None, 0.0), (None, math.nan),
                        (None, -1.0), (10**9, 1.0), (512, 1e9), (None, math.inf), (10**6, None)]
)  # fmt: skip
def test_impossible_images_are_refused(size: int | None, pixel: float | None) -> None:
    with pytest.raises(SettingsError):
        choose_grid(5000, 0.02, size=size, pixel=None if pixel is None else pixel * ARCSEC)


def test_baselines_of_length_zero_make_no_image() -> None:
    with pytest.raises(SettingsError, match="length zero"):
        choose_grid(0.0, 0.02)


@settings(deadline=None, max_examples=50)
@given(
    ra=st.floats(0, 2 * math.pi),
    dec=st.floats(-1.4, 1.4),
    l=st.floats(-0.02, 0.02),
    m=st.floats(-0.02, 0.02),
)
def test_world_coordinates_agree_with_direction_cosines(
    ra: float,
    dec: float,
    l: float,  # noqa: E741
    m: float,
) -> None:
    grid = ImageGrid(512, 20 * ARCSEC)
    row, column = (float(x) for x in grid.to_pixels(np.array(l), np.array(m)))
    world = celestial_wcs(grid, ra, dec).all_pix2world(column, row, 0)
    found_l, found_m, n = direction_cosines(*np.radians([float(x) for x in world]), ra, dec)
    assert n > 0
    assert (float(found_l), float(found_m)) == pytest.approx((l, m), abs=1e-9)


def test_east_is_left_and_north_is_up() -> None:
    wcs = celestial_wcs(ImageGrid(512, ARCSEC), 1.0, -0.5)
    ra, dec = math.degrees(1.0), math.degrees(-0.5)
    column, row = wcs.all_world2pix(ra, dec, 0)
    assert (float(column), float(row)) == pytest.approx((256, 256))
    assert wcs.all_world2pix(ra + 0.01, dec, 0)[0] < 256
    assert wcs.all_world2pix(ra, dec + 0.01, 0)[1] > 256
