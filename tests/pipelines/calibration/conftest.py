"""Simulated scans with known gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from pipelines.calibration.delay import fringe
from pipelines.calibration.scan import ParallelHands, Scan
from pipelines.common.baselines import correlator_ordering


@dataclass(frozen=True)
class Observed:
    """A scan of a 1 Jy source, and what corrupted it."""

    scan: Scan
    delays: np.ndarray
    """(pol, ant) s, relative to antenna 0."""
    gains: np.ndarray
    """(pol, T, chan, ant), everything together."""
    noise: float
    """Jy, of a complex sample."""


def observe(
    seed: int,
    *,
    n_antennas: int = 8,
    n_dumps: int = 6,
    n_chans: int = 64,
    noise: float = 0.3,
    max_delay: float = 50e-9,
    drift: float = 0.2,
) -> Observed:
    """Simulate L band, 20 MHz; phases drift by `drift` rad (rms) from dump to dump."""
    rng = np.random.default_rng(seed)
    hands = ParallelHands.of(correlator_ordering([f"m{i:03d}" for i in range(n_antennas)]))
    freqs = 1.4e9 + (np.arange(n_chans) - n_chans // 2) * 20e6 / n_chans
    shape = (2, n_antennas)
    delays = rng.uniform(-max_delay, max_delay, shape)
    delays -= delays[:, :1]
    x = np.linspace(-1, 1, n_chans)[:, np.newaxis, np.newaxis]
    # Even functions of frequency: what is odd would be called a delay.
    bandpass = 1 + 0.2 * x**2 * rng.uniform(-1, 1, shape)
    bandpass = bandpass * np.exp(0.4j * np.cos(np.pi * x) * rng.uniform(-1, 1, shape))
    walk = drift * rng.normal(size=(2, n_dumps, n_antennas)).cumsum(axis=1)
    phase = rng.uniform(-np.pi, np.pi, (2, 1, n_antennas)) + walk
    level = rng.uniform(0.7, 1.4, (2, 1, n_antennas)) * np.exp(1j * phase)
    gains = level[:, :, np.newaxis] * bandpass.transpose(1, 0, 2)[:, np.newaxis]
    gains = gains * fringe(delays, freqs)
    vis = gains[..., hands.ant1] * gains[..., hands.ant2].conj()
    vis = vis + noise / np.sqrt(2) * (rng.normal(size=vis.shape) + 1j * rng.normal(size=vis.shape))
    weights = np.full(vis.shape, 1 / max(noise, 1e-3) ** 2, np.float32)
    times = 1.6e9 + 2.0 * np.arange(n_dumps)
    scan = Scan(times, vis.astype(np.complex64), weights, hands, freqs)
    return Observed(scan, delays, gains, noise)


@pytest.fixture
def simulate() -> Callable[..., Observed]:
    return observe
