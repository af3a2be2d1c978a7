"""Interference found with the time axis: what is found, and how often nothing is taken for something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines import catalogue
from pipelines.common.l0 import Dump, DumpPart
from pipelines.common.rfi import FlaggerSettings
from pipelines.common.spead import FLAG_CAL_RFI, FLAG_DATA_LOST, FLAG_INGEST_RFI
from pipelines.flags.bandpass import Bandpass, amplitudes_of
from pipelines.flags.kernels import SUBBAND
from pipelines.flags.window import Window

N_DUMPS, N_CHANS, N_BLS = 8, 256, 40
SETTINGS = FlaggerSettings()


def noise(seed: int, signal: float = 0.0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    shape = (N_DUMPS, N_CHANS, N_BLS)
    return (signal + rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def found(
    vis: np.ndarray[Any, Any],
    flags: np.ndarray[Any, Any] | None = None,
    bandpass: Bandpass | None = None,
) -> Any:
    window = Window(len(vis), vis.shape[1], vis.shape[2])
    for t, dump in enumerate(vis):
        old = np.zeros(dump.shape, np.uint8) if flags is None else flags[t]
        weights = np.ones(dump.shape, np.uint8)
        scale = np.ones(len(dump), np.float32)
        window.add(Dump(t, float(t), (DumpPart(range(len(dump)), dump, old, weights, scale),)))
    assert window.full
    return window.flag(SETTINGS, bandpass)[0]


@pytest.mark.parametrize("signal", [0.0, 3.0, 100.0])
def test_noise_is_left_alone(signal: float) -> None:
    wrong = sum((found(noise(seed, signal)) != 0).sum() for seed in range(5))
    assert wrong <= 5e-4 * 5 * N_DUMPS * N_CHANS * N_BLS


def test_what_is_too_weak_for_one_dump_is_found_in_the_mean() -> None:
    vis = noise(1)
    rng = np.random.default_rng(2)
    # 4.5 sigma of one sample, with the phase of nobody: ingest's threshold is 10.
    vis[:, 100] += 6.5 * np.exp(2j * np.pi * rng.random((N_DUMPS, N_BLS)))
    hit = (found(vis) & FLAG_CAL_RFI) != 0
    assert hit[:, 100].mean() > 0.95
    assert hit[:, :95].mean() < 1e-3 and hit[:, 106:].mean() < 1e-3


def test_what_is_too_broad_for_one_dump_is_found_along_time() -> None:
    vis = noise(3, signal=5.0)
    burst = slice(2 * SUBBAND, 4 * SUBBAND)
    vis[5, burst] *= 1.8
    hit = (found(vis) & FLAG_CAL_RFI) != 0
    assert hit[5, burst].mean() > 0.9
    assert hit[:5].mean() < 1e-3 and hit[6:].mean() < 1e-3
    assert hit[5, : 2 * SUBBAND].mean() < 1e-3


def rough_bandpass() -> Bandpass:
    """Five inputs with ripples of a quarter over ten channels and edges that fall off to a fifth."""
    channels = np.arange(N_CHANS)
    edges = np.clip(np.minimum(channels, N_CHANS - 1 - channels) / 20, 0.2, 1)
    phases = np.arange(5)
    ripples = 1 + 0.25 * np.sin(channels[:, np.newaxis] / 1.6 + phases)
    pairs = np.array([(i % 5, i // 5 % 5) for i in range(N_BLS)], np.int64)
    return Bandpass((edges[:, np.newaxis] * ripples).astype(np.float32), pairs)


def test_divided_by_the_bandpass_weak_interference_is_told_from_its_structure() -> None:
    """The receiver's noise has passed the same filters as the signal."""
    bandpass = rough_bandpass()
    filters = bandpass.amplitudes[:, bandpass.pairs].prod(axis=-1)
    quiet = noise(7, signal=20.0) * filters
    vis = quiet.copy()
    vis[:, 100] += 8 * filters[100]
    raw, divided = found(vis), found(vis, bandpass=bandpass)
    assert (raw[:, 100] != 0).mean() < 0.3
    assert (divided[:, 100] != 0).mean() > 0.95
    assert (divided[:, :95] != 0).mean() < 1e-3 and (divided[:, 106:] != 0).mean() < 1e-3
    assert (found(quiet, bandpass=bandpass) != 0).mean() < 5e-4


def test_a_bandpass_is_interpolated_where_it_has_no_solution() -> None:
    solution = np.array([[1j, np.nan, 2], [np.nan, np.nan, 0], [-3, np.nan, 4]], np.complex64)
    np.testing.assert_array_equal(amplitudes_of(solution), [[1, 1, 2], [2, 1, 3], [3, 1, 4]])


def test_old_flags_stay_are_no_evidence_and_lost_channels_are_told() -> None:
    vis = noise(4)
    flags = np.zeros(vis.shape, np.uint8)
    vis[:, 50] = 1e6
    flags[:, 50] = FLAG_INGEST_RFI
    out = found(vis, flags)
    assert (out[:, 50] == FLAG_INGEST_RFI).all()
    window = Window(2, N_CHANS, N_BLS)
    half = range(N_CHANS // 2)
    part = DumpPart(
        half,
        vis[0, : len(half)],
        np.zeros((len(half), N_BLS), np.uint8),
        np.ones((len(half), N_BLS), np.uint8),
        np.ones(len(half), np.float32),
    )
    window.add(Dump(0, 0.0, (part,)))
    out, _ = window.flag(SETTINGS)
    assert out.shape[0] == 1
    assert (out[0, len(half) :] == FLAG_DATA_LOST).all()
    assert not (out[0, : len(half)] & FLAG_DATA_LOST).any()


def test_few_channels_are_not_judged() -> None:
    vis = noise(5)[:, :16]
    vis[:, 3] = 1e3
    assert not found(vis).any()


@pytest.mark.parametrize(("n_chans", "products"), [(64, 12), (1000, 4)])
def test_memory_is_what_the_catalogue_says(n_chans: int, products: int) -> None:
    window = Window(catalogue.FLAGS_WINDOW, n_chans, products)
    assert 2 * window.nbytes == catalogue.flags_bytes(n_chans, products)
