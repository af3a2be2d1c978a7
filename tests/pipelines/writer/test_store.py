from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from katdal.chunkstore_npy import NpyFileChunkStore

from pipelines.common.dataset_files import chunk_prefix
from pipelines.common.l0 import DumpPart, L0Layout
from pipelines.writer.store import ARRAYS, BlockStore, StoreError

LAYOUT = L0Layout(n_chans=8, n_bls=4, n_senders=2, int_time=1.0)
CBID = "1234567890"


def part(sender: int = 1) -> DumpPart:
    rng = np.random.default_rng(sender)
    shape = (4, 4)
    return DumpPart(
        LAYOUT.channels(sender),
        rng.normal(size=(*shape, 2)).astype("f4").view("c8")[..., 0],
        rng.integers(0, 256, shape, dtype="u1"),
        rng.integers(0, 256, shape, dtype="u1"),
        rng.normal(size=4).astype("f4"),
    )


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


def test_a_part_is_four_files_that_katdal_reads(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, CBID, "sdp_l0", LAYOUT)
    written = part()
    assert store.write(12, written) == 4 * 4 * 10 + 16
    prefix = "1234567890-sdp-l0"
    assert files(tmp_path) == {
        f"{prefix}/correlator_data/00012_00004_00000.npy",
        f"{prefix}/flags/00012_00004_00000.npy",
        f"{prefix}/weights/00012_00004_00000.npy",
        f"{prefix}/weights_channel/00012_00004.npy",
    }
    reader = NpyFileChunkStore(str(tmp_path))
    where = (slice(12, 13), slice(4, 8), slice(0, 4))
    for name, array in (("correlator_data", written.vis), ("flags", written.flags)):
        chunk = reader.get_chunk(f"{prefix}/{name}", where, ARRAYS[name])
        np.testing.assert_array_equal(chunk[0], array)


def test_chunk_info_describes_every_chunk(tmp_path: Path) -> None:
    info = BlockStore(tmp_path, CBID, "sdp_l0", LAYOUT).chunk_info(3)
    assert set(info) == set(ARRAYS)
    for array, entry in info.items():
        assert entry["shape"] == tuple(sum(axis) for axis in entry["chunks"])
        assert entry["shape"] == (3, 8, 4)[: len(entry["shape"])]
        assert entry["prefix"] == chunk_prefix(CBID, "sdp_l0")
        assert np.dtype(entry["dtype"]) == ARRAYS[array]


@pytest.mark.parametrize("failing", range(4))
def test_a_full_disk_leaves_nothing_of_the_part(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th of the four files cannot be put in its place."""
    store = BlockStore(tmp_path, CBID, "sdp_l0", LAYOUT)
    store.write(0, part())
    before = files(tmp_path)
    rename, calls = os.rename, iter(range(100))

    def full(source: str, target: str) -> None:
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(StoreError, match="No space left"):
        store.write(1, part())
    assert files(tmp_path) == before
    store.write(1, part())
    assert len(files(tmp_path)) == 2 * len(before)


def test_a_block_is_written_once(tmp_path: Path) -> None:
    BlockStore(tmp_path, CBID, "sdp_l0", LAYOUT).mark_complete()
    with pytest.raises(StoreError, match="already"):
        BlockStore(tmp_path, CBID, "sdp_l0", LAYOUT)


def test_a_volume_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        BlockStore(tmp_path / "absent", CBID, "sdp_l0", LAYOUT)
