"""Where each L0 heap goes: the callback that spead2's chunked receiver asks about every heap.

It runs in spead2's network thread and sees the first packet of a heap. A heap that it turns away costs no
memory, whatever length it claims: this is why L0 is received in chunks, for one packet with an absurd heap
length ends the thread of a receiver that allocates heap by heap.

A chunk is a dump. It has a slot for each sender's data, one for each sender's end heap and one for a flush
heap; an end heap is put into the newest dump's chunk. Chunks come out of spead2 only when newer ones push them,
and stopping a stream drops those that are under way; so the end of a block is made by *flush heaps*, which the
receiver sends to itself and which carry a secret number: they move the window on beyond the newest dump.

Facts on the callback: spead2's documentation, "Chunking receiver".
"""

from __future__ import annotations

import enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import cfunc, njit
from numba.np.numpy_support import carray
from spead2.numba import intp_to_voidptr

from pipelines.common.l0.layout import END_HEAP_BYTES, MAX_DUMPS
from pipelines.common.placing import HEAP_LENGTH_ID, bound, signature
from pipelines.common.spead import CAPTURE_BLOCK_ID, DUMP_INDEX_ID, END_DUMP_INDEX, FREQUENCY_ID

FLUSH_ID: Final = 0x6010
"""Item of a flush heap; never sent on a network."""
ITEMS: Final = (DUMP_INDEX_ID, FREQUENCY_ID, CAPTURE_BLOCK_ID, HEAP_LENGTH_ID, FLUSH_ID)
"""The items that the callback reads, in its order."""
MAX_AHEAD: Final = 1000
"""A dump index further ahead of the newest than this is believed when a second heap agrees with it."""


class HeapClass(enum.IntEnum):
    """What the callback made of a heap; the values are positions among the stream's own statistics."""

    ACCEPTED = 0
    END = 1
    CONTROL = 2
    """Descriptors, stream control, flush heaps: nothing of a dump."""
    OTHER_BLOCK = 3
    """Of another capture block."""
    MISSING_ITEM = 4
    WRONG_SIZE = 5
    BAD_CHANNEL = 6
    BAD_DUMP = 7
    """A dump index beyond all bounds, or far ahead and alone with it."""
    TOO_OLD = 8
    """Its dump has left the window."""
    DUPLICATE = 9
    """The same dump and sender came before."""
    END_REPEATED = 10
    CLOSED = 11
    """Came after the block was complete."""


REJECTIONS: Final = tuple(c for c in HeapClass if HeapClass.MISSING_ITEM <= c <= HeapClass.TOO_OLD)
"""The classes that are somebody's fault."""

STATE: Final = np.dtype(
    [
        # Constant while the stream lives.
        ("capture_block", np.int64),
        ("heap_bytes", np.int64),
        ("slot_bytes", np.int64),
        ("n_senders", np.int64),
        ("channels_per_sender", np.int64),
        ("window", np.int64),
        ("secret", np.int64),
        ("stat_base", np.int64),
        # The newest dump accepted, -1 before the first.
        ("newest", np.int64),
        ("rival", np.int64),
        # Flush heaps so far; the first closes the block.
        ("closed", np.int64),
        # Addresses of int64 (window, n_senders), dump last placed there, and (n_senders,), ended or not.
        ("placed", np.intp),
        ("ended", np.intp),
    ]
)
"""Memory of the callback."""

# Numba takes plain integers as constants.
_ACCEPTED: Final = int(HeapClass.ACCEPTED)
_END: Final = int(HeapClass.END)
_CONTROL: Final = int(HeapClass.CONTROL)
_OTHER_BLOCK: Final = int(HeapClass.OTHER_BLOCK)
_MISSING_ITEM: Final = int(HeapClass.MISSING_ITEM)
_WRONG_SIZE: Final = int(HeapClass.WRONG_SIZE)
_BAD_CHANNEL: Final = int(HeapClass.BAD_CHANNEL)
_BAD_DUMP: Final = int(HeapClass.BAD_DUMP)
_TOO_OLD: Final = int(HeapClass.TOO_OLD)
_DUPLICATE: Final = int(HeapClass.DUPLICATE)
_END_REPEATED: Final = int(HeapClass.END_REPEATED)
_CLOSED: Final = int(HeapClass.CLOSED)
_N_CLASSES: Final = len(HeapClass)


