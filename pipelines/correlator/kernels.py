"""The inner loop of the model: visibilities of one dump, with noise and gains, as counts.

Everything of a channel is made from the seed, the dump and the channel alone, so the same dump always has the
same counts, in whatever order and by however many threads dumps and channels are computed.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from pipelines.common.spead import MAX_COUNT

COUNT_LIMIT = float(MAX_COUNT)
"""Counts are clipped to ± this: -2**31 is the marker of missing data."""

_TWO_PI = 2.0 * math.pi

_U1 = np.uint64(1)
_SHIFT_17 = np.uint64(17)
_SHIFT_23 = np.uint64(23)
_SHIFT_27 = np.uint64(27)
_SHIFT_30 = np.uint64(30)
_SHIFT_31 = np.uint64(31)
_SHIFT_11 = np.uint64(11)
_SHIFT_41 = np.uint64(41)
_SHIFT_45 = np.uint64(45)
_SHIFT_19 = np.uint64(19)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53


@numba.njit(nogil=True, cache=True)
def _seed(state: NDArray[np.uint64], seed: Any, dump: Any, channel: Any) -> None:
    """Fill a xoshiro256++ state by splitmix64, one round per number that it depends on."""
    x = np.uint64(seed)
    for part in (np.uint64(dump), np.uint64(channel)):
        x = (x ^ (x >> _SHIFT_30)) * _MIX_1 + _GOLDEN * (part + _U1)
        x = (x ^ (x >> _SHIFT_27)) * _MIX_2
        x ^= x >> _SHIFT_31
    for i in range(4):
        x += _GOLDEN
        z = (x ^ (x >> _SHIFT_30)) * _MIX_1
        z = (z ^ (z >> _SHIFT_27)) * _MIX_2
        state[i] = z ^ (z >> _SHIFT_31)


@numba.njit(nogil=True, cache=True)
def _uniform(state: NDArray[np.uint64]) -> float:
    """Next number in (0, 1] of xoshiro256++ (Blackman & Vigna 2021, ACM TOMS 47, 36)."""
    total = state[0] + state[3]
    result = ((total << _SHIFT_23) | (total >> _SHIFT_41)) + state[0]
    shifted = state[1] << _SHIFT_17
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= shifted
    state[3] = (state[3] << _SHIFT_45) | (state[3] >> _SHIFT_19)
    return (float(result >> _SHIFT_11) + 1.0) * _UNIT


@numba.njit(nogil=True, cache=True)
def _normal(state: NDArray[np.uint64]) -> complex:
    """Two independent standard normal numbers, as one complex one (Box and Muller)."""
    radius = math.sqrt(-2.0 * math.log(_uniform(state)))
    angle = _TWO_PI * _uniform(state)
    return complex(radius * math.cos(angle), radius * math.sin(angle))


@numba.njit(nogil=True, cache=True)
def _count(value: float) -> float:
    """Round and clip; counts that are no number become 0."""
    if not math.isfinite(value):
        return 0.0
    return float(min(max(np.rint(value), -COUNT_LIMIT), COUNT_LIMIT))


@numba.njit(nogil=True, cache=True)
def _add_sky(
    freq: float, delays: Any, uv: Any, shapes: Any, flux: Any, c: int, phasors: Any, vis: Any
) -> None:
    """Add the sources' coherencies in channel `c` to `vis`, shape (n_pairs, 4); `phasors` is scratch."""
    n_sources, n_ants = delays.shape
    for s in range(n_sources):
        for a in range(n_ants):
            turns = freq * delays[s, a]
            angle = _TWO_PI * (turns - math.floor(turns))
            phasors[s, a] = complex(math.cos(angle), math.sin(angle))
    pair = 0
    for a2 in range(n_ants):
        for a1 in range(a2 + 1):
            u, v = uv[a1, 0] - uv[a2, 0], uv[a1, 1] - uv[a2, 1]
            for s in range(n_sources):
                fringe = phasors[s, a1] * np.conj(phasors[s, a2])
                spread = shapes[s, 0] * u * u + shapes[s, 1] * u * v + shapes[s, 2] * v * v
                if spread > 0:
                    fringe *= math.exp(-spread * freq * freq)
                for p in range(4):
                    vis[pair, p] += flux[s, c, p] * fringe
            pair += 1


@numba.njit(nogil=True, cache=True)
def _leak(leakage: Any, c: int, vis: Any) -> None:
    """Replace the coherency C of each pair by D_1 C D_2^H, with D = [[1, d_h], [d_v, 1]]."""
    pair = 0
    for a2 in range(leakage.shape[0]):
        h2, v2 = np.conj(leakage[a2, 0, c]), np.conj(leakage[a2, 1, c])
        for a1 in range(a2 + 1):
            h1, v1 = leakage[a1, 0, c], leakage[a1, 1, c]
            hh, hv = vis[pair, 0] + h1 * vis[pair, 2], vis[pair, 1] + h1 * vis[pair, 3]
            vh, vv = vis[pair, 2] + v1 * vis[pair, 0], vis[pair, 3] + v1 * vis[pair, 1]
            vis[pair, 0], vis[pair, 1] = hh + hv * h2, hh * v2 + hv
            vis[pair, 2], vis[pair, 3] = vh + vv * h2, vh * v2 + vv
            pair += 1


