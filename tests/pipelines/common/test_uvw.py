"""Coordinates and the sign of phases, against geometry that was computed otherwise."""

from __future__ import annotations

import katpoint
import numpy as np
import pytest
from astropy import units
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.common import uvw
from pipelines.common.baselines import antenna_pairs
from pipelines.correlator.meerkat import ENU, antenna_description

TIME = 1_600_000_000.0
ANTENNAS = [
    katpoint.Antenna(antenna_description(name)) for name in ("m000", "m048", "m057", "m060")
]
CENTRE = katpoint.Target("centre, radec, 20:00:00, -30:00:00")
FREQ = 1.4e9


def turns(antennas: list[katpoint.Antenna], target: katpoint.Target) -> NDArray[np.float64]:
    """Turns by which antennas' signals are ahead of antenna 0's, by katpoint's geometric delays."""
    delays = [target.geometric_delay(antenna, TIME, antennas[0])[0] for antenna in antennas]
    return -FREQ * np.array(delays)


def test_an_offset_source_has_the_phase_of_its_geometric_delay() -> None:
    """Sign and size: the wave arrives first at the antenna that is nearer to the source."""
    source = katpoint.Target("source, radec, 20:01:00, -29:50:00")
    pairs = antenna_pairs(len(ANTENNAS))
    coordinates = uvw.baseline_uvw(uvw.antenna_uvw(CENTRE, TIME, ANTENNAS)[0], pairs)
    reference = ANTENNAS[0].array_reference_antenna()
    lmn = uvw.direction_cosines(CENTRE, source, TIME, reference)
    assert lmn[0] > 0  # east
    assert lmn[1] > 0  # north
    phase = coordinates @ lmn * FREQ / uvw.SPEED_OF_LIGHT
    ahead = turns(ANTENNAS, source) - turns(ANTENNAS, CENTRE)
    expected = ahead[pairs[:, 0]] - ahead[pairs[:, 1]]
    # Aberration stretches offsets by up to 1e-4, and PyEphem's single precision adds to that.
    assert np.abs(expected).max() > 10
    np.testing.assert_allclose(phase, expected, atol=3e-4 * np.abs(expected).max())


def test_a_longer_way_round_the_sign() -> None:
    """One baseline to the east, a source east of a zenith: the eastern antenna is ahead."""
    west = katpoint.Antenna("w, 0:00:00, 0:00:00, 0, 12, 0 0 0")
    east = katpoint.Antenna("e, 0:00:00, 0:00:00, 0, 12, 100 0 0")
    zenith = katpoint.construct_azel_target(0.0, np.pi / 2)
    ra, dec = zenith.astrometric_radec(TIME, west)
    centre = katpoint.construct_radec_target(ra, dec)
    source = katpoint.construct_radec_target(ra + 0.01, dec)
    coordinates = uvw.antenna_uvw(centre, TIME, [west, east])[0]
    baseline = uvw.baseline_uvw(coordinates, np.array([[1, 0]]))[0]
    np.testing.assert_allclose(baseline, [100, 0, 0], atol=0.02)
    assert baseline @ uvw.direction_cosines(centre, source, TIME, west) == pytest.approx(
        1, rel=1e-3
    )


def test_katpoints_own_uvw_have_the_sign_of_the_interface() -> None:
    coordinates = uvw.antenna_uvw(CENTRE, TIME, ANTENNAS)[0]
    for a, b in antenna_pairs(len(ANTENNAS)):
        own = CENTRE.uvw(ANTENNAS[a], TIME, ANTENNAS[b])
        np.testing.assert_allclose(coordinates[a] - coordinates[b], own, atol=0.5)


def test_w_is_what_astropy_makes_of_it() -> None:
    antennas = ANTENNAS[:3]
    positions = [
        EarthLocation.from_geocentric(*katpoint.lla_to_ecef(*a.position_wgs84), unit=units.m)
        for a in antennas
    ]
    with iers.conf.set_temp("auto_download", False):
        frame = AltAz(obstime=Time(TIME, format="unix"), location=positions[0])
        direction = SkyCoord("20h00m00s -30d00m00s").transform_to(frame)
        azel = float(direction.az.rad), float(direction.alt.rad)
    toward = np.array(katpoint.azel_to_enu(*azel))
    for antenna in antennas[1:]:
        offset = np.array(antennas[0].baseline_toward(antenna))
        pair = uvw.antenna_uvw(CENTRE, TIME, [antennas[0], antenna])[0]
        assert (pair[1] - pair[0])[2] == pytest.approx(
            toward @ offset, abs=2e-4 * np.linalg.norm(offset)
        )


@given(
    ra=st.floats(0, 6.28),
    dec=st.floats(-1.5, 1.5),
    dra=st.floats(-0.1, 0.1),
    ddec=st.floats(-0.05, 0.05),
)
@settings(deadline=None, max_examples=50)
def test_direction_cosines_are_katpoints_and_keep_their_digits(
    ra: float, dec: float, dra: float, ddec: float
) -> None:
    centre = katpoint.construct_radec_target(ra, dec)
    source = katpoint.construct_radec_target(ra + dra, dec + ddec)
    cosines = uvw.direction_cosines(centre, source, TIME, ANTENNAS[0])
    l, m, n = centre.lmn(*source.radec(TIME, ANTENNAS[0]), TIME, ANTENNAS[0])  # noqa: E741
    np.testing.assert_allclose(cosines, [l, m, n - 1], atol=1e-12)
    assert cosines[0] ** 2 + cosines[1] ** 2 + (1 + cosines[2]) ** 2 == pytest.approx(1, abs=1e-14)


def test_times_are_the_first_axis() -> None:
    times = TIME + np.arange(3)
    many = uvw.antenna_uvw(CENTRE, times, ANTENNAS)
    assert many.shape == (3, len(ANTENNAS), 3)
    for row, when in zip(many, times, strict=True):
        np.testing.assert_allclose(row, uvw.antenna_uvw(CENTRE, when, ANTENNAS)[0], atol=1e-9)


def test_every_antenna_of_meerkat_has_a_description() -> None:
    assert len(ENU) == 64
    for name in ENU:
        assert katpoint.Antenna(antenna_description(name)).name == name
