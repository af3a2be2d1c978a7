"""aiokatcp's client, made for thousands in one process."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

import aiokatcp
from aiokatcp.connection import Connection, wrap_handler

READ_BUFFER: Final = 16 << 10
"""Bytes of what is read at once. aiokatcp takes 256 KiB, of which two thousand make half a gigabyte."""


@functools.lru_cache(maxsize=100)
def _wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that takes the message instead of its arguments; the method's own object comes first."""
    return wrap_handler(name, function, 1)


class TaskClient(aiokatcp.Client):
    """A client with a small buffer, that looks at the signature of a method once and not for each client.

    What follows overrides what aiokatcp calls itself, or for itself.
    """

    def _connection_made(self, conn: Connection) -> None:
        conn._buffer = memoryview(bytearray(READ_BUFFER))  # noqa: SLF001  # there is no other way
        super()._connection_made(conn)

    def add_inform_callback(self, name: str, callback: Callable[..., None]) -> None:
        """Add a callback; see aiokatcp."""
        if not inspect.ismethod(callback):
            super().add_inform_callback(name, callback)
            return
        bound: Any = functools.partial(_wrapped(name, callback.__func__), callback.__self__)
        bound._aiokatcp_orig_handler = callback  # noqa: SLF001  # by which it is removed again
        self._inform_callbacks.setdefault(name, []).append(bound)
