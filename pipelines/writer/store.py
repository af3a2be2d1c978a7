"""The chunks of one capture block on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from katdal.chunkstore import ChunkStoreError
from katdal.chunkstore_npy import NpyFileChunkStore

from pipelines.common.dataset_files import chunk_prefix
from pipelines.common.errors import PipelineError
from pipelines.common.l0 import Content, DumpPart, L0Layout

ARRAYS: Final[Mapping[str, np.dtype[Any]]] = {
    "correlator_data": np.dtype("<c8"),
    "flags": np.dtype("u1"),
    "weights": np.dtype("u1"),
    "weights_channel": np.dtype("<f4"),
}
"""What a data set consists of, with the types that katdal expects."""
FLAGS_ONLY: Final = {"flags": ARRAYS["flags"]}
"""What is written of a stream of flags."""


_Chunks = Mapping[str, tuple[tuple[slice, ...], npt.NDArray[Any]]]


class StoreError(PipelineError):
    """A capture block cannot be written; nothing of what was asked is left behind."""


class BlockStore:
    """Writes dumps of one block as ``ROOT/<prefix>/<array>/%05d_%05d_%05d.npy``.

    Files appear whole or not at all, and of a dump's channel range all four or none. The methods block: they
    are for worker threads, several at once.

    Parameters
    ----------
    root
        The data volume; must exist.
    cbid, stream
        Capture block and L0 stream.
    layout
        Shape of the stream.

    Raises
    ------
    StoreError
        The volume is not there or not writable, or the block has been written before.
    """

    def __init__(self, root: Path, cbid: str, stream: str, layout: L0Layout) -> None:
        self.root = root
        self.prefix = chunk_prefix(cbid, stream)
        self._layout = layout
        self._arrays = FLAGS_ONLY if layout.content is Content.FLAGS else ARRAYS
        try:
            self._store = NpyFileChunkStore(str(root))
            if self._store.is_complete(self._name("flags")):
                raise StoreError(f"{stream} of capture block {cbid} is in {root} already")
            for array in self._arrays:
                self._store.create_array(self._name(array))
        except (OSError, ChunkStoreError) as exc:
            raise StoreError(f"cannot write to {root}: {exc}") from exc

    def _name(self, array: str) -> str:
        return f"{self.prefix}/{array}"

    def write(self, dump: int, part: DumpPart) -> int:
        """Write one channel range of a dump and return the bytes of its arrays.

        Raises
        ------
        StoreError
            It could not be written, for example because the disk is full.
        """
        time = slice(dump, dump + 1)
        channels = slice(part.channels.start, part.channels.stop)
        baselines = slice(0, self._layout.n_bls)
        every: _Chunks = {
            "weights_channel": ((time, channels), part.weights_channel),
            "weights": ((time, channels, baselines), part.weights),
            "flags": ((time, channels, baselines), part.flags),
            "correlator_data": ((time, channels, baselines), part.vis),
        }
        chunks = {name: chunk for name, chunk in every.items() if name in self._arrays}
        for array, (slices, data) in chunks.items():
            try:
                self._store.put_chunk(self._name(array), slices, data[np.newaxis])
            except (OSError, ChunkStoreError) as exc:
                self._remove(chunks)
                raise StoreError(f"dump {dump} not written: {exc}") from exc
        return sum(data.nbytes for _, data in chunks.values())

    def _remove(self, chunks: _Chunks) -> None:
        """Take away what there is of a dump's channel range, temporary files included."""
        for array, (slices, data) in chunks.items():
            name, _ = self._store.chunk_metadata(self._name(array), slices, chunk=data[np.newaxis])
            for ending in (".npy", ".writing.npy"):
                (self.root / f"{name}{ending}").unlink(missing_ok=True)

    def mark_complete(self) -> None:
        """Leave katdal's mark that no more chunks will come."""
        for array in self._arrays:
            self._store.mark_complete(self._name(array))

    def chunk_info(self, n_dumps: int) -> dict[str, dict[str, Any]]:
        """Return the description of the chunks, as katdal wants it in telescope state."""
        layout = self._layout
        frequency = (layout.channels_per_sender,) * layout.n_senders
        info = {}
        for array, dtype in self._arrays.items():
            chunks: tuple[tuple[int, ...], ...] = ((1,) * n_dumps, frequency)
            shape: tuple[int, ...] = (n_dumps, layout.n_chans)
            if array != "weights_channel":
                chunks, shape = (*chunks, (layout.n_bls,)), (*shape, layout.n_bls)
            info[array] = {
                "prefix": self.prefix,
                "chunks": chunks,
                "dtype": np.lib.format.dtype_to_descr(dtype),
                "shape": shape,
            }
        return info

    def free_bytes(self) -> int:
        """Space that is left on the volume for this program."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize
