"""What the cross hands tell: leakage between the polarisations, or the phase between them.

Feeds are aligned with the sky, as those of the simulated correlator are: the cross hands of a calibrator are
U + iV and U - iV (:func:`pipelines.correlator.model.product_flux`), times the gains.

After delays, bandpass and gains, each referred to one antenna in either polarisation, the phase of that
antenna's h over its v is left over, in all cross hands alike: a polarised calibrator shows it. Of an
unpolarised one, all that is in the cross hands is leakage. The feeds see ``h + d_h v`` and ``v + d_v h``, so
that to first order ``V_hv(i, j) = d_h(i) + conj(d_v(j))``, linear in the unknowns (Hamaker, Bregman & Sault
1996, A&AS 117, 137). A constant can be moved from all d_h to all d_v; d_h of the reference antenna is called
0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from numba import njit

from pipelines.calibration.bandpass import interpolated
from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import N_PARALLEL, Pairs
from pipelines.calibration.parallel import in_ranges
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import ComplexGains, Polarisation, Quality

POLARISED: Final = 0.005
"""Part of the flux density, the least that a calibrator is called polarised for."""
MAX_BLOCKS: Final = 1024
"""Blocks of channels that leakages are solved for at most: they vary slowly with frequency."""
MIN_SNR: Final = 5.0
"""Of the cross hands averaged over the band; below, they tell nothing."""
MIN_CHANNEL_SNR: Final = 10.0
"""Of the phase between polarisations in a channel; below, neighbours are averaged."""
MIN_PARTNERS: Final = 2
"""Equations that a leakage must have."""
_OVERSAMPLING: Final = 8
_ITERATIONS: Final = 50
_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class CrossHands:
    """The cross hands of a scan over the model, with delays, bandpass and gains corrected."""

    pairs: Pairs
    freqs: npt.NDArray[np.float64]
    """(chan,) Hz"""
    sums: npt.NDArray[np.complex64]
    """(hand, block, P) weighted hv and vh."""
    weights: npt.NDArray[np.float32]
    """(hand, block, P)"""
    block: int
    """Channels in a block of those."""
    mean: npt.NDArray[np.complex128]
    """(chan,) weighted sum over all pairs of hv and of vh conjugate."""
    total: npt.NDArray[np.float64]
    """(chan,) its weights."""
    model: npt.NDArray[np.complex128]
    """(chan,) what they would be without leakage and phase."""

    @classmethod
    def of(
        cls,
        scan: Interval,
        bandpass: ComplexGains | None,
        sky: Sky,
        freqs: npt.NDArray[np.float64],
        leakage: ComplexGains | None = None,
    ) -> Self | None:
        """Take them from the sums of a scan; None where there are no cross hands.

        Parameters
        ----------
        bandpass
            (chan, pol, ant), not yet divided by; None for one that is.
        leakage
            (block, pol, ant), taken off those of a polarised calibrator where it is known.
        """
        pairs = scan.pairs
        if pairs.n_products == N_PARALLEL:
            return None
        block = -(-scan.n_chans // MAX_BLOCKS)
        n_blocks = -(-scan.n_chans // block)
        if bandpass is None:
            gains = np.ones((scan.n_chans, N_PARALLEL, pairs.n_antennas), np.complex64)
        else:
            gains = np.nan_to_num(bandpass)
        sums = np.zeros((2, n_blocks, pairs.n_pairs), np.complex64)
        weights = np.zeros(sums.shape, np.float32)
        mean, total = np.zeros(scan.n_chans, np.complex128), np.zeros(scan.n_chans)
        model = sky.cross / np.sqrt(sky.parallel.prod(axis=0))
        known = np.zeros((n_blocks, N_PARALLEL, pairs.n_antennas), np.complex64)
        if leakage is not None and leakage.shape == known.shape and is_polarised(model):
            known = np.nan_to_num(leakage)

        def collect(start: int, stop: int) -> None:
            _collect(
                scan.sums, scan.weights, gains, known, block, pairs.ant1, pairs.ant2, start, stop,
                sums, weights, mean, total,
            )  # fmt: skip

        in_ranges(scan.n_chans, block, collect)
        return cls(pairs, freqs, sums, weights, block, mean, total, model)


def is_polarised(model: npt.NDArray[np.complex128]) -> bool:
    """Whether a calibrator's model of the cross hands (chan,), over its flux density, is."""
    return bool(np.abs(model).mean() >= POLARISED)


