"""Where each heap of the correlator goes: the callback that spead2 asks about every heap.

spead2 calls it from its network thread with the first packet of a heap. The callback decides, without Python
and without allocating, which dump (*chunk*) and which substream (*heap index*) the heap belongs to, or why it
is turned away. Its memory is one record, :data:`STATE`, made by :func:`new_state`.

Dumps are counted from the first heap seen, by the difference of a heap's timestamp to that of the newest dump,
taken modulo 2^48: so the wrap of the 48-bit counter (every 45 hours at 1.712 GHz) needs no special case. A
timestamp that does not fall on the grid of dumps, or is far from the newest, is not believed at once: otherwise
one bad heap would move the window and shut out all good ones. When several such heaps in a row agree with each
other (a long gap, a restarted sender, or the very first heap was the bad one), a new *segment* begins there.

Facts on the interface of callback and window: spead2's documentation, "Chunking receiver".
"""

from __future__ import annotations

import enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import cfunc, njit
from numba.np.numpy_support import carray
from spead2.numba import intp_to_voidptr

from pipelines.common.placing import bound, signature

TIMESTAMP_BITS: Final = 48
SEGMENT_SHIFT: Final = 40
"""A chunk id is ``segment << SEGMENT_SHIFT | position``, so that ids only ever grow."""
SEGMENT_ORIGIN: Final = 1 << 30
"""Position of a segment's first heap: dumps from before it (late substreams) have a place too."""
SEGMENTS_KEPT: Final = 64
"""Segments whose start is remembered; far more than can be in the window and in flight together."""


class HeapClass(enum.IntEnum):
    """What the callback made of a heap; the values are positions among the custom statistics of the stream."""

    ACCEPTED = 0
    IDLE = 1
    """No capture is on."""
    CONTROL = 2
    """Descriptors and stream control: no timestamp, no channel."""
    FOREIGN = 3
    """A good channel of the stream, but another ingest's."""
    MISSING_ITEM = 4
    WRONG_SIZE = 5
    BAD_CHANNEL = 6
    BAD_TIMESTAMP = 7
    """Off the grid of dumps, or too far ahead."""
    TOO_OLD = 8
    """Its dump has left the window."""
    DUPLICATE = 9
    """The same dump and substream came before."""


REJECTIONS: Final = tuple(c for c in HeapClass if c >= HeapClass.MISSING_ITEM)
"""The classes that are somebody's fault."""

STATE: Final = np.dtype(
    [
        # Constant while the stream lives.
        ("active", np.int64),
        ("heap_bytes", np.int64),
        ("n_chans", np.int64),
        ("first_channel", np.int64),
        ("channels_per_heap", np.int64),
        ("n_heaps", np.int64),
        ("ticks", np.int64),
        ("window", np.int64),
        ("max_ahead", np.int64),
        ("confirmations", np.int64),
        ("stat_base", np.int64),
        # The newest dump accepted.
        ("segment", np.int64),
        ("newest_timestamp", np.int64),
        ("newest_position", np.int64),
        # Heaps that contradict it but agree among each other.
        ("rival_timestamp", np.int64),
        ("rival_count", np.int64),
        # Address of int64 (window, n_heaps): chunk id last placed there.
        ("placed", np.intp),
        # Timestamp of each segment's first heap, by segment modulo SEGMENTS_KEPT.
        ("segment_start", np.int64, (SEGMENTS_KEPT,)),
        # Heaps accepted in each segment.
        ("segment_heaps", np.int64, (SEGMENTS_KEPT,)),
    ]
)
"""Memory of the callback. All times in ADC samples, modulo 2^48."""

# Numba takes plain integers as constants.
_ACCEPTED: Final = int(HeapClass.ACCEPTED)
_IDLE: Final = int(HeapClass.IDLE)
_CONTROL: Final = int(HeapClass.CONTROL)
_FOREIGN: Final = int(HeapClass.FOREIGN)
_MISSING_ITEM: Final = int(HeapClass.MISSING_ITEM)
_WRONG_SIZE: Final = int(HeapClass.WRONG_SIZE)
_BAD_CHANNEL: Final = int(HeapClass.BAD_CHANNEL)
_BAD_TIMESTAMP: Final = int(HeapClass.BAD_TIMESTAMP)
_TOO_OLD: Final = int(HeapClass.TOO_OLD)
_DUPLICATE: Final = int(HeapClass.DUPLICATE)

_MODULUS: Final = 1 << TIMESTAMP_BITS
_HALF: Final = 1 << (TIMESTAMP_BITS - 1)
_N_STATS: Final = len(HeapClass)


@njit(cache=True, nogil=True)
def wrapped_difference(a: int, b: int) -> int:
    """Return `a` - `b` of two 48-bit timestamps, as the nearer of the two readings, in [-2^47, 2^47)."""
    return (a - b + _HALF) % _MODULUS - _HALF


