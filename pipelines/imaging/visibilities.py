"""Visibilities of one target as Stokes I, on disk with bounded memory.

A data set is read once, in tiles of dumps × channels, and kept as Stokes I in files without a name: every
major cycle goes over the visibilities again, and reading through katdal with calibration costs several times
what gridding does. The files are mapped, so that memory they take is the system's to reclaim. Their order is
baseline, dump, channel: gridding neighbours in the uv plane one after the other is faster.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

TILE_BYTES = 32 * 2**20
"""Visibilities, weights and flags of one tile; katdal and its calibration take about four times this."""

BYTES_PER_SAMPLE = 8 + 4 + 1
BLOCK_SAMPLES = 2**24
"""Samples that are worked on at once: 128 MiB of model visibilities. Every block costs transforms."""


@dataclass(frozen=True)
class Block:
    """Some baselines' visibilities.

    Attributes
    ----------
    uvw : float64 (rows, 3)
        Metres.
    vis : complex64 (rows, channels)
        Stokes I, Jy.
    weights : float32 (rows, channels)
        Weights of their noise; zero where flagged.
    imaging_weights : float32 (rows, channels)
        Weights in the image; writable.
    """

    uvw: npt.NDArray[np.float64]
    vis: npt.NDArray[np.complex64]
    weights: npt.NDArray[np.float32]
    imaging_weights: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tile:
    """A range of dumps and channels."""

    dumps: slice
    channels: slice


@dataclass
class Visibilities:
    """Stokes I visibilities of one target.

    Attributes
    ----------
    frequencies : float64 (channels,)
        Hz.
    uvw : float64 (baselines, dumps, 3)
        Metres.
    vis : complex64 (baselines, dumps, channels)
        Jy.
    weights, imaging_weights : float32 (baselines, dumps, channels)
        Weights of their noise (zero where flagged) and in the image.
    times : float64 (dumps,), optional
        Centres of the dumps, seconds. Without them, `uvw` is not taken to go on smoothly from dump to dump.
    """

    frequencies: npt.NDArray[np.float64]
    uvw: npt.NDArray[np.float64]
    vis: npt.NDArray[np.complex64]
    weights: npt.NDArray[np.float32]
    imaging_weights: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Baselines, dumps, channels."""
        return self.vis.shape

    def blocks(self, samples: int = BLOCK_SAMPLES) -> Iterator[Block]:
        """All visibilities, in blocks of at most `samples`, but at least a row."""
        n_baselines, n_dumps, n_channels = self.shape
        rows = n_baselines * n_dumps
        step = max(samples // n_channels, 1)
        uvw = self.uvw.reshape(rows, 3)
        vis = self.vis.reshape(rows, n_channels)
        weights, imaging = (
            a.reshape(rows, n_channels) for a in (self.weights, self.imaging_weights)
        )
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            yield Block(uvw[part], vis[part], weights[part], imaging[part])

    def channel(self, number: int) -> Visibilities:
        """One channel, in memory, without imaging weights."""
        part = np.s_[:, :, number : number + 1]
        weights = np.ascontiguousarray(self.weights[part])
        return Visibilities(
            self.frequencies[number : number + 1],
            self.uvw,
            np.ascontiguousarray(self.vis[part]),
            weights,
            np.zeros_like(weights),
            self.times,
        )


class VisibilitySpool(Visibilities):
    """Visibilities on disk, in unnamed files that vanish with the process.

    Parameters
    ----------
    shape : tuple of int
        Baselines, dumps, channels.
    frequencies : float64 (channels,)
        Hz.
    directory : Path
        Where the files are made. Space is reserved at once: 16 bytes per sample.
    times : float64 (dumps,), optional
        Centres of the dumps, seconds.

    Raises
    ------
    OSError
        There is no space.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        frequencies: npt.NDArray[np.float64],
        directory: Path,
        times: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self._files: list[IO[bytes]] = []
        super().__init__(
            frequencies,
            np.zeros((*shape[:2], 3)),
            self._reserve(shape, np.dtype(np.complex64), directory),
            self._reserve(shape, np.dtype(np.float32), directory),
            self._reserve(shape, np.dtype(np.float32), directory),
            times,
        )

    def _reserve(
        self, shape: tuple[int, int, int], dtype: np.dtype[Any], directory: Path
    ) -> npt.NDArray[Any]:
        size = int(np.prod(shape)) * dtype.itemsize
        spool = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by close()
        self._files.append(spool)
        try:
            # Writing to a mapped file on a full disk is a signal, not an exception: reserve it first.
            os.posix_fallocate(spool.fileno(), 0, size)
        except OSError:
            self.close()
            raise
        return np.memmap(spool, dtype, mode="r+", shape=shape)

    def close(self) -> None:
        """Give the files back."""
        for spool in self._files:
            spool.close()

    def __enter__(self) -> VisibilitySpool:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def tiles(shape: tuple[int, int, int], tile_bytes: int = TILE_BYTES) -> Iterator[Tile]:
    """Cut dumps × channels × products into tiles, as many dumps as fit, else one dump's channels.

    Parameters
    ----------
    shape : tuple of int
        Dumps, channels, products.
    tile_bytes : int
        Bound of a tile's visibilities, weights and flags.
    """
    n_dumps, n_channels, n_products = shape
    per_channel = n_products * BYTES_PER_SAMPLE
    channels = min(max(tile_bytes // per_channel, 1), n_channels)
    dumps = max(tile_bytes // (per_channel * channels), 1) if channels == n_channels else 1
    for dump in range(0, n_dumps, dumps):
        for channel in range(0, n_channels, channels):
            yield Tile(
                slice(dump, min(dump + dumps, n_dumps)),
                slice(channel, min(channel + channels, n_channels)),
            )