@njit(cache=True, nogil=True)
def _flush(state: Any) -> tuple[int, int, int]:
    """Close the block; each flush heap moves the window on by its whole length."""
    state.closed += 1
    state.newest = max(state.newest, 0) + state.window
    return _CONTROL, state.newest, 2 * state.n_senders


@njit(cache=True, nogil=True)
def _end(state: Any, sender: int, length: int) -> tuple[int, int, int]:
    if length != END_HEAP_BYTES:
        return _WRONG_SIZE, -1, 0
    ended = carray(intp_to_voidptr(state.ended), state.n_senders, dtype=np.int64)
    if ended[sender]:
        return _END_REPEATED, -1, 0
    ended[sender] = 1
    return _END, max(state.newest, 0), state.n_senders + sender


@njit(cache=True, nogil=True)
def _data(state: Any, dump: int, sender: int, length: int) -> tuple[int, int, int]:
    if length != state.heap_bytes:
        return _WRONG_SIZE, -1, 0
    if dump >= MAX_DUMPS:
        return _BAD_DUMP, -1, 0
    if dump <= state.newest - state.window:
        return _TOO_OLD, -1, 0
    if dump > state.newest + MAX_AHEAD and abs(dump - state.rival) >= state.window:
        state.rival = dump
        return _BAD_DUMP, -1, 0
    placed = carray(intp_to_voidptr(state.placed), (state.window, state.n_senders), dtype=np.int64)
    if placed[dump % state.window, sender] == dump:
        return _DUPLICATE, -1, 0
    placed[dump % state.window, sender] = dump
    state.newest = max(state.newest, dump)
    return _ACCEPTED, dump, sender


@njit(cache=True, nogil=True)
def _classify(
    state: Any, dump: int, channel: int, block: int, length: int, flush: int
) -> tuple[int, int, int]:
    """Return (class, chunk id, heap index) of a heap; an item that is absent is negative."""
    if flush >= 0 and flush == state.secret:
        return _flush(state)
    if dump < 0 and channel < 0 and block < 0:
        return _CONTROL, -1, 0
    if dump < 0 or channel < 0 or block < 0 or length < 0:
        return _MISSING_ITEM, -1, 0
    if block != state.capture_block:
        return _OTHER_BLOCK, -1, 0
    sender = channel // state.channels_per_sender
    if channel % state.channels_per_sender != 0 or sender >= state.n_senders:
        return _BAD_CHANNEL, -1, 0
    if state.closed:
        return _CLOSED, -1, 0
    if dump == END_DUMP_INDEX:
        return _end(state, sender, length)
    return _data(state, dump, sender, length)


@cfunc(signature(STATE), cache=True)
def _place(data_pointer: Any, data_size: int, state_pointer: Any) -> None:
    data = carray(data_pointer, 1)
    state = carray(state_pointer, 1)[0]
    items = carray(intp_to_voidptr(data[0].items), 5, dtype=np.int64)
    verdict, chunk_id, index = _classify(state, items[0], items[1], items[2], items[3], items[4])
    stats = carray(
        intp_to_voidptr(data[0].batch_stats), state.stat_base + _N_CLASSES, dtype=np.uint64
    )
    stats[state.stat_base + verdict] += np.uint64(1)
    data[0].chunk_id = chunk_id
    data[0].heap_index = index
    data_bytes = state.n_senders * state.slot_bytes
    if index < state.n_senders:
        data[0].heap_offset = index * state.slot_bytes
    else:
        data[0].heap_offset = data_bytes + (index - state.n_senders) * END_HEAP_BYTES


def place_capsule(state: npt.NDArray[Any]) -> tuple[object]:
    """Return the callback, bound to `state` ((1,) of :data:`STATE`), which must outlive the stream."""
    return bound(_place, state)