@njit(cache=True, nogil=True)
def _begin_segment(state: Any, timestamp: int) -> None:
    state.segment += 1
    state.newest_timestamp = timestamp
    state.newest_position = SEGMENT_ORIGIN
    state.rival_count = 0
    state.segment_start[state.segment % SEGMENTS_KEPT] = timestamp
    state.segment_heaps[state.segment % SEGMENTS_KEPT] = 0


@njit(cache=True, nogil=True)
def _doubt(state: Any, timestamp: int) -> bool:
    """Note a heap that contradicts the newest dump; true when enough of them agree to believe them."""
    difference = wrapped_difference(timestamp, state.rival_timestamp)
    steps = difference // state.ticks
    agrees = state.rival_count > 0 and difference % state.ticks == 0 and abs(steps) < state.window
    if not agrees:
        state.rival_count = 1
        state.rival_timestamp = timestamp
    else:
        state.rival_count += 1
        if steps > 0:
            state.rival_timestamp = timestamp
    return bool(state.rival_count >= state.confirmations)


@njit(cache=True, nogil=True)
def _position(state: Any, timestamp: int) -> tuple[int, int]:
    """Return (class, position in the current segment) of a timestamp; may begin a segment."""
    if state.segment < 0:
        _begin_segment(state, timestamp)
        return _ACCEPTED, SEGMENT_ORIGIN
    difference = wrapped_difference(timestamp, state.newest_timestamp)
    steps = difference // state.ticks
    verdict = _ACCEPTED
    if difference % state.ticks != 0 or steps > state.max_ahead:
        verdict = _BAD_TIMESTAMP
    elif steps <= -state.window:
        verdict = _TOO_OLD
    if verdict != _ACCEPTED:
        if not _doubt(state, timestamp):
            return verdict, -1
        _begin_segment(state, timestamp)
        return _ACCEPTED, SEGMENT_ORIGIN
    state.rival_count = 0
    position = state.newest_position + steps
    if steps > 0:
        state.newest_timestamp = timestamp
        state.newest_position = position
    return _ACCEPTED, position


@njit(cache=True, nogil=True)
def _classify(state: Any, timestamp: int, channel: int, length: int) -> tuple[int, int, int]:
    """Return (class, chunk id, heap index) of a heap; an item that is absent is negative."""
    if timestamp < 0 and channel < 0:
        return _CONTROL, -1, 0
    if state.active == 0:
        return _IDLE, -1, 0
    if timestamp < 0 or channel < 0:
        return _MISSING_ITEM, -1, 0
    if length != state.heap_bytes:
        return _WRONG_SIZE, -1, 0
    if channel >= state.n_chans or channel % state.channels_per_heap != 0:
        return _BAD_CHANNEL, -1, 0
    offset = channel - state.first_channel
    index = offset // state.channels_per_heap
    if index < 0 or index >= state.n_heaps:
        return _FOREIGN, -1, 0
    verdict, position = _position(state, timestamp)
    if verdict != _ACCEPTED:
        return verdict, -1, 0
    chunk_id = state.segment << SEGMENT_SHIFT | position
    placed = carray(intp_to_voidptr(state.placed), (state.window, state.n_heaps), dtype=np.int64)
    if placed[chunk_id % state.window, index] == chunk_id:
        return _DUPLICATE, -1, 0
    placed[chunk_id % state.window, index] = chunk_id
    state.segment_heaps[state.segment % SEGMENTS_KEPT] += 1
    return _ACCEPTED, chunk_id, index


@cfunc(signature(STATE), cache=True)
def _place(data_pointer: Any, data_size: int, state_pointer: Any) -> None:
    data = carray(data_pointer, 1)
    state = carray(state_pointer, 1)[0]
    items = carray(intp_to_voidptr(data[0].items), 3, dtype=np.int64)
    verdict, chunk_id, index = _classify(state, items[0], items[1], items[2])
    stats = carray(
        intp_to_voidptr(data[0].batch_stats), state.stat_base + _N_STATS, dtype=np.uint64
    )
    stats[state.stat_base + verdict] += np.uint64(1)
    data[0].chunk_id = chunk_id
    data[0].heap_index = index
    data[0].heap_offset = index * state.heap_bytes


def new_state(window: int, n_heaps: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return a fresh record of :data:`STATE` (shape (1,)) and the table that it points to; keep both alive."""
    placed = np.full((window, n_heaps), -1, np.int64)
    state = np.zeros(1, STATE)
    state["window"] = window
    state["n_heaps"] = n_heaps
    state["placed"] = placed.ctypes.data
    state["segment"] = -1
    return state, placed


def place_capsule(state: npt.NDArray[Any]) -> tuple[object]:
    """Return the callback, bound to `state` as :func:`new_state` makes it, which must outlive the stream."""
    return bound(_place, state)
