"""What the UVW column of a recording says: which way round its baselines are, and where it really points.

Both cannot be taken on trust. Some writers have UVW from the first antenna to the second, others the
opposite; what is common to them is that visibilities go with the column as exp(+2πi(ul + vm + w(n-1))),
which is how imagers read it. And FIELD tables are not always right: splitting and renumbering have left
data sets whose visibilities were phased at another position than their field's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Final

import katpoint
import numpy as np
from numpy.typing import NDArray

from pipelines.common import uvw
from pipelines.correlator.measurement_set import MeasurementSet

logger = logging.getLogger(__name__)

TOLERANCE: Final = 3e-4
"""Disagreement with the UVW column, relative to the baselines, that is put down to different astrometry
(aberration is 1e-4) and not to another direction."""

MAX_ROWS: Final = 4096
"""Rows of a field that are looked at."""


def antenna_descriptions(
    names: Sequence[str], positions: NDArray[np.float64], diameters: Sequence[float]
) -> tuple[str, ...]:
    """Katpoint descriptions of antennas from ITRF positions.

    They are offsets from a common reference, since a description keeps latitudes only to 0.1″ (3 m) when
    katpoint has read and written it.

    Parameters
    ----------
    names
        One per antenna, as `diameters` (m).
    positions
        ITRF, m, shape (n_ants, 3).
    """
    lat, lon, alt = katpoint.ecef_to_lla(*positions.mean(axis=0))
    where = f"{_sexagesimal(math.degrees(lat))}, {_sexagesimal(math.degrees(lon))}, {alt:.1f}"
    reference = katpoint.Antenna(f"reference, {where}, 1.0").ref_position_wgs84
    offsets = [katpoint.ecef_to_enu(*reference, *position) for position in positions]
    return tuple(
        f"{name}, {where}, {diameter:g}, {east:.4f} {north:.4f} {up:.4f}"
        for name, diameter, (east, north, up) in zip(names, diameters, offsets, strict=True)
    )


def _sexagesimal(degrees: float) -> str:
    """An angle to 0.1″, ``-30:42:39.8``."""
    tenths = round(abs(degrees) * 36000)
    sign = "-" if degrees < 0 else ""
    return f"{sign}{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths % 600 / 10:04.1f}"


def target_description(name: str, ra: float, dec: float) -> str:
    """Katpoint description of a calibrator.

    Parameters
    ----------
    name
        Of the field.
    ra, dec
        J2000, rad.
    """
    clean = "".join(c if c.isprintable() and c not in ",|*" else "_" for c in name).strip()
    seconds = round(ra % (2 * math.pi) * 43200 / math.pi, 4) % 86400
    hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
    arcseconds = round(abs(math.degrees(dec)) * 3600, 3)
    sign = "-" if dec < 0 else "+"
    declination = (
        f"{sign}{int(arcseconds // 3600)}:{int(arcseconds // 60 % 60):02d}:{arcseconds % 60:06.3f}"
    )
    return (
        f"{clean or 'field'}, radec gaincal, "
        f"{hours}:{minutes:02d}:{seconds % 60:07.4f}, {declination}"
    )


class FieldGeometry:
    """Orientation and direction of one field's data.

    Parameters
    ----------
    measurement_set
        The recording.
    field
        Number of the field; it must occur.
    antennas
        Those of the recording.

    Attributes
    ----------
    sign
        +1 where the UVW column is ``uvw(ANTENNA1) - uvw(ANTENNA2)``, -1 where it is the opposite.
    description
        Katpoint description of the phase centre.
    """

    def __init__(
        self, measurement_set: MeasurementSet, field: int, antennas: Sequence[katpoint.Antenna]
    ) -> None:
        self._antennas = antennas
        name = measurement_set.field_names[field]
        ra, dec = (float(angle) for angle in measurement_set.field_directions[field])
        self.description = target_description(name, ra, dec)
        self.sign = 1
        which = _busiest_dump(measurement_set, field)
        recorded = measurement_set.read("UVW", which).astype(np.float64)
        self._pairs = np.stack([measurement_set.ant1[which], measurement_set.ant2[which]], axis=-1)
        self._time = float(np.median(measurement_set.time[which]))
        if not np.any(recorded):
            logger.warning(
                "field %r has no UVW: its direction and orientation are not checked", name
            )
            return
        self._check(name, recorded)

    def _check(self, name: str, recorded: NDArray[np.float64]) -> None:
        expected = self._expected(katpoint.Target(self.description))
        errors = {sign: _relative_error(sign * expected, recorded) for sign in (1, -1)}
        self.sign = min(errors, key=lambda sign: errors[sign])
        if errors[self.sign] < TOLERANCE:
            return
        found = self._direction(name, self.sign * recorded)
        error = _relative_error(self.sign * self._expected(katpoint.Target(found)), recorded)
        if error < TOLERANCE:
            separation = katpoint.Target(found).separation(
                katpoint.Target(self.description), self._time, self._antennas[0]
            )
            logger.warning(
                "field %r: UVW are for a direction %.3f deg from that of the FIELD table: using %s",
                name,
                math.degrees(separation),
                found,
            )
            self.description = found
        else:
            logger.warning(
                "field %r: UVW do not follow from antenna positions (%.1g of the baselines off)",
                name,
                errors[self.sign],
            )

    def _expected(self, target: katpoint.Target) -> NDArray[np.float64]:
        coordinates = uvw.antenna_uvw(target, self._time, self._antennas)[0]
        return uvw.baseline_uvw(coordinates, self._pairs)

    def _direction(self, name: str, recorded: NDArray[np.float64]) -> str:
        """Direction whose uvw are the recorded ones, by the rotation that fits best (Kabsch)."""
        offsets = uvw.antenna_offsets(self._antennas)
        baselines = offsets[self._pairs[:, 0]] - offsets[self._pairs[:, 1]]
        left, _, right = np.linalg.svd(baselines.T @ recorded)
        left[:, -1] *= np.sign(np.linalg.det(left @ right))
        east, north, up = (left @ right)[:, 2]
        azimuth, elevation = katpoint.enu_to_azel(east, north, up)
        reference = self._antennas[0].array_reference_antenna()
        ra, dec = katpoint.construct_azel_target(azimuth, elevation).astrometric_radec(
            self._time, reference
        )
        return target_description(name, float(ra), float(dec))


def _busiest_dump(measurement_set: MeasurementSet, field: int) -> slice:
    """Rows of one time of the field, the one with the most of them."""
    counts = np.bincount(measurement_set.grid.index[measurement_set.field == field])
    which = measurement_set.rows_of(int(counts.argmax()))
    # Rows of a dump may differ in time by a little; uvw are compared at one time.
    times, number = np.unique(measurement_set.time[which], return_counts=True)
    same = np.flatnonzero(measurement_set.time[which] == times[number.argmax()])
    run = np.split(same, np.flatnonzero(np.diff(same) > 1) + 1)
    longest = max(run, key=len)[:MAX_ROWS]
    return slice(which.start + int(longest[0]), which.start + int(longest[-1]) + 1)


def _relative_error(expected: NDArray[np.float64], recorded: NDArray[np.float64]) -> float:
    return float(np.sqrt(((expected - recorded) ** 2).sum() / (recorded**2).sum()))
