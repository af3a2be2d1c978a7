"""Descriptions of antennas and targets, read with katpoint; what it lets pass is looked at again.

katpoint accepts a diameter of -1 m and a latitude of ``nan``, and raises exceptions of many types.
"""

from __future__ import annotations

import math
import re

import katpoint

from sdpcontroller.config.fields import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)


def parse_antenna(description: str) -> katpoint.Antenna:
    """Read the description of an antenna.

    Raises
    ------
    ValueError
        If katpoint cannot read it, or what it reads is no antenna: a name that cannot be part of sensor
        names, a position that is not finite or not on Earth, a diameter that is not positive.
    """
    try:
        antenna = katpoint.Antenna(description)
    except (
        Exception
    ) as error:  # katpoint raises whatever its parts raise: ValueError, TypeError, IndexError
        raise ValueError(f"is no antenna description: {error}") from None
    if not _NAME.match(antenna.name):
        raise ValueError(
            f"the antenna's name {antenna.name!r} has other than letters, digits, _ and -"
        )
    if not all(math.isfinite(x) for x in (*antenna.position_ecef, *antenna.delay_model.values())):
        raise ValueError(f"the position of antenna {antenna.name} is not finite")
    latitude, longitude, _ = antenna.ref_position_wgs84
    if abs(latitude) > math.pi / 2 or abs(longitude) > 2 * math.pi:
        raise ValueError(
            f"antenna {antenna.name} is nowhere on Earth: latitude {math.degrees(latitude):g}°, "
            f"longitude {math.degrees(longitude):g}°"
        )
    if not (math.isfinite(antenna.diameter) and antenna.diameter > 0):
        raise ValueError(
            f"antenna {antenna.name} has diameter {antenna.diameter} m: must be positive"
        )
    return antenna


def parse_target(description: str) -> katpoint.Target:
    """Read the description of a target at a fixed place on the sky.

    Raises
    ------
    ValueError
        If katpoint cannot read it, or it is not of body type ``radec``, or its place is not finite.
    """
    try:
        target = katpoint.Target(description)
    except Exception as error:  # as above
        raise ValueError(f"is no target description: {error}") from None
    if target.body_type != "radec":
        raise ValueError(f"is of body type {target.body_type!r}: must be radec")
    if not all(math.isfinite(float(angle)) for angle in target.radec()):
        raise ValueError("its right ascension or declination is not finite")
    return target


def parse_source(description: str) -> katpoint.Target:
    """Read the description of a source: a target with a flux model.

    Raises
    ------
    ValueError
        As :func:`parse_target`, and where there is no flux model.
    """
    source = parse_target(description)
    if source.flux_model is None:
        raise ValueError(
            "has no flux model: add (MIN_MHZ MAX_MHZ C0 C1 …), log10 S = C0 + C1 log10 f + …"
        )
    return source
