"""Runs in matvis' environment: visibilities from positions, directions and times.

``python matvis_program.py QUESTION ANSWER``, both files of numpy arrays.

Question
    `enu` (n_ants, 3) m; `freqs` Hz; `times` Unix s; `site` latitude, longitude (rad) and height (m);
    `flux` Jy, (n_sources, n_chans); `pairs` (n, 2); and where the sources are, either `radec` (n_sources, 2),
    ICRS in rad, or `seen` (n_times, n_sources, 3), unit vectors east, north and up.
Answer
    `vis` (n_times, n_chans, n) Jy, without phase tracking; `direction` (n_times, n_sources, 3), where astropy
    sees the sources.

Directions that are given as seen are turned into ICRS ones by astropy first, so matvis goes its whole way from
right ascension and declination in either case. UT1 is taken to be UTC, as PyEphem has it.
"""

import sys
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from matvis import simulate_vis
from pyuvdata.analytic_beam import UniformBeam

iers.conf.auto_download = False


def altaz(time, site):
    """Return the horizontal frame of a site."""
    latitude, longitude, height = site
    location = EarthLocation.from_geodetic(longitude * u.rad, latitude * u.rad, height * u.m)
    when = Time(time, format="unix", scale="utc")
    when.delta_ut1_utc = 0.0
    return AltAz(obstime=when, location=location)


def as_catalogued(seen, frame):
    """Turn unit vectors east, north and up into ICRS coordinates."""
    east, north, up = seen.T
    azimuth, altitude = np.arctan2(east, north), np.arctan2(up, np.hypot(east, north))
    return SkyCoord(az=azimuth * u.rad, alt=altitude * u.rad, frame=frame).icrs


def as_seen(sky, frame):
    """Turn ICRS coordinates into unit vectors east, north and up."""
    horizontal = sky.transform_to(frame)
    azimuth, altitude = horizontal.az.rad, horizontal.alt.rad
    return np.stack(
        [
            np.sin(azimuth) * np.cos(altitude),
            np.cos(azimuth) * np.cos(altitude),
            np.sin(altitude),
        ],
        axis=-1,
    )


def visibilities(question, sky, frame):
    """Let matvis compute one time, shape (n_chans, n)."""
    found = simulate_vis(
        ants=dict(enumerate(question["enu"])),
        fluxes=question["flux"],
        ra=np.atleast_1d(sky.ra.rad),
        dec=np.atleast_1d(sky.dec.rad),
        freqs=question["freqs"],
        times=frame.obstime.reshape(1),
        beams=[UniformBeam()],
        telescope_loc=frame.location,
        precision=2,
        antpairs=question["pairs"],
    )
    return 2 * found[:, 0]  # one feed gets half of the flux density


def main(asked, answered):
    """Answer a question."""
    question = dict(np.load(asked))
    vis, directions = [], []
    for index, time in enumerate(question["times"]):
        frame = altaz(time, question["site"])
        if "seen" in question:
            sky = as_catalogued(question["seen"][index], frame)
        else:
            sky = SkyCoord(*(question["radec"].T * u.rad), frame="icrs")
        directions.append(as_seen(sky, frame))
        vis.append(visibilities(question, sky, frame))
    np.savez(answered, vis=np.array(vis), direction=np.array(directions))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
