from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.imaging.beam import Beam, fit_beam, highest_sidelobe
from pipelines.imaging.errors import ImagingError

OFFSETS = np.arange(128.0) - 64


def image_of(beam: Beam) -> np.ndarray:
    return np.exp(-beam.exponents(OFFSETS[:, None], OFFSETS[None, :])).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    minor=st.floats(3, 12),
    ratio=st.floats(1.05, 2.5),
    angle=st.floats(-math.pi / 2 + 0.01, math.pi / 2),
)
def test_a_gaussian_is_found_again(minor: float, ratio: float, angle: float) -> None:
    beam = Beam(ratio * minor, minor, angle)
    fitted = fit_beam(image_of(beam))
    assert (fitted.major, fitted.minor) == pytest.approx((beam.major, beam.minor), rel=1e-3)
    difference = (fitted.angle - angle + math.pi / 2) % math.pi - math.pi / 2
    assert abs(difference) < 0.01


def test_the_angle_is_counted_from_north_through_east() -> None:
    """East is at smaller columns: a beam stretched towards the upper left has a positive angle."""
    image = image_of(Beam(12, 5, math.radians(40)))
    assert image[64 + 6, 64 - 5] > image[64 + 6, 64 + 5]


def test_the_area_is_the_sum() -> None:
    beam = Beam(9, 5, 0.3)
    assert float(image_of(beam).sum()) == pytest.approx(beam.area, rel=1e-4)


def test_the_highest_sidelobe_is_outside_the_main_lobe() -> None:
    beam = Beam(8, 6, 0)
    psf = image_of(beam)
    psf[20, 100] = -0.37
    assert highest_sidelobe(psf, beam) == pytest.approx(0.37)


@pytest.mark.parametrize(
    "psf", [np.zeros((64, 64), "f4"), np.ones((64, 64), "f4"), np.eye(64, dtype="f4")]
)
def test_what_is_no_beam_is_an_error(psf: np.ndarray) -> None:
    with pytest.raises(ImagingError):
        fit_beam(psf)
