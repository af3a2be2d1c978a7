"""The cross hands of a scan, calibrated by its parallel hands.

Feeds are aligned with the sky, as those of the simulated correlator are: the cross hands of a calibrator are
U + iV and U - iV (:func:`pipelines.correlator.model.product_flux`), times the gains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from numba import njit

from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import N_PARALLEL, Pairs
from pipelines.calibration.parallel import in_ranges
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import ComplexGains

POLARISED: Final = 0.005
"""Part of the flux density, the least that a calibrator is called polarised for."""
MAX_BLOCKS: Final = 1024
"""Blocks of channels that leakages are solved for at most: they vary slowly with frequency."""
_FAST: Final = {"reassoc", "contract", "arcp", "nsz"}


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
