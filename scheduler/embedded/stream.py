"""Events on their way to one subscriber."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from scheduler.embedded import recordio
from scheduler.embedded.identifiers import new_uuid

MAX_BACKLOG = 64 * 1024 * 1024
"""Bytes that may wait for a subscriber that does not read; beyond it the connection is cut."""


_ENCODER = json.JSONEncoder(separators=(",", ":"))


class EventStream:
    """What one SUBSCRIBE has opened.

    The master sends, the HTTP connection iterates. Sending never waits: a subscriber that does not read loses
    the connection at :data:`MAX_BACKLOG`, as one that has died.

    Parameters
    ----------
    max_backlog
        Bytes.
    """

    def __init__(self, max_backlog: int = MAX_BACKLOG) -> None:
        self.id = str(new_uuid())
        """The ``Mesos-Stream-Id``."""
        self._max_backlog = max_backlog
        self._records: deque[bytes] = deque()
        self._backlog = 0
        self._closed = False
        self._overflowed = False
        self._wake = asyncio.Event()

    @property
    def overflowed(self) -> bool:
        """Whether the stream is to be cut, not ended: the subscriber was too slow, or the master is no more."""
        return self._overflowed

    @property
    def closed(self) -> bool:
        """Whether nothing is sent any more."""
        return self._closed

    def send(self, event: Mapping[str, Any]) -> None:
        """Queue an event, unless the stream has been closed."""
        if self._closed:
            return
        record = recordio.encode(_ENCODER.encode(event).encode())
        self._backlog += len(record)
        if self._backlog > self._max_backlog:
            self.cut()
            return
        self._records.append(record)
        self._wake.set()

    def cut(self) -> None:
        """End the stream at once and not in good order, as when its master dies."""
        self._overflowed = True
        self._records.clear()
        self.close()

    def close(self) -> None:
        """End the stream after what is queued."""
        self._closed = True
        self._wake.set()

    def take(self) -> list[bytes]:
        """Return the records that wait, and forget them."""
        records = list(self._records)
        self._records.clear()
        self._backlog = 0
        return records

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield what is to be sent as one chunk, until the stream is closed.

        Each record is a chunk of its own, as with Mesos, unless several wait.
        """
        while True:
            if records := self.take():
                yield b"".join(records)
            if self._closed and not self._records:
                return
            if not self._records:
                self._wake.clear()
                await self._wake.wait()
