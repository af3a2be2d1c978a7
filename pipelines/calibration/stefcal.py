"""Gains per antenna from visibilities of a point source: StEFCal, for many channels or intervals at once.

Minimises ``sum_ij w_ij |V_ij - g_i conj(g_j)|^2`` by solving for each gain with all others held, and
averaging every second iterate with the one before (Salvini & Wijnholds 2014, A&A 571, A97). Visibilities have
been divided by the model before, so the model is 1.

The equations are taken as sums, ``w V`` and ``w``: what one has after averaging, and all that the iteration
needs. Arithmetic has the precision of the sums. The inner loops run along contiguous rows of Hermitian
matrices that are padded, so that they become vector instructions without remainders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from pipelines.calibration.parallel import in_ranges

MIN_ANTENNAS: Final = 3
"""Fewer antennas close no phase and no amplitude."""
MIN_BASELINES: Final = 2
"""Baselines to other antennas that an antenna must have; with one its amplitude is anybody's."""
MIN_SNR: Final = 3.0
"""A gain that is not this many times its standard error above zero is none: a dead input, or noise."""
TOLERANCES: Final = {np.dtype(np.complex64): 1e-6, np.dtype(np.complex128): 1e-7}
"""Relative change of the gains at which the iteration ends, by the precision of the sums."""
MAX_ITERATIONS: Final = 200
RUN: Final = 32
"""Sets that are solved in a row, each from the solution before where the gains are known to be near one."""
_POWER_ITERATIONS: Final = 15
_NEGLIGIBLE: Final = 1e-6
_LANES: Final = 16

_FAST: Final = {"reassoc", "contract", "arcp", "nsz"}
"""What lets sums be vectorised; not a number and infinity keep their meaning."""


@dataclass(frozen=True, slots=True)
class Gains:
    """Solutions of S independent sets of equations for N antennas; NaN where there is none."""

    gains: npt.NDArray[np.complex64]
    """(S, N), the reference antenna's real and positive."""
    snr: npt.NDArray[np.float32]
    """(S, N), amplitude over its standard error; infinite where the fit is exact."""


@njit(cache=True, nogil=True)
def _fill(sums: Any, weights: Any, upper: Any, lower: Any, re: Any, im: Any, w: Any) -> None:
    """Write Hermitian matrices of weighted visibilities and of weights; no pair of antennas comes twice."""
    zero = weights[0] * 0
    for p in range(len(upper)):
        weight = weights[p]
        x, y = sums[p].real, sums[p].imag
        if not weight > 0:
            weight, x, y = zero, zero, zero
        i, j = upper[p], lower[p]
        re[i] = x
        re[j] = x
        im[i] = y
        im[j] = -y
        w[i] = weight
        w[j] = weight


@njit(cache=True, nogil=True)
def _prune(w: Any, n: int, refant: int, alive: Any) -> int:
    """Mark the antennas that have enough baselines among each other and a path to `refant`; count them."""
    alive[:] = False
    alive[:n] = True
    changed = True
    while changed:
        changed = False
        for i in range(n):
            if alive[i]:
                count = 0
                for j in range(n):
                    count += alive[j] and w[i, j] > 0.0
                if count < MIN_BASELINES:
                    alive[i] = False
                    changed = True
    reached = np.zeros(len(alive), np.bool_)
    reached[refant] = alive[refant]
    total = 0
    while reached.sum() > total:
        total = reached.sum()
        for i in range(n):
            if reached[i]:
                for j in range(n):
                    if alive[j] and w[i, j] > 0.0:
                        reached[j] = True
    alive[:] = reached
    return int(total)


@njit(cache=True, nogil=True)
def _isolate(re: Any, im: Any, w: Any, n: int, alive: Any) -> None:
    """Take the antennas that are not alive out of the equations."""
    for i in range(n):
        if not alive[i]:
            re[i, :] = 0.0
            im[i, :] = 0.0
            w[i, :] = 0.0
            re[:, i] = 0.0
            im[:, i] = 0.0
            w[:, i] = 0.0


@njit(cache=True, nogil=True, fastmath=_FAST)
def _multiply(re: Any, im: Any, w: Any, gre: Any, gim: Any, x: Any, y: Any, norm: Any) -> None:
    """Matrix times vector, and weights times powers: by columns, which are conjugate rows, four at a time."""
    n = len(gre)
    x[:] = 0.0
    y[:] = 0.0
    norm[:] = 0.0
    for j in range(0, n, 4):
        a0, b0 = gre[j], gim[j]
        a1, b1 = gre[j + 1], gim[j + 1]
        a2, b2 = gre[j + 2], gim[j + 2]
        a3, b3 = gre[j + 3], gim[j + 3]
        p0, p1 = a0 * a0 + b0 * b0, a1 * a1 + b1 * b1
        p2, p3 = a2 * a2 + b2 * b2, a3 * a3 + b3 * b3
        r0, r1, r2, r3 = re[j], re[j + 1], re[j + 2], re[j + 3]
        i0, i1, i2, i3 = im[j], im[j + 1], im[j + 2], im[j + 3]
        w0, w1, w2, w3 = w[j], w[j + 1], w[j + 2], w[j + 3]
        for i in range(n):
            x[i] += (r0[i] * a0 + i0[i] * b0 + r1[i] * a1 + i1[i] * b1) + (
                r2[i] * a2 + i2[i] * b2 + r3[i] * a3 + i3[i] * b3
            )
            y[i] += (r0[i] * b0 - i0[i] * a0 + r1[i] * b1 - i1[i] * a1) + (
                r2[i] * b2 - i2[i] * a2 + r3[i] * b3 - i3[i] * a3
            )
            norm[i] += (w0[i] * p0 + w1[i] * p1) + (w2[i] * p2 + w3[i] * p3)


