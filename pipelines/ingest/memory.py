"""What an ingest keeps in memory: the figure that goes into its request for resources."""

from __future__ import annotations

from typing import Final

from pipelines.ingest.layout import OutputLayout
from pipelines.ingest.receive import n_chunks

OUTPUT_BUFFERS: Final = 4
"""Output dumps that may be on their way out."""


def memory_bytes(layout: OutputLayout, window: int) -> int:
    """Return the bytes of the arrays of an ingest; interpreter and libraries are not among them.

    The receiver's chunks, one input dump as visibilities and flags, one output dump as sums, counts and flags,
    and the output buffers.
    """
    n_bls = layout.source.n_bls
    samples_in = len(layout.source.channels) * n_bls
    samples_out = len(layout.channels) * n_bls
    chunks = n_chunks(window) * (layout.source.chunk_bytes + layout.source.n_heaps)
    sums = samples_in * (8 + 1) + samples_out * (8 + 4 + 1)
    buffers = OUTPUT_BUFFERS * (samples_out * (8 + 1 + 1) + len(layout.channels) * 4)
    return chunks + sums + buffers