@njit(cache=True, nogil=True)
def _collect(
    sums: Any,
    totals: Any,
    gains: Any,
    leakage: Any,
    block: int,
    ant1: Any,
    ant2: Any,
    start: int,
    stop: int,
    out: Any,
    weights: Any,
    mean: Any,
    total: Any,
) -> None:
    """Divide the cross hands by a bandpass, take leakage off, add up blocks of channels and all pairs."""
    for c in range(start, stop):
        b = c // block
        h, v = gains[c, 0], gains[c, 1]
        d_h, d_v = leakage[b, 0], leakage[b, 1]
        for p in range(len(ant1)):
            i, j = ant1[p], ant2[p]
            for hand in range(2):
                pair = h[i] * np.conj(v[j]) if hand == 0 else v[i] * np.conj(h[j])
                leaked = d_h[i] + np.conj(d_v[j]) if hand == 0 else d_v[i] + np.conj(d_h[j])
                weight = (pair.real**2 + pair.imag**2) * totals[2 + hand, c, p]
                value = np.conj(pair) * sums[2 + hand, c, p] - weight * leaked
                out[hand, b, p] += value
                weights[hand, b, p] += weight
                mean[c] += value if hand == 0 else np.conj(value)
                total[c] += weight


def solve_polarisation(cross: CrossHands, refant: int) -> Polarisation:
    """Return the leakages of an unpolarised calibrator, or the delay and phase that a polarised one shows."""
    if is_polarised(cross.model):
        return solve_cross_phase(cross)
    leakage, snr = solve_leakage(cross, refant)
    if not np.isfinite(leakage).any():
        return Polarisation()
    return Polarisation(leakage=leakage, leakage_snr=snr)


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
        for block in range(start, stop):
            _leakages(
                cross.sums[:, block], cross.weights[:, block], pairs.ant1, pairs.ant2, refant,
                leakage[block], snr[block],
            )  # fmt: skip

    in_ranges(n_blocks, 1, solve)
    return leakage, np.median(snr, axis=0)


@njit(cache=True, nogil=True)
def _leakages(
    sums: Any, weights: Any, ant1: Any, ant2: Any, refant: int, out: Any, snr: Any
) -> None:
    """Solve ``X_ij = a_i + b_j`` for a = d_h and b = conj(d_v), each with the other held, in turn.

    hv is ``X_ij``; vh conjugate is ``X_ji``.
    """
    n = out.shape[1]
    unknown = np.zeros((2, n), np.complex128)
    total, count = np.zeros((2, n)), np.zeros((2, n), np.int64)
    for p in range(len(ant1)):
        for hand in range(2):
            i, j = (ant1[p], ant2[p]) if hand == 0 else (ant2[p], ant1[p])
            if weights[hand, p] > 0:
                total[0, i] += weights[hand, p]
                total[1, j] += weights[hand, p]
                count[0, i] += 1
                count[1, j] += 1
    if count[0, refant] < MIN_PARTNERS:
        return
    for _ in range(_ITERATIONS):
        change = 0.0
        for side in range(2):
            new = np.zeros(n, np.complex128)
            for p in range(len(ant1)):
                for hand in range(2):
                    weight = weights[hand, p]
                    if weight > 0:
                        i, j = (ant1[p], ant2[p]) if hand == 0 else (ant2[p], ant1[p])
                        x = sums[hand, p] if hand == 0 else np.conj(sums[hand, p])
                        mine, other = (i, j) if side == 0 else (j, i)
                        new[mine] += x - weight * unknown[1 - side, other]
            for k in range(n):
                if total[side, k] > 0:
                    value = new[k] / total[side, k]
                    change = max(change, abs(value - unknown[side, k]))
                    unknown[side, k] = value
        if change < _TOLERANCE:
            break
    constant = unknown[0, refant]
    noise, equations = 0.0, 0
    for p in range(len(ant1)):
        for hand in range(2):
            weight = weights[hand, p]
            if weight > 0:
                i, j = (ant1[p], ant2[p]) if hand == 0 else (ant2[p], ant1[p])
                x = sums[hand, p] if hand == 0 else np.conj(sums[hand, p])
                noise += abs(x / weight - unknown[0, i] - unknown[1, j]) ** 2 * weight
                equations += 1
    noise /= max(1, equations - 2 * n + 1)
    for k in range(n):
        if count[0, k] >= MIN_PARTNERS:
            out[0, k] = unknown[0, k] - constant
            snr[0, k] = np.sqrt(total[0, k] / noise) if noise > 0 else np.inf
        if count[1, k] >= MIN_PARTNERS:
            out[1, k] = np.conj(unknown[1, k] + constant)
            snr[1, k] = np.sqrt(total[1, k] / noise) if noise > 0 else np.inf


