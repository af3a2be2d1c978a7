"""How the demonstration judges what it sees."""

from __future__ import annotations

import dataclasses

import pytest
from astropy.io.fits import Header

from pipelines.imaging.sources import Source
from sdpcontroller.cli import demo_config, demo_report


def header() -> Header:
    """Coordinates of an image of 100 × 100 pixels of 2 arcsec at the field."""
    cards = {"CRPIX1": 51.0, "CRPIX2": 51.0, "CRVAL1": 66.0, "CRVAL2": -38.0}
    cards |= {"CDELT1": -2 / 3600, "CDELT2": 2 / 3600}
    types = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CUNIT1": "deg", "CUNIT2": "deg"}
    return Header({"NAXIS": 2, "NAXIS1": 100, "NAXIS2": 100, **types, **cards})


@pytest.mark.parametrize(("snr", "problems"), [(5.1, 0), (20.0, 1)])
def test_a_peak_of_the_noise_is_no_source_too_many(snr: float, problems: int) -> None:
    sky = dataclasses.replace(demo_config.simulated(10, 5), sky=())
    extra = Source(66.0, -38.0, 50.0, 50.0, 0.001 * snr, 0.001, snr)
    rows, found = demo_report._judge_field([extra], header(), sky)
    assert len(rows) == 1  # it is shown all the same
    assert len(found) == problems
