"""Baseline coordinates, by katpoint, for whole arrays at once.

Convention (katdal's ``doc/signs.rst``): an antenna's uvw is its position relative to the array's reference,
in metres along axes that point east (u), north (v) and to the target (w); baseline (A, B) has
``uvw(A) - uvw(B)``. A plane wave reaches the antenna with the larger w first, which with ``V(A, B) = <E_A
conj(E_B)>`` gives phases ``+2πi(ul + vm + w(n-1))``.

The reference is the common one that katdal uses too (`katpoint.Antenna.array_reference_antenna` of the first
antenna): the basis is computed once per time for the whole array, and everything else is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import katpoint
import numpy as np
from numpy.typing import ArrayLike, NDArray

SPEED_OF_LIGHT: Final = 299792458.0


def antenna_offsets(antennas: Sequence[katpoint.Antenna]) -> NDArray[np.float64]:
    """Positions relative to the array's reference: east, north, up in metres, shape (n_ants, 3)."""
    reference = antennas[0].array_reference_antenna()
    offsets = [reference.baseline_toward(antenna) for antenna in antennas]
    return np.array(offsets, dtype=np.float64)


def antenna_uvw(
    target: katpoint.Target, times: ArrayLike, antennas: Sequence[katpoint.Antenna]
) -> NDArray[np.float64]:
    """Coordinates of antennas.

    Parameters
    ----------
    target
        Phase centre.
    times
        Unix times, s, shape (n_times,).
    antennas
        At least one; the first one's reference position is the array's.

    Returns
    -------
    array, shape (n_times, n_ants, 3)
        u, v, w in metres.
    """
    when = np.atleast_1d(np.asarray(times, dtype=np.float64))
    reference = antennas[0].array_reference_antenna()
    # katpoint gives (uvw, enu, time).
    basis = np.asarray(target.uvw_basis(when, reference), dtype=np.float64)
    uvw: NDArray[np.float64] = np.einsum("cet,ae->tac", basis, antenna_offsets(antennas))
    return uvw


def baseline_uvw(ant_uvw: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Coordinates of baselines from those of antennas.

    Parameters
    ----------
    ant_uvw
        Shape (…, n_ants, 3), any unit.
    pairs
        Positions of the antennas A and B of each baseline, shape (n, 2).

    Returns
    -------
    array, shape (…, n, 3)
        ``uvw(A) - uvw(B)`` in the same unit.
    """
    return np.asarray(ant_uvw[..., pairs[:, 0], :] - ant_uvw[..., pairs[:, 1], :])


def direction_cosines(
    centre: katpoint.Target, target: katpoint.Target, time: float, antenna: katpoint.Antenna
) -> NDArray[np.float64]:
    """Direction of a target seen from the phase centre.

    Returns
    -------
    array, shape (3,)
        l (east), m (north) and n - 1. Not meaningful for n <= 0: more than 90° away.
    """
    ra0, dec0 = (float(angle) for angle in centre.radec(time, antenna))
    ra, dec = (float(angle) for angle in target.radec(time, antenna))
    # n - 1 by half angles: for small offsets 1 - n loses all its digits.
    delta = ra - ra0
    haversine = np.sin((dec - dec0) / 2) ** 2 + np.cos(dec) * np.cos(dec0) * np.sin(delta / 2) ** 2
    l = np.cos(dec) * np.sin(delta)  # noqa: E741 - the field's name
    m = np.sin(dec - dec0) + 2 * np.cos(dec) * np.sin(dec0) * np.sin(delta / 2) ** 2
    return np.array([l, m, -2 * haversine])
