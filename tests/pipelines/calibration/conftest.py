"""Simulated scans with known gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipelines.calibration.delay import fringe
from pipelines.calibration.interval import Interval
from pipelines.calibration.pairs import Pairs
from pipelines.calibration.refant import Reference
from pipelines.calibration.sky import Sky
from pipelines.calibration.solutions import Applied, Channels, Products, Solutions
from pipelines.calibration.solver import ScanSolver
from pipelines.common.baselines import correlator_ordering


@dataclass(frozen=True)
class Scan:
    """Visibilities and weights of a scan, (prod, T, chan, P)."""

    times: np.ndarray
    vis: np.ndarray
    weights: np.ndarray
    pairs: Pairs
    freqs: np.ndarray
    sky: Sky

    def intervals(self, dumps: int = 1) -> list[Interval]:
        """As calibration adds them up, `dumps` of them in an interval."""
        made = []
        for start in range(0, len(self.times), dumps):
            part = slice(start, start + dumps)
            interval = Interval(self.pairs, len(self.freqs))
            weights = self.weights[:, part]
            interval.sums[:] = np.where(weights > 0, weights * self.vis[:, part], 0).sum(axis=1)
            interval.weights[:] = weights.sum(axis=1)
            good = (weights[:2] > 0).sum(axis=(0, 1))
            for ant in (self.pairs.ant1, self.pairs.ant2):
                np.add.at(interval.good.T, ant, good.T.astype(np.uint32))
            interval.times.extend(self.times[part])
            interval._used = True
            made.append(interval)
        return made

    def solve(
        self,
        wanted: Products,
        applied: Applied | None = None,
        refant: int | None = 0,
        *,
        dumps: int = 1,
        batch: int = 8,
        channels: Channels | None = None,
    ) -> tuple[Solutions, Applied] | None:
        """Solve it, a batch of intervals at a time."""
        solver = ScanSolver(
            Interval(self.pairs, len(self.freqs)),
            self.freqs,
            self.sky,
            wanted,
            applied or Applied(),
            None if refant is None else Reference(refant, "test"),
            channels=channels or Channels(),
        )
        intervals = self.intervals(dumps)
        for start in range(0, len(intervals), batch):
            solver.add(intervals[start : start + batch])
        return solver.finish()

    def with_weights(self, weights: np.ndarray) -> Scan:
        return replace(self, weights=weights)


@dataclass(frozen=True)
class Observed:
    """A scan of a 1 Jy source, and what corrupted it."""

    scan: Scan
    delays: np.ndarray
    """(pol, ant) s, relative to antenna 0."""
    gains: np.ndarray
    """(pol, T, chan, ant), everything together."""
    leakage: np.ndarray
    """(pol, ant)"""
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
    leakage: float = 0.0,
    stokes: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Observed:
    """Simulate L band, 20 MHz; phases drift by `drift` rad (rms) from dump to dump; Q, U and V of 1 Jy."""
    rng = np.random.default_rng(seed)
    pairs = Pairs.of(correlator_ordering([f"m{i:03d}" for i in range(n_antennas)]))
    freqs = 1.4e9 + (np.arange(n_chans) - n_chans // 2) * 20e6 / n_chans
    shape = (2, n_antennas)
    delays = rng.uniform(-max_delay, max_delay, shape)
    x = np.linspace(-1, 1, n_chans)[:, np.newaxis, np.newaxis]
    # Even functions of frequency: what is odd would be called a delay.
    bandpass = 1 + 0.2 * x**2 * rng.uniform(-1, 1, shape)
    bandpass = bandpass * np.exp(0.4j * np.cos(np.pi * x) * rng.uniform(-1, 1, shape))
    walk = drift * rng.normal(size=(2, n_dumps, n_antennas)).cumsum(axis=1)
    phase = rng.uniform(-np.pi, np.pi, (2, 1, n_antennas)) + walk
    level = rng.uniform(0.7, 1.4, (2, 1, n_antennas)) * np.exp(1j * phase)
    gains = level[:, :, np.newaxis] * bandpass.transpose(1, 0, 2)[:, np.newaxis]
    gains = gains * fringe(delays, freqs)[:, np.newaxis]
    terms = leakage * (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
    q, u, v = stokes
    sky = Sky(np.array([[1 + q], [1 - q]]) * np.ones(n_chans), np.full(n_chans, u + 1j * v))
    vis = products(terms, np.array([[1 + q, u + 1j * v], [u - 1j * v, 1 - q]]), pairs)
    vis = vis[:, np.newaxis, np.newaxis] * np.stack(
        [
            gains[a][..., pairs.ant1] * gains[b][..., pairs.ant2].conj()
            for a, b in ((0, 0), (1, 1), (0, 1), (1, 0))
        ]
    )
    vis = vis + noise / np.sqrt(2) * (rng.normal(size=vis.shape) + 1j * rng.normal(size=vis.shape))
    weights = np.full(vis.shape, 1 / max(noise, 1e-3) ** 2, np.float32)
    times = 1.6e9 + 2.0 * np.arange(n_dumps)
    scan = Scan(times, vis.astype(np.complex64), weights, pairs, freqs, sky)
    return Observed(scan, delays - delays[:, :1], gains, terms, noise)


def products(leakage: np.ndarray, brightness: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return what feeds with leakage see of a brightness matrix, (prod, P), by Jones matrices."""
    jones = np.zeros((leakage.shape[1], 2, 2), complex)
    jones[:, 0, 0] = jones[:, 1, 1] = 1
    jones[:, 0, 1], jones[:, 1, 0] = leakage
    seen = jones[pairs.ant1] @ brightness @ jones[pairs.ant2].conj().transpose(0, 2, 1)
    return np.stack([seen[:, 0, 0], seen[:, 1, 1], seen[:, 0, 1], seen[:, 1, 0]])


@pytest.fixture
def simulate() -> Callable[..., Observed]:
    return observe
