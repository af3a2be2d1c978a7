"""Far fewer visibilities that make the same image: each baseline's track is replaced by a few nodes.

A baseline turns slowly in comparison to the dumps, which are short because of the longest ones. Over a while,
``exp(-2πi(ul + vm + w(n-1)))`` is, for each place in the image, a smooth function of time, and so it is its
Chebyshev interpolant through ``k`` nodes to any accuracy: ``e(t) ≈ Σ_k L_k(t) e(t_k)``. Hence

* the image of the visibilities is that of ``Σ_t L_k(t) w(t) V(t)`` at the nodes, whatever the visibilities are,
  sources outside the image included: the *kernel* is interpolated, not the data;
* the visibilities of a model image are ``Σ_k L_k(t) V(t_k)``, of its visibilities at the nodes.

This is no averaging: nothing is smeared, weights and flags keep their samples, and the error is chosen.
Baseline-dependent averaging (Wijnholds, Willis & Salvini 2018, MNRAS 476, 2029) is its first order.

Interpolation of ``exp(iΦx)``, |x| ≤ 1, through K Chebyshev nodes errs by at most about ``2 (Φ/2)^K / K!``
(the remainder's leading term); Φ is half the phase that a corner of the image turns through.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipelines.imaging.geometry import SPEED_OF_LIGHT, ImageGrid

MAX_NODES = 24
"""Nodes of one piece of a track at most; beyond, single precision and the work tell."""

PIECES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Into how many equal pieces a track is cut, as suits the baseline."""

WORTHWHILE = 0.8
"""A baseline that keeps more of its samples than this is taken as it is."""

TRACK_TERMS = 9
"""Terms of the polynomial by which u, v, w follow the time within a piece."""

GAP = 1.5
"""Dumps further apart than this many of the usual distance belong to different tracks."""

MIN_TRACK = 6
"""Dumps below which it is not worth the thought."""

PIECE_SAMPLES = 2**21
"""Samples that are interpolated at once, which bounds the memory for it."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """Some dumps of some baselines, and the nodes that stand for them.

    Attributes
    ----------
    baselines : intp (baselines,)
    dumps : slice
        Which samples.
    rows : slice
        Their nodes among all: baseline by baseline.
    matrix : float32 (nodes, dumps), optional
        ``L_k(t)``; None where the samples themselves are the nodes.
    places : float64 (dumps,)
        Times of the dumps, scaled to -1 at the first and 1 at the last one.
    """

    baselines: npt.NDArray[np.intp]
    dumps: slice
    rows: slice
    matrix: Matrix | None
    places: npt.NDArray[np.float64]

    def moved(self, by: int) -> Piece:
        """The same with its rows elsewhere."""
        return replace(self, rows=slice(self.rows.start + by, self.rows.stop + by))


@dataclass(frozen=True)
class Nodes:
    """All nodes that are transformed in one go.

    Attributes
    ----------
    pieces : tuple of Piece
        Where they come from; `rows` count within this object.
    uvw : float64 (rows, 3)
        Metres.
    """

    pieces: tuple[Piece, ...]
    uvw: npt.NDArray[np.float64]

    def gather(
        self, vis: npt.NDArray[np.complex64] | None, weights: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.complex64]:
        """Weighted visibilities at the nodes: ``Σ_t L_k(t) w(t) V(t)``.

        Parameters
        ----------
        vis : complex64 (baselines, dumps, channels), optional
            Visibilities; all one if not given.
        weights : float32 (baselines, dumps, channels)
            Zero leaves a sample out.

        Returns
        -------
        complex64 (rows, channels)
        """
        out = np.empty((len(self.uvw), weights.shape[2]), np.complex64)
        for piece in self.pieces:
            part = (piece.baselines, piece.dumps)
            values = weights[part] if vis is None else vis[part] * weights[part]
            out[piece.rows] = _collected(piece, values)
        return out

    def weigh(
        self, predicted: npt.NDArray[np.complex64], weights: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.complex64]:
        """Weighted visibilities at the nodes, of visibilities that are known at the nodes.

        Parameters
        ----------
        predicted : complex64 (rows, channels)
            Visibilities of a model; overwritten with the result.
        weights : float32 (baselines, dumps, channels)
            Zero leaves a sample out.
        """
        for piece in self.pieces:
            weight = weights[piece.baselines, piece.dumps]
            values = _spread(piece, predicted[piece.rows], len(weight))
            predicted[piece.rows] = _collected(piece, values * weight)
        return predicted

    def spread(
        self, predicted: npt.NDArray[np.complex64]
    ) -> Iterator[tuple[Piece, npt.NDArray[np.complex64]]]:
        """Visibilities of all samples by pieces, (baselines, dumps, channels), of those at the nodes."""
        for piece in self.pieces:
            yield piece, _spread(piece, predicted[piece.rows], piece.baselines.size)


def _collected(piece: Piece, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Samples (baselines, dumps, channels) to nodes (rows, channels)."""
    if piece.matrix is not None:
        kind = values.dtype
        flat = np.ascontiguousarray(values).view(np.float32)
        values = np.matmul(piece.matrix, flat).view(kind)
    return values.reshape(-1, values.shape[-1])


def _spread(
    piece: Piece, nodes: npt.NDArray[np.complex64], n_baselines: int
) -> npt.NDArray[np.complex64]:
    """Nodes (rows, channels) to samples (baselines, dumps, channels)."""
    by_baseline = nodes.reshape(n_baselines, -1, nodes.shape[1])
    if piece.matrix is None:
        return by_baseline
    samples = np.matmul(piece.matrix.T, by_baseline.view(np.float32))
    return np.asarray(samples.view(np.complex64))


@dataclass(frozen=True)
class Track:
    """Consecutive dumps, at their places between -1 and 1."""

    dumps: slice
    x: npt.NDArray[np.float64]


def tracks(times: npt.NDArray[np.float64] | None, n_dumps: int) -> list[Track]:
    """Cut the dumps where the observation was interrupted; without times, everywhere."""
    if times is None or n_dumps < 2:
        return [Track(slice(i, i + 1), np.zeros(1)) for i in range(n_dumps)]
    steps = np.diff(times)
    cuts = np.flatnonzero((steps > GAP * np.median(steps)) | (steps <= 0)) + 1
    edges = [0, *cuts.tolist(), n_dumps]
    return [_track(times, a, b) for a, b in itertools.pairwise(edges)]


def _track(times: npt.NDArray[np.float64], start: int, stop: int) -> Track:
    middle = (times[start] + times[stop - 1]) / 2
    half = max((times[stop - 1] - times[start]) / 2, 1e-9)
    return Track(slice(start, stop), (times[start:stop] - middle) / half)


@functools.lru_cache(maxsize=16)
def highest_phases(tolerance: float) -> tuple[float, ...]:
    """Largest Φ that 2, 3, … `MAX_NODES` nodes interpolate."""
    counts = range(2, MAX_NODES + 1)
    return tuple(2 * (tolerance / 2 * math.factorial(n)) ** (1 / n) for n in counts)


def choose_nodes(phase: float, n_dumps: int, tolerance: float) -> tuple[int, int]:
    """Into how many pieces a track is cut, and how many nodes each has; (1, 0): the samples as they are.

    Parameters
    ----------
    phase : float
        Half of what the corner of the image turns through in the whole track, radians.
    n_dumps : int
        Dumps of the track.
    tolerance : float
        Error of the kernel.
    """
    limits = highest_phases(tolerance)
    best, choice = WORTHWHILE * n_dumps, (1, 0)
    for pieces in PIECES:
        nodes = 2 + bisect.bisect_left(limits, phase / pieces)
        if nodes <= MAX_NODES and pieces * nodes < best:
            best, choice = pieces * nodes, (pieces, nodes)
    return choice