@numba.njit(nogil=True, cache=True)
def _add_receivers(sefd: float, vis: Any, power: Any) -> None:
    """Add the receivers' own power to the autocorrelations; write the inputs' power, shape (n_ants, 2)."""
    for a in range(power.shape[0]):
        pair = a * (a + 1) // 2 + a
        vis[pair, 0] += sefd
        vis[pair, 3] += sefd
        power[a, 0], power[a, 1] = vis[pair, 0].real, vis[pair, 3].real


@numba.njit(nogil=True, cache=True)
def _add_noise(noise: float, power: Any, state: Any, vis: Any) -> None:
    """Add thermal noise: of each product by its inputs' powers, and real in the power of an input."""
    pair = 0
    for a2 in range(power.shape[0]):
        for a1 in range(a2 + 1):
            for p in range(4):
                if a1 == a2 and p == 2:
                    vis[pair, 2] = np.conj(vis[pair, 1])
                    continue
                level = noise * math.sqrt(abs(power[a1, p // 2] * power[a2, p % 2]))
                sample = _normal(state)
                if a1 == a2 and p != 1:
                    vis[pair, p] += level * sample.real
                else:
                    vis[pair, p] += level * math.sqrt(0.5) * sample
            pair += 1


@numba.njit(nogil=True, cache=True)
def _digitise(gains: Any, c: int, scale: float, vis: Any, out: Any) -> None:
    """Write gains × visibilities as counts, shape (n_bls, 2)."""
    pair = 0
    for a2 in range(gains.shape[0]):
        for a1 in range(a2 + 1):
            for p in range(4):
                gain = gains[a1, p // 2, c] * np.conj(gains[a2, p % 2, c])
                value = vis[pair, p] * gain / scale
                out[4 * pair + p, 0] = np.int32(_count(value.real))
                out[4 * pair + p, 1] = np.int32(_count(value.imag))
            pair += 1


@numba.njit(nogil=True, cache=True)
def correlate(
    out: NDArray[np.int32],
    freqs: NDArray[np.float64],
    delays: NDArray[np.float64],
    uv: NDArray[np.float64],
    shapes: NDArray[np.float64],
    flux: NDArray[np.complex128],
    leakage: NDArray[np.complex128],
    gains: NDArray[np.complex128],
    sefd: float,
    noise: float,
    scale: float,
    seed: Any,
    dump: Any,
) -> None:
    """Compute the counts of one dump.

    Parameters
    ----------
    out
        Counts, shape (n_chans, n_bls, 2), products in the correlator's order; overwritten.
    freqs
        Sky frequencies, Hz, shape (n_chans,).
    delays
        By how much earlier than the array's reference an antenna gets the wave of a source, relative to that
        of the phase centre: (ul + vm + w(n-1)) / c, s, shape (n_sources, n_ants).
    uv
        u and v of the antennas in seconds (metres / c), shape (n_ants, 2).
    shapes
        Of the sources: a, b and c of their envelopes ``exp(-(a u² + b uv + c v²))``, u and v of a baseline in
        wavelengths; shape (n_sources, 3), zeros for points.
    flux
        Flux densities in hh, hv, vh, vv, Jy, shape (n_sources, n_chans, 4).
    leakage
        D terms of the inputs, shape (n_ants, 2, n_chans).
    gains
        Of the inputs, shape (n_ants, 2, n_chans).
    sefd
        System equivalent flux density of each input, Jy; receivers' noise does not leak.
    noise
        1/sqrt(bandwidth × time) of a channel and dump; 0 for no noise.
    scale
        Jy per count.
    seed, dump
        Non-negative numbers that the noise follows from.
    """
    n_sources, n_ants = delays.shape
    phasors = np.empty((n_sources, n_ants), np.complex128)
    vis = np.empty((n_ants * (n_ants + 1) // 2, 4), np.complex128)
    power = np.empty((n_ants, 2), np.float64)
    state = np.empty(4, np.uint64)
    for c in range(freqs.shape[0]):
        _seed(state, seed, dump, c)
        vis[:] = 0
        _add_sky(freqs[c], delays, uv, shapes, flux, c, phasors, vis)
        _leak(leakage, c, vis)
        _add_receivers(sefd, vis, power)
        if noise > 0:
            _add_noise(noise, power, state, vis)
        _digitise(gains, c, scale, vis, out[c])
