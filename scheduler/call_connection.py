"""The connection on which calls to Mesos are made: kept open between calls, bounded in time and in what comes.

For one thread. No call is ever repeated: the second of two equal ACCEPTs would do harm.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

from scheduler.pymesos_connection import MAX_REFUSAL

KEEP_ALIVE: Final = 2.0
"""Seconds for which an idle connection is trusted to be still open."""


class CallConnection:
    """Sends requests to whoever leads.

    Parameters
    ----------
    seconds
        How long one request may take on its way there, and as much again on its way back.
    tls
        Checks the master's certificate; None: it speaks plain HTTP.
    """

    def __init__(self, seconds: float, tls: ssl.SSLContext | None) -> None:
        self._seconds = seconds
        self._tls = tls
        self._connection: http.client.HTTPConnection | None = None
        self._master = ""
        self._used_at = 0.0

    def exchange(
        self, master: str, method: str, path: str, data: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str]:
        """Send one request; return status and text of the answer, of which no more than is of use.

        Raises
        ------
        OSError, http.client.HTTPException
            If there is no answer, or not in time.
        """
        connection = self._connection_to(master)
        try:
            connection.request(method, path, body=data, headers=dict(headers))
            until = time.monotonic() + self._seconds
            connection.response_class = functools.partial(_Response, until=until)  # type: ignore[assignment]
            with connection.getresponse() as response:
                text = response.read(MAX_REFUSAL).decode(errors="replace")
                if not response.isclosed():  # there is more of it
                    self.close()
        except BaseException:
            self.close()
            raise
        self._used_at = time.monotonic()
        return response.status, text

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _connection_to(self, master: str) -> http.client.HTTPConnection:
        """Return the kept connection, or a new one if the other side may have closed it."""
        idle = time.monotonic() - self._used_at
        if master != self._master or idle > KEEP_ALIVE:
            self.close()
        if self._connection is None:
            host, _, port = master.rpartition(":")
            self._connection, self._master = self._open(host, int(port)), master
        elif self._connection.sock is not None:
            self._connection.sock.settimeout(self._seconds)
        return self._connection

    def _open(self, host: str, port: int) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._seconds)
        return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=self._tls)


class _Response(http.client.HTTPResponse):
    """An answer that must have come by a time, however small the pieces in which it comes."""

    def __init__(self, sock: socket.socket, *args: Any, until: float, **settings: Any) -> None:
        super().__init__(_Source(sock, until), *args, **settings)  # type: ignore[arg-type]


class _Source:
    """As much of a socket as an answer wants."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_InTime(self._sock, self._until))


class _InTime(io.RawIOBase):
    """Reads from a socket until a time."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        super().__init__()
        self._sock, self._until = sock, until
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open as long as it is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(max(0.001, self._until - time.monotonic()))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
