"""Gains per antenna from visibilities of a point source: StEFCal, for many channels or intervals at once.

Minimises ``sum_ij w_ij |V_ij - g_i conj(g_j)|^2`` by solving for each gain with all others held, and
averaging every second iterate with the one before (Salvini & Wijnholds 2014, A&A 571, A97). Visibilities have
been divided by the model before, so the model is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

MIN_ANTENNAS: Final = 3
"""Fewer antennas close no phase and no amplitude."""
MIN_BASELINES: Final = 2
"""Baselines to other antennas that an antenna must have; with one its amplitude is anybody's."""
MIN_SNR: Final = 3.0
"""A gain that is not this many times its standard error above zero is none: a dead input, or noise."""
TOLERANCE: Final = 1e-7
"""Relative change of the gains at which the iteration ends."""
MAX_ITERATIONS: Final = 200
_POWER_ITERATIONS: Final = 15
_NEGLIGIBLE: Final = 1e-6

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
def _fill(vis: Any, weights: Any, ant1: Any, ant2: Any, re: Any, im: Any, w: Any) -> None:
    """Make Hermitian matrices of weighted visibilities and of weights."""
    re[:] = 0.0
    im[:] = 0.0
    w[:] = 0.0
    for p in range(len(ant1)):
        i, j, weight = ant1[p], ant2[p], weights[p]
        if weight > 0.0 and i != j:
            re[i, j] += weight * vis[p].real
            re[j, i] += weight * vis[p].real
            im[i, j] += weight * vis[p].imag
            im[j, i] -= weight * vis[p].imag
            w[i, j] += weight
            w[j, i] += weight


@njit(cache=True, nogil=True)
def _prune(w: Any, refant: int, alive: Any) -> int:
    """Mark the antennas that have enough baselines among each other and a path to `refant`; count them."""
    n = w.shape[0]
    alive[:] = True
    changed = True
    while changed:
        changed = False
        for i in range(n):
            if alive[i]:
                count = 0
                for j in range(n):
                    if alive[j] and w[i, j] > 0.0:
                        count += 1
                if count < MIN_BASELINES:
                    alive[i] = False
                    changed = True
    reached = np.zeros(n, np.bool_)
    reached[refant] = alive[refant]
    for _ in range(n):
        for i in range(n):
            if reached[i]:
                for j in range(n):
                    if alive[j] and w[i, j] > 0.0:
                        reached[j] = True
    alive[:] = reached
    return int(reached.sum())


@njit(cache=True, nogil=True)
def _isolate(re: Any, im: Any, w: Any, alive: Any) -> None:
    """Take the antennas that are not alive out of the equations."""
    for i in range(len(alive)):
        if not alive[i]:
            re[i, :] = 0.0
            im[i, :] = 0.0
            w[i, :] = 0.0
            re[:, i] = 0.0
            im[:, i] = 0.0
            w[:, i] = 0.0


@njit(cache=True, nogil=True, fastmath=_FAST)
def _multiply(re: Any, im: Any, gre: Any, gim: Any, i: int) -> tuple[float, float]:
    """Row `i` of the matrix times the vector."""
    x = 0.0
    y = 0.0
    for j in range(len(gre)):
        x += re[i, j] * gre[j] - im[i, j] * gim[j]
        y += re[i, j] * gim[j] + im[i, j] * gre[j]
    return x, y


@njit(cache=True, nogil=True)
def _start(re: Any, im: Any, w: Any, alive: Any, gre: Any, gim: Any) -> None:
    """Set the gains to the eigenvector of the largest eigenvalue, scaled as the visibilities are."""
    n = len(gre)
    power = 0.0
    for i in range(n):
        for j in range(n):
            power += np.hypot(re[i, j], im[i, j])
    total = w.sum()
    # The shift makes the largest eigenvalue the one of largest modulus.
    shift = power / max(1, alive.sum())
    hre = np.empty(n)
    him = np.empty(n)
    for _ in range(_POWER_ITERATIONS):
        norm = 0.0
        for i in range(n):
            x, y = _multiply(re, im, gre, gim, i)
            hre[i] = x + shift * gre[i]
            him[i] = y + shift * gim[i]
            norm += hre[i] ** 2 + him[i] ** 2
        norm = np.sqrt(norm) if norm > 0.0 else 1.0
        gre[:] = hre / norm
        gim[:] = him / norm
    scale = np.sqrt(power / total) if total > 0.0 else 1.0
    gre *= scale * np.sqrt(n)
    gim *= scale * np.sqrt(n)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _iterate(re: Any, im: Any, w: Any, gre: Any, gim: Any) -> None:
    """StEFCal: iterate the gains to convergence, in place."""
    n = len(gre)
    hre = np.empty(n)
    him = np.empty(n)
    power = np.empty(n)
    for iteration in range(MAX_ITERATIONS):
        for j in range(n):
            power[j] = gre[j] * gre[j] + gim[j] * gim[j]
        for i in range(n):
            x, y = _multiply(re, im, gre, gim, i)
            norm = 0.0
            for j in range(n):
                norm += w[i, j] * power[j]
            hre[i] = x / norm if norm > 0.0 else 0.0
            him[i] = y / norm if norm > 0.0 else 0.0
        change = 0.0
        size = 0.0
        for i in range(n):
            if iteration % 2:
                hre[i] = 0.5 * (hre[i] + gre[i])
                him[i] = 0.5 * (him[i] + gim[i])
            change += (hre[i] - gre[i]) ** 2 + (him[i] - gim[i]) ** 2
            size += hre[i] ** 2 + him[i] ** 2
            gre[i] = hre[i]
            gim[i] = him[i]
        if iteration % 2 and change <= TOLERANCE * TOLERANCE * size:
            break


