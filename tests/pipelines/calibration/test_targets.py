from __future__ import annotations

from typing import Any

import katpoint
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Products
from pipelines.calibration.targets import calibrator_at, calibrator_of, products_of
from pipelines.common import telstate as ts
from pipelines.common.endpoints import parse_endpoint
from pipelines.correlator.model import product_flux

BPCAL = "J0408-6545, radec bpcal, 4:08:20.38, -65:45:09.1, (900 2000 0.7)"
GAINCAL = "J0240-2309, radec gaincal, 2:40:08.17, -23:09:15.7"
FIELD = "field, radec target, 2:50:00, -25:00:00"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["radec", "target"], Products()),
        (["bpcal"], Products(delay=True, bandpass=True, gain=True, polarisation=True)),
        (["polcal"], Products(polarisation=True)),
        (["polcal", "gaincal"], Products(gain=True, polarisation=True)),
        (["delaycal"], Products(delay=True)),
        (["gaincal"], Products(gain=True)),
        (["fluxcal"], Products(gain=True)),
        (["gaincal", "delaycal"], Products(delay=True, gain=True)),
    ],
)
def test_tags_say_what_a_target_is_good_for(tags: list[str], expected: Products) -> None:
    assert products_of(tags) == expected


def test_only_a_calibrator_tracked_through_the_dump_counts() -> None:
    assert calibrator_of([BPCAL], ["track"]) is not None
    assert calibrator_of([BPCAL, BPCAL], ["track", "track"]) is not None
    assert calibrator_of([FIELD], ["track"]) is None
    assert calibrator_of([BPCAL], ["slew", "track"]) is None
    assert calibrator_of([GAINCAL, BPCAL], ["track"]) is None
    assert calibrator_of([BPCAL], []) is None
    assert calibrator_of([], ["track"]) is None


@given(st.one_of(st.text(max_size=40), st.integers(), st.none()))
def test_nonsense_for_a_target_is_no_calibrator(value: object) -> None:
    assert calibrator_of([value], ["track"]) is None


def test_flux_comes_from_the_model_or_is_one_jansky() -> None:
    freqs = np.array([1.0e9, 1.5e9])
    sky = Sky.of(BPCAL, freqs)
    assert sky.known
    np.testing.assert_allclose(sky.parallel, 10**0.7)
    np.testing.assert_array_equal(sky.cross, 0)
    sky = Sky.of(GAINCAL, freqs)
    assert not sky.known
    np.testing.assert_array_equal(sky.parallel, 1.0)
    # Outside of the model's range nothing is known either.
    assert not Sky.of(BPCAL, np.array([1.9e9, 2.1e9])).known


def test_the_polarisation_of_the_model_is_that_of_the_feeds() -> None:
    """hh is I + Q, vv I - Q, hv U + iV: as the simulated correlator sends it."""
    polarised = "C, radec polcal, 1:00:00, -20:00:00, (900 2000 0.5 0 0 0 0 0 1 0.1 0.05 -0.02)"
    freqs = np.array([1.0e9, 1.5e9])
    sky = Sky.of(polarised, freqs)
    hh, hv, vh, vv = product_flux((katpoint.Target(polarised),), freqs)[0].T
    np.testing.assert_allclose(sky.parallel, [hh, vv])
    np.testing.assert_allclose(sky.cross, hv)
    np.testing.assert_allclose(sky.cross.conj(), vh)


async def test_the_calibrator_of_a_dump_is_found_by_its_time(redis_server: Any) -> None:
    async with ts.connect(parse_endpoint(redis_server.endpoint)) as telstate:
        assert await calibrator_at(telstate, 1000.0, 2.0) is None
        for time, target, activity in (
            (900.0, GAINCAL, "track"),
            (1000.0, BPCAL, "slew"),
            (1010.0, BPCAL, "track"),
        ):
            await ts.add_sample(telstate, "cbf_target", target, time)
            await ts.add_sample(telstate, "obs_activity", activity, time)
        names = []
        for centre in (850.0, 999.0, 1000.0, 1001.0, 1009.0, 1010.5, 1011.0, 5000.0):
            found = await calibrator_at(telstate, centre, 2.0)
            names.append(found and found.name)
    assert names == [
        None, "J0240-2309", None, None, None, None, "J0408-6545", "J0408-6545",
    ]  # fmt: skip
