"""What an ingest keeps in memory; the formula is in the catalogue, where the controller finds it."""

from __future__ import annotations

from pipelines import catalogue
from pipelines.ingest.layout import OutputLayout


def memory_bytes(layout: OutputLayout, window: int) -> int:
    """Return the bytes of the arrays of an ingest; interpreter and libraries are not among them."""
    source = layout.source
    return catalogue.ingest_bytes(
        len(source.channels), len(layout.channels), source.n_bls, source.n_heaps, window
    )
