"""Nodes stand for samples: the images and the visibilities are the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.imaging.geometry import ARCSEC, ImageGrid
from pipelines.imaging.nodes import Nodes, all_nodes, choose_nodes, plan, tracks
from tests.pipelines.imaging.conftest import ANTENNAS, baselines

LIGHT = 299_792_458.0
GRID = ImageGrid(512, 8 * ARCSEC)
FREQUENCIES = np.array([1.28e9, 1.30e9])


def track(n_dumps: int, seconds: float, scale: float) -> np.ndarray:
    """uvw of eight antennas, (baselines, dumps, 3)."""
    hours = 0.7 + np.arange(n_dumps) * seconds * 2 * np.pi / 86164.1
    return scale * baselines(ANTENNAS, -0.6, hours).reshape(28, n_dumps, 3)


def waves(uvw: np.ndarray, l: float, m: float) -> np.ndarray:  # noqa: E741
    path = uvw @ np.array([l, m, math.sqrt(1 - l * l - m * m) - 1])
    return np.exp(2j * np.pi / LIGHT * path[..., None] * FREQUENCIES)


def corners(rng: np.random.Generator) -> list[tuple[float, float]]:
    half = GRID.field / 2
    return [(half, half), (-half, half), (0.0, 0.0), *rng.uniform(-half, half, (3, 2)).tolist()]


def bundled(uvw, times, tolerance=1e-4, samples=10**9) -> list[Nodes]:
    pieces = plan(uvw, times, FREQUENCIES, GRID, tolerance)
    return list(all_nodes(pieces, uvw, FREQUENCIES.size, samples))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_dumps=st.integers(1, 120),
    scale=st.floats(0.2, 8),
    samples=st.sampled_from([200, 10**9]),
)
def test_images_of_nodes_are_those_of_the_samples(
    seed: int, n_dumps: int, scale: float, samples: int
) -> None:
    rng = np.random.default_rng(seed)
    uvw, times = track(n_dumps, 8.0, scale), 8.0 * np.arange(n_dumps)
    shape = (28, n_dumps, 2)
    vis = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    weights = rng.uniform(0, 2, shape).astype(np.float32) * (rng.random(shape) > 0.2)
    parts = bundled(uvw, times, samples=samples)
    assert sum(len(part.uvw) for part in parts) <= 28 * n_dumps
    most = float(np.sum(np.abs(vis) * weights))
    for place in corners(rng):
        direct = np.sum(weights * vis * waves(uvw, *place).conj())
        from_nodes = sum(
            np.sum(part.gather(vis, weights) * waves(part.uvw, *place).conj()) for part in parts
        )
        assert abs(direct - from_nodes) < 1e-4 * most


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), n_dumps=st.integers(6, 120), scale=st.floats(0.2, 8))
def test_model_visibilities_pass_through_nodes(seed: int, n_dumps: int, scale: float) -> None:
    """What a major cycle does: predict at the nodes, weigh the samples, and image them."""
    rng = np.random.default_rng(seed)
    uvw, times = track(n_dumps, 8.0, scale), 8.0 * np.arange(n_dumps)
    weights = rng.uniform(0, 2, (28, n_dumps, 2)).astype(np.float32)
    source, *places = corners(rng)[2:]
    (nodes,) = bundled(uvw, times)
    weighted = nodes.weigh(waves(nodes.uvw, *source).astype(np.complex64), weights)
    for place in places:
        direct = np.sum(weights * waves(uvw, *source) * waves(uvw, *place).conj())
        from_nodes = np.sum(weighted * waves(nodes.uvw, *place).conj())
        assert abs(direct - from_nodes) < 3e-4 * weights.sum()


def test_a_long_track_of_short_baselines_needs_few_nodes() -> None:
    uvw = track(200, 8.0, 1.0)
    (nodes,) = bundled(uvw, 8.0 * np.arange(200))
    assert len(nodes.uvw) < uvw.size / 3 / 8


def test_tracks_end_where_the_observation_was_interrupted() -> None:
    times = np.r_[np.arange(10) * 8.0, 500 + np.arange(5) * 8.0]
    assert [t.dumps for t in tracks(times, 15)] == [slice(0, 10), slice(10, 15)]
    assert len(tracks(None, 15)) == 15


@pytest.mark.parametrize("spoil", ["jitter", "missing", "no times"])
def test_what_does_not_go_on_smoothly_is_taken_as_it_is(spoil: str) -> None:
    uvw = track(60, 8.0, 1.0)
    times = None if spoil == "no times" else 8.0 * np.arange(60)
    if spoil == "jitter":
        uvw[3, 20] += 0.1
    elif spoil == "missing":
        uvw[3, 20] = 0
    pieces = plan(uvw, times, FREQUENCIES, GRID, 1e-4)
    whole = {int(b) for piece in pieces if piece.matrix is None for b in piece.baselines}
    assert 3 in whole
    assert len(whole) == (28 if spoil == "no times" else 1)


@given(st.floats(0, 1e4), st.integers(1, 5000), st.sampled_from([1e-3, 1e-4, 1e-5]))
def test_more_phase_never_needs_fewer_nodes(phase: float, n_dumps: int, tolerance: float) -> None:
    def cost(phase: float) -> int:
        pieces, nodes = choose_nodes(phase, n_dumps, tolerance)
        return pieces * nodes if nodes else n_dumps

    assert cost(phase) <= cost(1.5 * phase) <= n_dumps
