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
_FAST: Final = {"reassoc", "contract", "arcp", "nsz"}
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


@njit(cache=True, nogil=True, fastmath=_FAST)
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
        for hand in range(2):
            first, second = gains[c, hand], gains[c, 1 - hand]
            leak1, leak2 = leakage[b, hand], leakage[b, 1 - hand]
            row, row_totals = sums[2 + hand, c], totals[2 + hand, c]
            to, to_weights = out[hand, b], weights[hand, b]
            re, im, all_weights = 0.0, 0.0, 0.0
            for p in range(len(ant1)):
                i, j = ant1[p], ant2[p]
                pair = first[i] * np.conj(second[j])
                weight = (pair.real * pair.real + pair.imag * pair.imag) * row_totals[p]
                value = np.conj(pair) * row[p] - weight * (leak1[i] + np.conj(leak2[j]))
                to[p] += value
                to_weights[p] += weight
                re += value.real
                im += value.imag
                all_weights += weight
            # vh is the conjugate of what hv of the antennas in the other order is.
            mean[c] += complex(re, im if hand == 0 else -im)
            total[c] += all_weights


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
