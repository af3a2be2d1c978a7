"""Leakage between the polarisations, from an unpolarised calibrator.

All that is in its cross hands is leakage. The feeds see ``h + d_h v`` and ``v + d_v h``, so that to first order
``V_hv(i, j) = d_h(i) + conj(d_v(j))``, linear in the unknowns (Sault, Hamaker & Bregman 1996, A&AS 117, 149). A
constant can be moved from all d_h to all d_v; d_h of the reference antenna is called 0.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from pipelines.calibration.cross_hands import CrossHands
from pipelines.calibration.parallel import in_ranges
from pipelines.calibration.solutions import ComplexGains, Quality

MIN_PARTNERS: Final = 2
"""Equations that a leakage must have."""
_FAST: Final = {"reassoc", "contract", "arcp", "nsz"}
_ITERATIONS: Final = 50
_TOLERANCE: Final = 1e-6


def solve_leakage(cross: CrossHands, refant: int) -> tuple[ComplexGains, Quality]:
    """Solve the leakages of an unpolarised calibrator.

    Returns
    -------
    leakage, snr
        (block, pol, ant), NaN where there is none; (pol, ant), one over the standard error, median over the
        blocks.
    """
    pairs, n_blocks = cross.pairs, cross.sums.shape[1]
    leakage = np.full((n_blocks, 2, pairs.n_antennas), np.nan + 0j, np.complex64)
    snr = np.zeros(leakage.shape, np.float32)

    def solve(start: int, stop: int) -> None:
        """Write the leakages and ratios (pol, ant) of blocks ``start`` to ``stop``."""
        for block in range(start, stop):
            _leakages(
                cross.sums[:, block], cross.weights[:, block], pairs.ant1, pairs.ant2, refant,
                leakage[block], snr[block],
            )  # fmt: skip

    in_ranges(n_blocks, 1, solve)
    return leakage, np.median(snr, axis=0)


@njit(cache=True, nogil=True)
def _equations(sums: Any, weights: Any, ant1: Any, ant2: Any, re: Any, im: Any, w: Any) -> None:
    """Write ``w_ij X_ij`` and ``w_ij`` as matrices: hv is X_ij, the conjugate of vh is X_ji."""
    for p in range(len(ant1)):
        i, j = ant1[p], ant2[p]
        re[i, j], im[i, j], w[i, j] = sums[0, p].real, sums[0, p].imag, weights[0, p]
        re[j, i], im[j, i], w[j, i] = sums[1, p].real, -sums[1, p].imag, weights[1, p]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _turn(total: Any, w: Any, other: Any, weight: Any, out: Any) -> float:
    """Solve one side of the equations with the other held; return the largest change."""
    change = 0.0
    for i in range(len(out)):
        held = 0.0
        for j in range(len(other)):
            held += w[i, j] * other[j]
        if weight[i] > 0:
            value = (total[i] - held) / weight[i]
            change = max(change, abs(value - out[i]))
            out[i] = value
    return float(change)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _residual(x: Any, w: Any, a: Any, b: Any) -> float:
    total = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            used = w[i, j] > 0
            weight = w[i, j] if used else 1.0
            error = x[i, j] - weight * (a[i] + b[j])
            total += error * error / weight if used else 0.0
    return total


@njit(cache=True, nogil=True)
def _leakages(
    sums: Any, weights: Any, ant1: Any, ant2: Any, refant: int, out: Any, snr: Any
) -> None:
    """Solve ``X_ij = a_i + b_j`` for a = d_h and b = conj(d_v), each with the other held, in turn.

    Real and imaginary parts are equations of their own.
    """
    n = out.shape[1]
    parts, w = np.zeros((2, n, n)), np.zeros((n, n))
    _equations(sums, weights, ant1, ant2, parts[0], parts[1], w)
    transposed = np.ascontiguousarray(w.T)
    rows, columns = w.sum(axis=1), w.sum(axis=0)
    partners, partners_v = (w > 0).sum(axis=1), (w > 0).sum(axis=0)
    if partners[refant] < MIN_PARTNERS:
        return
    unknown = np.zeros((2, 2, n))  # (part, side, ant)
    noise = 0.0
    for part in range(2):
        of_rows, of_columns = parts[part].sum(axis=1), parts[part].sum(axis=0)
        a, b = unknown[part]
        for _ in range(_ITERATIONS):
            change = _turn(of_rows, w, b, rows, a)
            change = max(change, _turn(of_columns, transposed, a, columns, b))
            if change < _TOLERANCE:
                break
        noise += _residual(parts[part], w, a, b)
        constant = a[refant]
        a -= constant
        b += constant
    noise /= max(1, (w > 0).sum() - 2 * n + 1)
    for k in range(n):
        if partners[k] >= MIN_PARTNERS:
            out[0, k] = complex(unknown[0, 0, k], unknown[1, 0, k])
            snr[0, k] = np.sqrt(rows[k] / noise) if noise > 0 else np.inf
        if partners_v[k] >= MIN_PARTNERS:
            out[1, k] = complex(unknown[0, 1, k], -unknown[1, 1, k])
            snr[1, k] = np.sqrt(columns[k] / noise) if noise > 0 else np.inf
