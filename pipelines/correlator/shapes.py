"""Sources that are not points: elliptical Gaussians.

A source is given a shape by a tag of its katpoint description, ``gaussian:MAJOR:MINOR:ANGLE``: widths at half
maximum in arcseconds, and the position angle of the major axis in degrees, from north through east.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import katpoint
import numpy as np
from numpy.typing import NDArray

from pipelines.correlator.errors import ModelError

PREFIX: Final = "gaussian:"
_ARCSECOND: Final = math.radians(1 / 3600)
MAX_WIDTH: Final = 3600.0 * 5
"""Arcseconds."""


def shape_of(source: katpoint.Target) -> NDArray[np.float64]:
    """Return the coefficients of a source's visibility envelope.

    With u and v in wavelengths the envelope is ``exp(-(a u² + b uv + c v²))``: the Fourier transform of a
    Gaussian of unit integral (for a width θ at half maximum: ``exp(-π² θ² u² / (4 ln 2))``).

    Returns
    -------
    array, shape (3,)
        a, b and c; zeros for a point source.

    Raises
    ------
    ModelError
        The tag cannot be read.
    """
    tags = [tag for tag in source.tags if tag.startswith(PREFIX)]
    if not tags:
        return np.zeros(3)
    try:
        major, minor, angle = (float(part) for part in tags[0].removeprefix(PREFIX).split(":"))
    except ValueError:
        major = minor = angle = math.nan
    if len(tags) > 1 or not (0 <= minor <= major <= MAX_WIDTH and abs(angle) <= 360):
        raise ModelError(
            f"source {source.name!r}: {' '.join(tags)!r:.80} is no shape; expected "
            "gaussian:MAJOR:MINOR:ANGLE with widths in arcseconds, MAJOR >= MINOR, and degrees"
        )
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    squares = (np.array([major, minor]) * _ARCSECOND) ** 2 * math.pi**2 / (4 * math.log(2))
    along, across = float(squares[0]), float(squares[1])
    return np.array(
        [
            along * sin * sin + across * cos * cos,
            2 * sin * cos * (along - across),
            along * cos * cos + across * sin * sin,
        ]
    )


def shapes_of(sources: Iterable[katpoint.Target]) -> NDArray[np.float64]:
    """Return the coefficients of several sources, shape (n_sources, 3); raises as :func:`shape_of`."""
    return np.array([shape_of(source) for source in sources]).reshape(-1, 3)
