from __future__ import annotations

import math

import katpoint
import numpy as np
import pytest

from pipelines.imaging.compare import band_flux, compare
from pipelines.imaging.geometry import ARCSEC, ImageGrid, celestial_wcs
from pipelines.imaging.sources import Source

WCS = celestial_wcs(ImageGrid(512, 5 * ARCSEC), math.radians(67.5), math.radians(-35))
FREQUENCIES = np.linspace(856e6, 1712e6, 64)


def source(ra: float, dec: float, flux: float) -> Source:
    column, row = (float(x) for x in WCS.all_world2pix(ra, dec, 0))
    return Source(ra, dec, row, column, flux, 1e-3, flux / 1e-3)


def test_pairs_are_found_and_both_rests() -> None:
    sky = [
        "a, radec, 4:30:00, -35:00:00, (800 1800 0.0)",
        "b, radec, 4:30:30, -35:10:00, (800 1800 -0.30103)",
        "lost, radec, 4:29:00, -34:50:00, (800 1800 0.0)",
    ]
    found = [
        source(67.5 + 1.5 * 5 / 3600, -35.0, 0.9),
        source(67.625, -35 - 10 / 60, 0.5),
        source(67.5 + 4 * 5 / 3600, -35.0, 0.1),
    ]
    a, b, lost, extra = compare(found, sky, WCS, FREQUENCIES)
    assert a.matched and a.source is found[0]
    assert a.offset == pytest.approx(1.5 * math.cos(math.radians(35)), rel=1e-3)
    assert a.ratio == pytest.approx(0.9)
    assert b.offset == pytest.approx(0, abs=1e-3)
    assert b.ratio == pytest.approx(1.0, rel=1e-5)
    assert not lost.matched and lost.name == "lost" and lost.expected == pytest.approx(1.0)
    assert not extra.matched and extra.source is found[2]


def test_the_expected_flux_is_the_weighted_mean_over_the_band() -> None:
    target = katpoint.Target("x, radec, 0:0:0, 0:0:0, (800 1800 2.1 -0.7)")
    flux = 10 ** (2.1 - 0.7 * np.log10(FREQUENCIES / 1e6))
    assert band_flux(target, FREQUENCIES) == pytest.approx(flux.mean())
    weights = np.arange(64.0)
    expected = float((flux * weights).sum() / weights.sum())
    assert band_flux(target, FREQUENCIES, weights) == pytest.approx(expected)


def test_without_flux_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="no flux model"):
        compare([], ["x, radec, 0:0:0, 0:0:0"], WCS, FREQUENCIES)
    assert compare([], [], WCS, FREQUENCIES) == []
