"""What an L0 heap looks like, and the views of its parts that receivers work with.

The payload of a data heap is, without gaps and little-endian, `correlator_data`, `flags`, `weights`,
`weights_channel` and `timestamp`, in this order (``docs/reference/streams.md``). Receivers rely on the order:
spead2's chunked receiver shows immediate items only to the callback that places a heap.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.common.errors import StreamError

END_HEAP_BYTES: Final = 8
"""Payload of an end heap: the float64 with the number of dumps sent."""
MAX_DUMPS: Final = 10_000_000
"""Dump indices from here on are not believed: 57 days of half-second dumps."""
_ALIGNMENT: Final = 64


class Content(enum.Enum):
    """What the heaps of a stream hold."""

    VISIBILITIES = "visibilities"
    """L0: visibilities, flags and weights."""
    FLAGS = "flags"
    """L1: flags only."""


@dataclass(frozen=True, slots=True)
class L0Layout:
    """Shape of an L0 stream that `n_senders` ingests send, each an equal part of the channels.

    Streams of flags alone have the same shape, with less in each heap.
    """

    n_chans: int
    n_bls: int
    """Products on the baseline axis."""
    n_senders: int
    int_time: float
    """Interval between dumps, s."""
    content: Content = Content.VISIBILITIES

    def __post_init__(self) -> None:
        for name in ("n_chans", "n_bls", "n_senders"):
            if getattr(self, name) <= 0:
                raise StreamError(f"{name} of the L0 stream is {getattr(self, name)}, not > 0")
        if not 0 < self.int_time < float("inf"):
            raise StreamError(f"int_time of the L0 stream is {self.int_time} s, not positive")
        if self.n_chans % self.n_senders:
            raise StreamError(
                f"{self.n_chans} channels are not equal parts from {self.n_senders} endpoints"
            )

    @property
    def channels_per_sender(self) -> int:
        """Channels in a heap."""
        return self.n_chans // self.n_senders

    @property
    def heap_bytes(self) -> int:
        """Payload of a data heap."""
        per_channel = self.n_bls if self.content is Content.FLAGS else self.n_bls * 10 + 4
        return self.channels_per_sender * per_channel + 8

    @property
    def slot_bytes(self) -> int:
        """Memory set aside for a heap: its payload, rounded up so that the next one is aligned."""
        return -(-self.heap_bytes // _ALIGNMENT) * _ALIGNMENT

    @property
    def chunk_bytes(self) -> int:
        """Memory for a dump: slots for each sender's data, places for their end heaps and a flush heap."""
        return self.n_senders * (self.slot_bytes + END_HEAP_BYTES) + END_HEAP_BYTES

    def channels(self, sender: int) -> range:
        """Return the channels that a sender, counted in order of its channels, sends."""
        start = sender * self.channels_per_sender
        return range(start, start + self.channels_per_sender)


@dataclass(frozen=True, slots=True)
class DumpPart:
    """One sender's part of a dump; the arrays are views of received memory."""

    channels: range
    vis: npt.NDArray[np.complex64]
    """(chan, bls), Jy of the model before gains."""
    flags: npt.NDArray[np.uint8]
    """(chan, bls), katdal's bits."""
    weights: npt.NDArray[np.uint8]
    """(chan, bls), to be multiplied by `weights_channel`."""
    weights_channel: npt.NDArray[np.float32]
    """(chan,)"""


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Dump:
    """What has come of one dump. The views in it are valid until :meth:`release`."""

    index: int
    """Counts from 0 in the capture block."""
    timestamp: float
    """Centre of the dump, seconds since the stream's `sync_time`."""
    parts: tuple[DumpPart, ...]
    """In order of channels; those that were lost are absent, never empty altogether."""
    release: Callable[[], None] = field(default=_nothing, repr=False, compare=False)
    """Gives the memory back to the receiver. To be called once."""


_NO_VIS: Final = np.zeros((0, 0), np.complex64)
_NO_WEIGHTS: Final = np.zeros((0, 0), np.uint8)
_NO_SCALE: Final = np.zeros(0, np.float32)


def part_of_payload(
    payload: npt.NDArray[np.uint8],
    channels: range,
    n_bls: int,
    content: Content = Content.VISIBILITIES,
) -> DumpPart:
    """Return views of the arrays in a data heap's payload, shape (heap_bytes,); empty where there are none."""
    n = len(channels)
    if content is Content.FLAGS:
        flags = payload[: n * n_bls].reshape(n, n_bls)
        return DumpPart(channels, _NO_VIS, flags, _NO_WEIGHTS, _NO_SCALE)
    vis_end = n * n_bls * 8
    flags_end = vis_end + n * n_bls
    weights_end = flags_end + n * n_bls
    return DumpPart(
        channels,
        payload[:vis_end].view("<c8").reshape(n, n_bls),
        payload[vis_end:flags_end].reshape(n, n_bls),
        payload[flags_end:weights_end].reshape(n, n_bls),
        payload[weights_end : weights_end + 4 * n].view("<f4"),
    )


def timestamp_of_payload(payload: npt.NDArray[np.uint8]) -> float:
    """Return the last item of a data heap, or the only one of an end heap."""
    return float(payload[-8:].view("<f8")[0])
