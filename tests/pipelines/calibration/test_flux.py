from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.calibration.flux import FluxScale
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Products
from tests.pipelines.calibration.conftest import observe

GAINS = Products(gain=True)


@given(seed=st.integers(0, 2**32), flux=st.floats(0.3, 30))
@settings(deadline=None, max_examples=8)
def test_the_flux_density_of_one_calibrator_follows_from_another(seed: int, flux: float) -> None:
    """Within a per cent, of gains that are known to some tenths of one; by the scans of one instrument."""
    observed = observe(seed, noise=0.03, drift=0.05, max_delay=0)
    scale = FluxScale()
    known = observed.scan.solve(GAINS)
    assumed = Sky.assumed(observed.scan.freqs)
    other = replace(observed.scan, vis=observed.scan.vis * np.float32(flux), sky=assumed)
    unknown = other.solve(GAINS)
    assert known is not None and unknown is not None
    scale.add("A", known[0], known=True)
    scale.add("B", unknown[0], known=False)
    assert scale.measured() == pytest.approx({"B": flux}, rel=0.01)


def test_without_a_model_of_any_calibrator_nothing_is_measured() -> None:
    solved = observe(1).scan.solve(GAINS)
    assert solved is not None
    scale = FluxScale()
    scale.add("B", solved[0], known=False)
    assert scale.measured() == {}


def test_inputs_that_are_not_in_both_do_not_count() -> None:
    solved = observe(1, noise=0.03).scan.solve(GAINS)
    assert solved is not None
    gains = tuple(g.copy() for g in solved[0].gains)
    for g in gains:
        g[0, :7] = np.nan
        g[1] = np.nan
    scale = FluxScale()
    scale.add("A", replace(solved[0], gains=gains), known=True)
    scale.add("B", solved[0], known=False)
    assert scale.measured() == pytest.approx({"B": 1.0})
    nothing = tuple(np.full_like(g, np.nan) for g in gains)
    scale.add("C", replace(solved[0], gains=nothing), known=False)
    assert set(scale.measured()) == {"B"}
