"""Skies that other people's simulators compute are those that ours computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.skies import ARCSECOND, by_dp3, by_matvis, cross, difference, draw, ours
from tests.referees import needs

pytestmark = pytest.mark.referee

OVER_SIX_HOURS = [0, 900, 2700]
"""Dumps of eight seconds."""


@pytest.mark.parametrize("seed", [11, 12])
def test_dp3_predicts_the_same_points_gaussians_spectra_and_polarisation(
    seed: int, tmp_path: Path
) -> None:
    needs("dp3")
    field = draw(seed, n_antennas=10)
    predicted = cross(field, by_dp3(field, 3, tmp_path))
    assert difference(predicted, cross(field, ours(field, [0, 1, 2]))) < 1e-6


def test_matvis_has_the_same_phases_from_positions_and_directions(tmp_path: Path) -> None:
    needs("matvis")
    points = draw(13, n_antennas=10).points()
    answer = by_matvis(points, OVER_SIX_HOURS, tmp_path, as_seen=True)
    expected = ours(points, OVER_SIX_HOURS)[..., [0, 3]].mean(axis=-1)
    assert difference(answer.vis, expected) < 1e-6


def test_sources_are_where_astropy_sees_them_at_that_time(tmp_path: Path) -> None:
    """Within what one reduction differs from another: the turning Earth does an arcsecond in 70 ms."""
    needs("matvis")
    points = draw(13, n_antennas=4).points()
    answer = by_matvis(points, OVER_SIX_HOURS, tmp_path, as_seen=False)
    assert answer.separation.max() < 1.2 * ARCSECOND
