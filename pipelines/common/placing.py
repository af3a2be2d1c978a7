"""How a callback that places heaps is given to spead2's chunked receivers.

spead2 asks it about every heap, from its network thread, without Python: so it is compiled by numba, and comes
as a capsule with its address and that of its state. Facts: spead2's documentation, "Chunking receiver".
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import types
from numba.np.numpy_support import from_dtype
from spead2.recv.numba import chunk_place_data

HEAP_LENGTH_ID: Final = 0x0002
"""SPEAD's own item with the length of the heap's payload in bytes."""
_CAPSULE_NAME: Final = b"void (void *, size_t, void *)"
"""By which spead2 knows what the callback takes."""


def signature(state: np.dtype[Any]) -> Any:
    """Return numba's type of a callback, which takes spead2's data, their size, and a record of the state."""
    data = types.CPointer(chunk_place_data)
    return types.void(data, types.size_t, types.CPointer(from_dtype(state)))


def bound(callback: Any, state: npt.NDArray[Any]) -> tuple[object]:
    """Return a callback, bound to its state, in the form that spead2 takes: a tuple with a ``PyCapsule``.

    The capsule holds addresses only: `state` and what it points to must outlive the stream.

    Parameters
    ----------
    callback
        Made by numba's ``cfunc`` with :func:`signature`.
    state
        (1,) of the record.
    """
    api = ctypes.pythonapi
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    api.PyCapsule_SetContext.restype = ctypes.c_int
    api.PyCapsule_SetContext.argtypes = [ctypes.py_object, ctypes.c_void_p]
    capsule = api.PyCapsule_New(callback.address, _CAPSULE_NAME, None)
    api.PyCapsule_SetContext(capsule, state.ctypes.data)
    return (capsule,)
