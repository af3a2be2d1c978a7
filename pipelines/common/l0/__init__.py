"""Receiving L0 streams: visibilities, flags and weights of one dump and one ingest's channels at a time."""

from pipelines.common.l0.layout import Content, Dump, DumpPart, L0Layout
from pipelines.common.l0.place import HeapClass
from pipelines.common.l0.receiver import L0Receiver, SenderCount

__all__ = [
    "Content",
    "Dump",
    "DumpPart",
    "HeapClass",
    "L0Layout",
    "L0Receiver",
    "SenderCount",
]
