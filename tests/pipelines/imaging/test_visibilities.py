from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.imaging.visibilities import BYTES_PER_SAMPLE, VisibilitySpool, tiles


@given(
    st.tuples(st.integers(1, 50), st.integers(1, 200), st.integers(1, 300)),
    st.integers(1, 1_000_000),
)
def test_tiles_cover_everything_once_within_their_bound(
    shape: tuple[int, int, int], tile_bytes: int
) -> None:
    seen = np.zeros(shape[:2], int)
    for tile in tiles(shape, tile_bytes):
        part = seen[tile.dumps, tile.channels]
        part += 1
        assert part.size * shape[2] * BYTES_PER_SAMPLE <= max(
            tile_bytes, shape[2] * BYTES_PER_SAMPLE
        )
    assert np.all(seen == 1)


@given(st.integers(1, 200))
def test_blocks_cover_all_rows_in_order(samples: int) -> None:
    with VisibilitySpool((3, 5, 7), np.ones(7), Path()) as spool:
        spool.vis[:] = np.arange(105).reshape(3, 5, 7)
        spool.uvw[:, :, 0] = np.arange(15).reshape(3, 5)
        blocks = list(spool.blocks(samples))
        assert all(block.vis.size <= max(samples, 7) for block in blocks)
        assert np.array_equal(np.concatenate([b.vis for b in blocks]).real.ravel(), np.arange(105))
        assert np.array_equal(np.concatenate([b.uvw for b in blocks])[:, 0], np.arange(15))
        blocks[0].imaging_weights[:] = 3
        assert spool.imaging_weights[0, 0, 0] == 3


def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    with VisibilitySpool((2, 2, 2), np.ones(2), tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        VisibilitySpool((2, 2, 2), np.ones(2), tmp_path)
