"""Lines of one client: too long ones and malformed ones, each answered where the request can be told.

aiokatcp discards both with a ``#log`` inform, after which the client waits for its reply for ever, and writes
each of them to the log, so that a client that sends nonsense fills it and holds the event loop up.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import aiokatcp
import katcp_codec
from aiokatcp.server import ClientConnection

logger = logging.getLogger(__name__)

READ_BUFFER: Final = 16 << 10
"""Bytes that are read at once: what one client can have the event loop do before the others' turn."""
TOLD: Final = 5
"""Malformed lines of a client that are told one by one, to it and to the log; the others are counted."""
PERIOD: Final = 60.0
"""Seconds between two counts of malformed lines in the log."""
_HEAD: Final = 256
"""Bytes of an unfinished line that are kept for the name and the message id of a request."""
_MAX_MID: Final = 2**31 - 1
_REQUEST: Final = re.compile(rb"\?([A-Za-z][A-Za-z0-9-]*)(?:\[([1-9][0-9]{0,9})\])?(?=[ \t\r\n])")

Parsed = katcp_codec.Message | ValueError
Refused = Callable[[str], None]
"""Takes the name of a request whose line could not be read."""


class ClientLines:
    """What aiokatcp has a connection parse with; nothing malformed comes out of it.

    A line that grows beyond the limit is let go at once, and not read when it ends.

    Parameters
    ----------
    conn
        The client's connection, which is told.
    limit
        Longest line [bytes].
    refused
        Is told of each request that was answered here.
    clock
        Seconds, for the period in which malformed lines are counted.
    """

    def __init__(
        self,
        conn: ClientConnection,
        limit: int,
        refused: Refused,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conn = conn
        self._limit = limit
        self._refused = refused
        self._clock = clock
        self._parser = katcp_codec.Parser(limit)
        self._head = b""
        self._skipping = False
        self._malformed = 0
        self._counted = TOLD
        self._next_count = 0.0

    @property
    def buffer_size(self) -> int:
        """Bytes of the line that has begun and not ended."""
        return self._parser.buffer_size

    def append(self, data: bytes | memoryview) -> list[katcp_codec.Message]:
        """Take what was read; return the messages that are complete."""
        messages: list[katcp_codec.Message] = []
        for piece in bytes(data).splitlines(keepends=True):
            messages.extend(self._taken(piece))
        return messages

    def count_malformed(self, at_end: bool = False) -> None:
        """Log how many malformed lines there were beyond those told: once in a period, and at the end."""
        more = self._malformed - self._counted
        if more <= 0 or not (at_end or self._clock() >= self._next_count):
            return
        self._next_count = self._clock() + PERIOD
        self._counted = self._malformed
        logger.warning("%d more malformed lines of the client at %s", more, self._conn.address)

    def _taken(self, piece: bytes) -> Iterable[katcp_codec.Message]:
        """Take a line, or what there is of it."""
        ends = piece.endswith((b"\n", b"\r"))
        if self._skipping:
            self._skipping = not ends
            return ()
        head = self._head
        if len(head) < _HEAD:
            head += piece[: _HEAD - len(head)]
        self._head = b"" if ends else head
        if self._parser.buffer_size + len(piece) > self._limit:
            self._parser.reset()
            self._head, self._skipping = b"", not ends
            self._refuse(
                head, f"the line is longer than {self._limit} bytes, the most that is read"
            )
            return ()
        return self._well_formed(self._parser.append(piece), head)

    def _well_formed(self, parsed: Iterable[Parsed], head: bytes) -> Iterable[katcp_codec.Message]:
        for message in parsed:
            if isinstance(message, ValueError):
                self._refuse(head, f"the line cannot be read: {message}")
            else:
                yield message

    def _refuse(self, head: bytes, problem: str) -> None:
        """Answer the request that the line was, or tell that it was none."""
        self._malformed += 1
        told = self._malformed <= TOLD
        if told:
            logger.warning("of the client at %s: %s", self._conn.address, problem)
        request = _REQUEST.match(head)
        if request is not None and int(request[2] or 1) <= _MAX_MID:
            self._answer(request[1].decode("ascii"), request[2], problem)
        elif told:
            inform = aiokatcp.Message.inform("log", "error", time.time(), __name__, problem)
            self._conn.write_message(inform)

    def _answer(self, name: str, mid: bytes | None, problem: str) -> None:
        text = f"{problem}; nothing was done"
        reply: Any = aiokatcp.Message.reply(
            name, aiokatcp.Message.FAIL, text, mid=None if mid is None else int(mid)
        )
        self._conn.write_message(reply)
        self._refused(name)


def read_by_lines(conn: ClientConnection, lines: ClientLines) -> None:
    """Have a connection that was just made parse so, and read little at once."""
    # aiokatcp has no other way to either.
    unsealed: Any = conn
    unsealed._parser = lines  # noqa: SLF001
    unsealed._buffer = memoryview(bytearray(READ_BUFFER))  # noqa: SLF001
