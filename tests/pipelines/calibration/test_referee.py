"""Gains that another package solves for are ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration import bandpass, by_dp3, observe, scan_of
from tests.referees import needs

pytestmark = pytest.mark.referee


@pytest.mark.parametrize(
    ("seed", "noise", "uneven"), [(1, 0.3, False), (2, 0.1, True), (3, 0.5, True)]
)
def test_dp3_finds_the_same_gains(seed: int, noise: float, uneven: bool, tmp_path: Path) -> None:
    """Of a MeasurementSet that our writer made; with flags, and weights that differ, too."""
    needs("dp3")
    observation = observe(16, 12, seed, noise, uneven=uneven)
    theirs, _ = by_dp3(observation, tmp_path)
    ours = bandpass(scan_of(observation), observation.sky, observation.stream.channel_freqs)
    assert np.abs(ours / theirs - 1).max() < 1e-4
    assert np.abs(theirs / observation.gains - 1).mean() < noise
