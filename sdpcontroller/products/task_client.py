"""aiokatcp's client, made for thousands in one process."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

import aiokatcp
from aiokatcp.connection import Connection, wrap_handler

from scheduler.breath import Ration

READ_BUFFER: Final = 16 << 10
"""Bytes of what is read at once. aiokatcp takes 256 KiB, of which two thousand make half a gigabyte."""


@functools.lru_cache(maxsize=100)
def _wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that takes the message instead of its arguments; the method's own object comes first."""
    return wrap_handler(name, function, 1)


class TaskClient(aiokatcp.Client):
    """A client with a small buffer, that looks at the signature of a method once and not for each client.

    What follows overrides what aiokatcp calls itself, or for itself.

    Parameters
    ----------
    reading
        Time that all clients together have for what they read.
    """

    def __init__(self, host: str, port: int, reading: Ration | None = None) -> None:
        super().__init__(host, port)
        self._reading = reading or Ration()

    def _connection_made(self, conn: Connection) -> None:
        unsealed: Any = conn  # there is no other way
        unsealed._buffer = memoryview(bytearray(READ_BUFFER))  # noqa: SLF001
        unsealed.buffer_updated = functools.partial(self._arrived, conn, conn.buffer_updated)
        super()._connection_made(conn)

    def _arrived(self, conn: Connection, read: Callable[[int], None], count: int) -> None:
        """Read what has arrived: now, or when there is time; it stays where it is, and nothing follows it."""

        def read_late() -> None:
            if not conn.is_closing():
                read(count)
                conn.resume_reading()

        if self._reading.full:
            conn.pause_reading()
            self._reading.wait(read_late)
        else:
            self._reading.do(functools.partial(read, count))

    def add_inform_callback(self, name: str, callback: Callable[..., None]) -> None:
        """Add a callback; see aiokatcp."""
        if not inspect.ismethod(callback):
            super().add_inform_callback(name, callback)
            return
        bound: Any = functools.partial(_wrapped(name, callback.__func__), callback.__self__)
        bound._aiokatcp_orig_handler = callback  # noqa: SLF001  # by which it is removed again
        self._inform_callbacks.setdefault(name, []).append(bound)