@njit(cache=True, nogil=True)
def _start(re: Any, im: Any, w: Any, n: int, alive: Any, gre: Any, gim: Any, work: Any) -> None:
    """Set the gains to the eigenvector of the largest eigenvalue, scaled as the visibilities are."""
    power = 0.0
    for i in range(n):
        for j in range(n):
            power += np.hypot(re[i, j], im[i, j])
    total = w.sum()
    # The shift makes the largest eigenvalue the one of largest modulus.
    shift = power / max(1, alive.sum())
    gre[:n] = 1.0
    gim[:] = 0.0
    for _ in range(_POWER_ITERATIONS):
        _multiply(re, im, w, gre, gim, work[0], work[1], work[2])
        norm = 0.0
        for i in range(n):
            work[0, i] += shift * gre[i]
            work[1, i] += shift * gim[i]
            norm += work[0, i] ** 2 + work[1, i] ** 2
        norm = np.sqrt(norm) if norm > 0.0 else 1.0
        gre[:n] = work[0, :n] / norm
        gim[:n] = work[1, :n] / norm
    scale = np.sqrt(power / total) * np.sqrt(n) if total > 0.0 else 1.0
    for i in range(n):
        gre[i] *= scale
        gim[i] *= scale


@njit(cache=True, nogil=True, fastmath=_FAST)
def _step(x: Any, y: Any, norm: Any, gre: Any, gim: Any, keep: Any) -> tuple[float, float]:
    """Put the new gains, averaged with the old by `keep`, in place; return squares of change and size."""
    change = gre[0] * 0
    size = gre[0] * 0
    new = 1 - keep
    for i in range(len(gre)):
        scale = new / norm[i] if norm[i] > 0 else keep * 0
        a = x[i] * scale + keep * gre[i]
        b = y[i] * scale + keep * gim[i]
        change += (a - gre[i]) * (a - gre[i]) + (b - gim[i]) * (b - gim[i])
        size += a * a + b * b
        gre[i] = a
        gim[i] = b
    return change, size


@njit(cache=True, nogil=True)
def _iterate(re: Any, im: Any, w: Any, gre: Any, gim: Any, work: Any, tolerance: float) -> int:
    """StEFCal: iterate the gains to convergence, in place; return the number of iterations."""
    half = gre.dtype.type(0.5)
    for iteration in range(MAX_ITERATIONS):
        _multiply(re, im, w, gre, gim, work[0], work[1], work[2])
        keep = half if iteration % 2 else half - half
        change, size = _step(work[0], work[1], work[2], gre, gim, keep)
        if iteration % 2 and change <= tolerance * tolerance * size:
            return iteration + 1
    return MAX_ITERATIONS