def solve_cross_phase(cross: CrossHands) -> Polarisation:
    """Return delay and phase of h against v, from the cross hands of a polarised calibrator."""
    sums = cross.mean * cross.model.conj()
    weights = cross.total * np.abs(cross.model) ** 2
    n_chans = len(sums)
    if n_chans < 2 or not weights.any():
        return Polarisation()
    width = float(cross.freqs[1] - cross.freqs[0])
    delay = _peak_delay(sums, width)
    offset = cross.freqs - cross.freqs.mean()
    for _ in range(2):
        delay += _slope(sums * np.exp(-2j * np.pi * delay * offset), weights, offset)
    sums = sums * np.exp(-2j * np.pi * delay * cross.freqs)
    noise = _noise(sums, weights)
    snr = _ratio(abs(sums.sum()), noise * np.sqrt(weights.sum()))
    if not snr >= MIN_SNR:
        return Polarisation(snr=snr)
    block = 1
    # The signal to noise of a channel is that of the band over the root of their number.
    while snr * np.sqrt(block / n_chans) < MIN_CHANNEL_SNR and 2 * block <= n_chans:
        block *= 2
    phase = _unit(np.add.reduceat(sums, np.arange(0, n_chans, block)))[:, np.newaxis]
    if block > 1:
        phase = _unit(interpolated(phase, block, n_chans))
    phase = np.where(weights > 0, phase[:, 0], np.complex64(np.nan))
    return Polarisation(delay=delay, phase=phase, snr=snr)


def _peak_delay(sums: npt.NDArray[np.complex128], width: float) -> float:
    """Return the delay, s, at which a spectrum adds up to most."""
    n_points = _OVERSAMPLING * len(sums)
    power = np.abs(np.fft.fft(sums, n_points))
    peak = int(power.argmax())
    return float((peak + n_points // 2) % n_points - n_points // 2) / (n_points * width)


def _slope(
    sums: npt.NDArray[np.complex128],
    weights: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
) -> float:
    """Return the slope of a phase that is small, in turns per Hz, from blocks of channels."""
    starts = np.linspace(0, len(sums), min(16, len(sums)) + 1).astype(int)[:-1]
    blocks, total = np.add.reduceat(sums, starts), np.add.reduceat(weights, starts)
    x = np.add.reduceat(offset * weights, starts)
    x = np.divide(x, total, out=np.zeros_like(total), where=total > 0)
    x -= (x * total).sum() / total.sum()
    phase = np.angle(blocks * np.conj(blocks.sum())) / (2 * np.pi)
    spread = float((total * x**2).sum())
    return float((total * x * phase).sum() / spread) if spread > 0 else 0.0


def _noise(sums: npt.NDArray[np.complex128], weights: npt.NDArray[np.float64]) -> float:
    """Return the standard error of a sample of weight 1, from differences of neighbouring channels.

    Half of the squares of complex normal noise are below ln 2 times its variance.
    """
    values = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
    harmonic = np.divide(1, weights, out=np.zeros_like(weights), where=weights > 0)
    both = (weights[1:] > 0) & (weights[:-1] > 0)
    squares = np.abs(np.diff(values))[both] ** 2 / (harmonic[1:] + harmonic[:-1])[both]
    return float(np.sqrt(np.median(squares) / np.log(2))) if len(squares) else float("inf")


def _ratio(signal: float, noise: float) -> float:
    return float(signal / noise) if noise > 0 else float("inf")


def _unit(values: npt.NDArray[Any]) -> ComplexGains:
    """Return complex numbers with their amplitudes 1; NaN for 0."""
    size = np.abs(values)
    unit = np.divide(values, size, out=np.full(values.shape, np.nan + 0j), where=size > 0)
    return np.asarray(unit, np.complex64)