def plan(
    uvw: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64] | None,
    frequencies: npt.NDArray[np.float64],
    grid: ImageGrid,
    tolerance: float,
) -> list[Piece]:
    """Decide how every sample is represented; `rows` of all pieces count through.

    Parameters
    ----------
    uvw : float64 (baselines, dumps, 3)
        Metres.
    times : float64 (dumps,), optional
        Seconds; without them nothing is interpolated.
    frequencies : float64 (channels,)
        Hz.
    grid : ImageGrid
        The image for which it shall hold.
    tolerance : float
        Error of the kernel.
    """
    pieces: list[Piece] = []
    wavenumber = 2 * math.pi * float(np.max(frequencies)) / SPEED_OF_LIGHT
    row = 0
    for track in tracks(times, uvw.shape[1]):
        phases = _half_phases(uvw[:, track.dumps], wavenumber, grid, tolerance)
        classes = _classes(phases, track.x.size, tolerance)
        for (n_pieces, nodes), baselines in classes.items():
            for piece in _cut(track, baselines, n_pieces, nodes, frequencies.size):
                pieces.append(piece.moved(row - piece.rows.start))
                row = pieces[-1].rows.stop
    return pieces


def _half_phases(
    uvw: npt.NDArray[np.float64], wavenumber: float, grid: ImageGrid, tolerance: float
) -> npt.NDArray[np.float64]:
    """Half the phase that a corner of the image turns through in a track, for each baseline."""
    step = max(PIECE_SAMPLES // max(uvw.shape[1], 1), 1)  # a hundred megabytes of differences
    parts = [uvw[i : i + step] for i in range(0, len(uvw), step)]
    return np.concatenate([_half_phases_of(p, wavenumber, grid, tolerance) for p in parts])


def _half_phases_of(
    uvw: npt.NDArray[np.float64], wavenumber: float, grid: ImageGrid, tolerance: float
) -> npt.NDArray[np.float64]:
    """The same of some baselines.

    The fastest step counts for all. Infinite where u, v, w do not follow a smooth curve.
    """
    if uvw.shape[1] < MIN_TRACK:
        return np.full(len(uvw), np.inf)
    corner = grid.field / math.sqrt(2)
    depth = 1 - math.sqrt(max(1 - corner**2, 0.0))
    steps = np.abs(np.diff(uvw, axis=1))
    ways = np.hypot(steps[..., 0], steps[..., 1]) * corner + steps[..., 2] * depth
    half = 0.5 * (uvw.shape[1] - 1) * wavenumber * ways.max(axis=1)
    # Fourth differences of a star's track are nothing; jitter is multiplied by eight.
    jitter = np.abs(np.diff(uvw, 4, axis=1)).max(axis=(1, 2)) / 8
    smooth = jitter * wavenumber * corner <= tolerance
    return np.asarray(np.where(smooth, half, np.inf), np.float64)


def _classes(
    phases: npt.NDArray[np.float64], n_dumps: int, tolerance: float
) -> dict[tuple[int, int], npt.NDArray[np.intp]]:
    """Baselines that are represented alike, by how."""
    classes: dict[tuple[int, int], list[int]] = {}
    for i, phase in enumerate(phases.tolist()):
        classes.setdefault(choose_nodes(phase, n_dumps, tolerance), []).append(i)
    return {choice: np.array(found, np.intp) for choice, found in classes.items()}


def _cut(
    track: Track, baselines: npt.NDArray[np.intp], n_pieces: int, nodes: int, n_channels: int
) -> Iterator[Piece]:
    """Cut one class's track into pieces, and those into handy numbers of baselines."""
    row = 0
    edges = np.linspace(0, track.x.size, n_pieces + 1).round().astype(int).tolist()
    for a, b in itertools.pairwise(edges):
        places = _to_unit(track.x[a:b])
        matrix = interpolation(places, nodes) if nodes else None
        dumps = slice(track.dumps.start + a, track.dumps.start + b)
        step = max(PIECE_SAMPLES // ((b - a) * n_channels), 1)
        for first in range(0, baselines.size, step):
            some = baselines[first : first + step]
            n_rows = some.size * (nodes or b - a)
            yield Piece(some, dumps, slice(row, row + n_rows), matrix, places)
            row += n_rows


def _chebyshev_nodes(n: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.cos((2 * np.arange(n) + 1) / (2 * n) * np.pi), np.float64)


def _to_unit(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale places so that they span -1 to 1."""
    low, high = float(x[0]), float(x[-1])
    return np.asarray((2 * x - low - high) / max(high - low, 1e-30), np.float64)


def interpolation(x: npt.NDArray[np.float64], nodes: int) -> Matrix:
    """``L_k(x)`` of the Chebyshev nodes, at places between -1 and 1; float32 (nodes, places)."""
    vander = np.polynomial.chebyshev.chebvander
    basis = np.linalg.inv(vander(_chebyshev_nodes(nodes), nodes - 1))
    return np.ascontiguousarray((vander(x, nodes - 1) @ basis).T.astype(np.float32))


def node_coordinates(uvw: npt.NDArray[np.float64], piece: Piece) -> npt.NDArray[np.float64]:
    """u, v, w at a piece's nodes, float64 (rows, 3), metres, by a polynomial in time."""
    part = uvw[piece.baselines, piece.dumps]
    if piece.matrix is None:
        return part.reshape(-1, 3)
    nodes, n_dumps = piece.matrix.shape
    vander = np.polynomial.chebyshev.chebvander
    terms = min(TRACK_TERMS, n_dumps)
    fit = np.linalg.pinv(vander(piece.places, terms - 1))
    at_nodes = vander(_chebyshev_nodes(nodes), terms - 1) @ fit
    return np.asarray(np.matmul(at_nodes, part).reshape(-1, 3))


def all_nodes(
    pieces: list[Piece], uvw: npt.NDArray[np.float64], n_channels: int, samples: int
) -> Iterator[Nodes]:
    """Bundle pieces so that their nodes are at most `samples` samples together (or one piece)."""
    bundle: list[Piece] = []
    for piece in pieces:
        start = bundle[0].rows.start if bundle else piece.rows.start
        if bundle and (piece.rows.stop - start) * n_channels > samples:
            yield _bundled(bundle, uvw)
            bundle = []
        bundle.append(piece)
    if bundle:
        yield _bundled(bundle, uvw)


def _bundled(pieces: list[Piece], uvw: npt.NDArray[np.float64]) -> Nodes:
    start = pieces[0].rows.start
    coordinates = np.concatenate([node_coordinates(uvw, piece) for piece in pieces])
    return Nodes(tuple(piece.moved(-start) for piece in pieces), coordinates)


class Tracks:
    """The nodes of one observation, for whatever images are made of it.

    Parameters
    ----------
    uvw : float64 (baselines, dumps, 3)
        Metres.
    times : float64 (dumps,), optional
        Seconds.
    frequencies : float64 (channels,)
        Hz; of those that are imaged together, or one after the other.
    tolerance : float
        Error of the kernel.
    samples : int
        Samples at the nodes that are worked on at once.
    """

    def __init__(
        self,
        uvw: npt.NDArray[np.float64],
        times: npt.NDArray[np.float64] | None,
        frequencies: npt.NDArray[np.float64],
        tolerance: float,
        samples: int,
    ) -> None:
        self._uvw, self._times, self._frequencies = uvw, times, frequencies
        self._tolerance, self._samples = tolerance, samples
        self._made: dict[ImageGrid, list[Nodes]] = {}

    def nodes(self, grid: ImageGrid) -> list[Nodes]:
        """Nodes for an image; made once."""
        if grid not in self._made:
            pieces = plan(self._uvw, self._times, self._frequencies, grid, self._tolerance)
            made = all_nodes(pieces, self._uvw, self._frequencies.size, self._samples)
            self._made[grid] = list(made)
        return self._made[grid]