@njit(cache=True, nogil=True, fastmath=_FAST)
def _noise(re: Any, im: Any, w: Any, gre: Any, gim: Any, n_gains: int) -> float:
    """Variance of a visibility of weight 1, from the residuals; the matrices have each twice."""
    total = 0.0
    equations = 0
    for i in range(len(gre)):
        a, b = gre[i], gim[i]
        row_re, row_im, row_w = re[i], im[i], w[i]
        subtotal = a * 0
        count = 0
        for j in range(len(gre)):
            used = row_w[j] > 0
            weight = row_w[j] if used else a * 0 + 1
            x = row_re[j] - weight * (a * gre[j] + b * gim[j])
            y = row_im[j] - weight * (b * gre[j] - a * gim[j])
            subtotal += (x * x + y * y) / weight if used else a * 0
            count += used
        total += subtotal
        equations += count
    return float(0.5 * total / max(1, equations // 2 - n_gains))


@njit(cache=True, nogil=True)
def _silence(w: Any, norm: Any, noise: float, gre: Any, gim: Any, alive: Any, snr: Any) -> bool:
    """Take the weights of antennas without signal away; fill `snr`; return whether there was one."""
    strongest = 0.0
    for i in range(len(snr)):
        strongest = max(strongest, np.hypot(gre[i], gim[i]))
    lost = False
    for i in range(len(snr)):
        amplitude = np.hypot(gre[i], gim[i])
        error = np.sqrt(noise / norm[i]) if norm[i] > 0.0 else np.inf
        snr[i] = amplitude / error if error > 0.0 else np.inf
        if alive[i] and (snr[i] < MIN_SNR or amplitude <= _NEGLIGIBLE * strongest):
            w[i, :] = 0.0
            w[:, i] = 0.0
            lost = True
    return lost


@njit(cache=True, nogil=True)
def _solve_one(
    sums: Any,
    weights: Any,
    upper: Any,
    lower: Any,
    refant: int,
    near: bool,
    tolerance: float,
    matrices: Any,
    g: Any,
    work: Any,
    alive: Any,
    out: Any,
    snr: Any,
) -> bool:
    """Solve one set from the gains `g` on, or from an eigenvector; return whether it has a solution."""
    n = len(out)
    re, im, w = matrices[0], matrices[1], matrices[2]
    gre, gim = g[0], g[1]
    _fill(sums, weights, upper, lower, re.reshape(-1), im.reshape(-1), w.reshape(-1))
    # Twice: inputs that turn out to be dead must not have a part in the others' solutions.
    for _ in range(2):
        n_alive = _prune(w, n, refant, alive)
        if n_alive < MIN_ANTENNAS:
            return False
        _isolate(re, im, w, n, alive)
        if not near:
            _start(re, im, w, n, alive, gre, gim, work)
        _iterate(re, im, w, gre, gim, work, tolerance)
        noise = _noise(re, im, w, gre, gim, n_alive)
        if not _silence(w, work[2], noise, gre, gim, alive, snr):
            break
    size = np.hypot(gre[refant], gim[refant])
    if not alive[refant] or size == 0.0:
        return False
    turn = complex(gre[refant], -gim[refant]) / size
    for i in range(n):
        if alive[i] and w[i].sum() > 0.0:
            out[i] = complex(gre[i], gim[i]) * turn
    return True


@njit(cache=True, nogil=True)
def _solve_all(
    sums: Any,
    weights: Any,
    upper: Any,
    lower: Any,
    refant: int,
    near_one: bool,
    tolerance: float,
    matrices: Any,
    g: Any,
    work: Any,
    out: Any,
    snr: Any,
) -> None:
    n = out.shape[1]
    alive = np.zeros(g.shape[1], np.bool_)
    usable = False
    for s in range(sums.shape[0]):
        if s % RUN == 0 or not usable:
            g[:] = 0.0
            g[0, :n] = 1.0
        usable = _solve_one(
            sums[s], weights[s], upper, lower, refant, near_one, tolerance, matrices, g, work, alive,
            out[s], snr[s],
        )  # fmt: skip
        for i in range(n):
            # What the next set starts from: where this one has no gain, 1.
            if np.isnan(out[s, i].real):
                g[0, i] = 1.0
                g[1, i] = 0.0


def solve(
    sums: npt.NDArray[np.complexfloating[Any, Any]],
    weights: npt.NDArray[np.floating[Any]],
    ant1: npt.NDArray[np.int64],
    ant2: npt.NDArray[np.int64],
    n_antennas: int,
    refant: int,
    *,
    near_one: bool = False,
) -> Gains:
    """Solve S independent sets of equations for the gains of N antennas.

    Parameters
    ----------
    sums
        (S, P) visibilities over the model times their weights; finite where the weight is not 0. Single
        precision is enough for the channels of a bandpass and twice as fast.
    weights
        (S, P) inverse variances up to a factor; 0 excludes.
    ant1, ant2
        (P,) antennas of each baseline, ``V = g[ant1] * conj(g[ant2])``; two different ones, and no pair twice.
    refant
        Antenna whose phase becomes 0.
    near_one
        Start from gains of 1 and from those of the set before, where they are known to be near; otherwise
        from the matrix's eigenvector.

    Returns
    -------
    Gains
        NaN for antennas with too few baselines or too little signal, and everywhere where fewer than
        :data:`MIN_ANTENNAS` or no reference antenna remain.
    """
    sums = np.ascontiguousarray(sums)
    real = np.empty(0, sums.dtype).real.dtype
    weights = np.ascontiguousarray(weights, real)
    gains = np.full((len(sums), n_antennas), np.nan + 1j * np.nan, np.complex64)
    snr = np.zeros((len(sums), n_antennas), np.float32)
    padded = -(-n_antennas // _LANES) * _LANES
    upper, lower = ((a * padded + b).astype(np.int32) for a, b in ((ant1, ant2), (ant2, ant1)))
    tolerance = TOLERANCES[sums.dtype]

    def solve_range(start: int, stop: int) -> None:
        """Solve sets ``start`` to ``stop``, in arrays of this thread's own; write their gains and ratios."""
        part = slice(start, stop)
        matrices, g, work = (np.zeros((k, padded), real) for k in (3 * padded, 2, 3))
        _solve_all(
            sums[part], weights[part], upper, lower, refant, near_one, tolerance,
            matrices.reshape(3, padded, padded), g, work, gains[part], snr[part],
        )  # fmt: skip

    if len(sums):
        in_ranges(len(sums), RUN, solve_range)
    snr[np.isnan(gains)] = 0.0
    return Gains(gains, snr)