@njit(cache=True, nogil=True)
def _noise(vis: Any, weights: Any, ant1: Any, ant2: Any, g: Any, alive: Any) -> float:
    """Variance of a visibility of weight 1, from the residuals."""
    total = 0.0
    equations = 0
    for p in range(len(ant1)):
        i, j = ant1[p], ant2[p]
        if weights[p] > 0.0 and i != j and alive[i] and alive[j]:
            residual = vis[p] - g[i] * np.conj(g[j])
            total += weights[p] * (residual.real**2 + residual.imag**2)
            equations += 1
    return float(total / max(1, equations - alive.sum()))


@njit(cache=True, nogil=True)
def _solve_one(
    vis: Any, weights: Any, ant1: Any, ant2: Any, refant: int, near_one: bool, out: Any, snr: Any
) -> None:
    n = len(out)
    re, im, w = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    alive = np.empty(n, np.bool_)
    gre, gim = np.ones(n), np.zeros(n)
    g = np.empty(n, np.complex128)
    _fill(vis, weights, ant1, ant2, re, im, w)
    # Twice: inputs that turn out to be dead must not have a part in the others' solutions.
    for _ in range(2):
        if _prune(w, refant, alive) < MIN_ANTENNAS:
            return
        _isolate(re, im, w, alive)
        if not near_one:
            _start(re, im, w, alive, gre, gim)
        _iterate(re, im, w, gre, gim)
        for i in range(n):
            g[i] = complex(gre[i], gim[i])
        noise = _noise(vis, weights, ant1, ant2, g, alive)
        strongest = np.abs(g).max()
        lost = False
        for i in range(n):
            information = (w[i] * np.abs(g) ** 2).sum()
            error = np.sqrt(noise / information) if information > 0.0 else np.inf
            snr[i] = np.abs(g[i]) / error if error > 0.0 else np.inf
            if alive[i] and (snr[i] < MIN_SNR or np.abs(g[i]) <= _NEGLIGIBLE * strongest):
                w[i, :] = 0.0
                w[:, i] = 0.0
                lost = True
        if not lost:
            break
    if not alive[refant] or np.abs(g[refant]) == 0.0:
        return
    turn = np.conj(g[refant]) / np.abs(g[refant])
    for i in range(n):
        if alive[i] and w[i].sum() > 0.0:
            out[i] = g[i] * turn


@njit(cache=True, nogil=True)
def _solve_all(
    vis: Any, weights: Any, ant1: Any, ant2: Any, refant: int, near_one: bool, out: Any, snr: Any
) -> None:
    for s in range(vis.shape[0]):
        _solve_one(vis[s], weights[s], ant1, ant2, refant, near_one, out[s], snr[s])


def solve(
    vis: npt.NDArray[np.complexfloating[Any, Any]],
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
    vis
        (S, P) visibilities over the model; finite where the weight is not 0.
    weights
        (S, P) inverse variances up to a factor; 0 excludes.
    ant1, ant2
        (P,) antennas of each baseline, ``V = g[ant1] * conj(g[ant2])``.
    refant
        Antenna whose phase becomes 0.
    near_one
        Start from gains of 1, where they are known to be near it; otherwise from the matrix's eigenvector.

    Returns
    -------
    Gains
        NaN for antennas with too few baselines or too little signal, and everywhere where fewer than
        :data:`MIN_ANTENNAS` or no reference antenna remain.
    """
    n_sets = vis.shape[0]
    gains = np.full((n_sets, n_antennas), np.nan + 1j * np.nan, np.complex128)
    snr = np.zeros((n_sets, n_antennas))
    _solve_all(
        np.ascontiguousarray(vis, np.complex128),
        np.ascontiguousarray(weights, np.float64),
        np.ascontiguousarray(ant1, np.int64),
        np.ascontiguousarray(ant2, np.int64),
        refant,
        near_one,
        gains,
        snr,
    )
    snr[np.isnan(gains)] = 0.0
    return Gains(gains.astype(np.complex64), snr.astype(np.float32))
