"""The phase between the polarisations, from a polarised calibrator.

After delays, bandpass and gains, each referred to one antenna in either polarisation, the phase of that
antenna's h over its v is left over, in all cross hands alike: as a delay, and what is left after it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.calibration.bandpass import interpolated
from pipelines.calibration.cross_hands import CrossHands
from pipelines.calibration.solutions import ComplexGains, Polarisation

MIN_SNR: Final = 5.0
"""Of the cross hands averaged over the band; below, they tell nothing."""
MIN_CHANNEL_SNR: Final = 10.0
"""Of the phase between polarisations in a channel; below, neighbours are averaged."""
_OVERSAMPLING: Final = 8


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
