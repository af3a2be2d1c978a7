"""What the flagger finds, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.common.rfi import MIN_CHANNELS, FlaggerSettings, running_median
from pipelines.common.rfi_lanes import flag_products

RFI = 0x10


def flagged(vis: np.ndarray, flags: np.ndarray | None = None, floor: float = 0.0) -> np.ndarray:
    """Return where the flagger finds interference."""
    settings = FlaggerSettings()
    flags = np.zeros(vis.shape, np.uint8) if flags is None else flags
    n = flag_products(
        vis.astype(np.complex64), flags, 0, vis.shape[1], settings.half_width, settings.n_sigma,
        settings.falloff, settings.doublings, floor,
    )  # fmt: skip
    found = (flags & RFI) != 0
    assert n == np.count_nonzero(found)
    return found


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return complex noise with sigma 1 in each part."""
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_chans", [64, 512])
def test_noise_is_left_alone(seed: int, n_chans: int) -> None:
    rng = np.random.default_rng(seed)
    vis = noise(rng, (n_chans, 200_000 // n_chans))
    assert np.count_nonzero(flagged(vis)) == 0  # of 200 000: 1e-6 would seldom be one


@pytest.mark.parametrize(("strength", "part"), [(8, 0.4), (10, 0.6), (15, 0.99)])
def test_weak_lines_are_found_as_often_as_the_documentation_says(
    strength: float, part: float
) -> None:
    """A line as many times as strong as the noise of a sample, both parts together."""
    rng = np.random.default_rng(int(strength))
    vis = noise(rng, (512, 400)) / np.sqrt(2) + 3
    vis[[100, 300]] += strength * np.exp(2j * np.pi * rng.random((2, 400)))
    found = flagged(vis)
    assert found[[100, 300]].mean() > part
    assert not np.delete(found, [100, 300], axis=0).any()


@pytest.mark.parametrize("strength", [1, 10, 100, 1000])
def test_beats_of_many_sources_are_left_alone(strength: float) -> None:
    rng = np.random.default_rng(int(strength))
    chan = np.arange(256)[:, np.newaxis]
    total = 0.0
    for _ in range(50):
        periods = rng.uniform(3, 300, 5) * rng.choice([-1, 1], 5)
        fluxes = rng.uniform(0.3, 1, 5)
        phases = rng.uniform(0, 2 * np.pi, (5, 20))
        sky = sum(f * np.exp(1j * (2 * np.pi * chan / p + q))
                  for f, p, q in zip(fluxes, periods, phases, strict=True))  # fmt: skip
        total += flagged(strength * sky + noise(rng, (256, 20))).mean()
    assert total / 50 < (1e-4 if strength < 1000 else 2e-4)


def test_the_edge_of_a_band_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    chan = np.arange(512)
    passband = 1 / (1 + np.exp(-(chan - 25) / 4)) / (1 + np.exp((chan - 480) / 4))
    power = 1e4 * passband[:, np.newaxis] * (1 + 1e-3 * rng.standard_normal((512, 100)))
    assert flagged(power + 0j).mean() < 1e-4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [1, 2, 4])
def test_narrow_interference_is_found(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    vis = noise(rng, (256, 500))
    where = np.zeros(vis.shape, bool)
    margin = 6 if width > 2 else 0  # windows are cut at the edges
    start = rng.integers(margin, 256 - width - margin, 500)
    for product, first in enumerate(start):
        where[first : first + width, product] = True
    vis[where] += 25 * np.exp(2j * np.pi * rng.random(np.count_nonzero(where)))
    found = flagged(vis)
    assert found[where].mean() > 0.99
    # A window of several samples may take a neighbour along.
    assert found[~where].mean() < 2e-3


def test_interference_on_continuum_is_found() -> None:
    rng = np.random.default_rng(5)
    chan = np.arange(256)[:, np.newaxis]
    vis = 100 * np.exp(2j * np.pi * chan / 40) + noise(rng, (256, 200))
    vis[100] *= 1.5
    found = flagged(vis)
    assert found[100].mean() > 0.99
    assert np.delete(found, 100, axis=0).mean() < 1e-4


def test_lost_samples_are_no_evidence_and_get_no_flag() -> None:
    rng = np.random.default_rng(3)
    vis = noise(rng, (256, 100))
    flags = np.zeros(vis.shape, np.uint8)
    flags[64:128] = 0x08
    vis[64:128] = 1e6  # rubbish
    vis[200] += 100
    found = flagged(vis, flags)
    assert found[200].all()
    assert np.delete(found, 200, axis=0).mean() < 1e-4
    assert (flags[64:128] == 0x08).all()


def test_too_few_channels_are_not_judged() -> None:
    vis = np.ones((MIN_CHANNELS - 1, 4), complex)
    vis[5] = 1e6
    assert not flagged(vis).any()


def test_rounding_is_not_interference() -> None:
    rng = np.random.default_rng(1)
    vis = np.where(rng.random((256, 200)) < 0.02, 1.0, 0.0) + 0j
    assert not flagged(vis, floor=1.0).any()
    vis[17] = 50
    assert flagged(vis, floor=1.0)[17].all()


def test_a_dead_input_is_left_alone() -> None:
    assert not flagged(np.zeros((256, 4), complex)).any()


@pytest.mark.parametrize("n", [1, 5, 40])
def test_running_median_is_the_median_of_the_window(n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.standard_normal(n).astype(np.float32)
    x[rng.random(n) < 0.2] = np.nan
    background = np.empty_like(x)
    running_median(x, 3, background)
    for c in range(n):
        window = x[max(0, c - 3) : c + 4]
        if np.isnan(window).all():
            assert np.isnan(background[c])
        else:
            assert background[c] == pytest.approx(np.nanmedian(window), rel=1e-6)
