"""The connection on which Mesos sends its events: pymesos' own, mended; see :mod:`scheduler.pymesos_driver`."""

from __future__ import annotations

import contextlib
import http
import logging
import re
import signal
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import orjson

from scheduler.errors import FrameworkError


@contextlib.contextmanager
def _no_signal_handlers() -> Iterator[None]:
    """Let nobody set a signal handler; in any thread but the main one it would raise."""
    setter, signal.signal = signal.signal, lambda *_: None
    try:
        yield
    finally:
        signal.signal = setter


with _no_signal_handlers():
    import pymesos as pymesos  # also for the driver: nobody may import it before this
    from pymesos import process as process

logging.getLogger("pymesos").removeHandler(pymesos.handler)

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds that a master may take over TLS' handshake; the connection's thread does nothing else meanwhile."""
MAX_RECORD: Final = 256 * 2**20
"""Bytes that one event may have (10 000 offers have about 30 MB)."""
MAX_REFUSAL: Final = 2000
MAX_HEAD: Final = 64 * 1024
"""Bytes that the head of the answer to SUBSCRIBE may have."""
MESOS_PORT: Final = 5050
READ_SIZE: Final = 64 * 1024
MAX_LENGTH_DIGITS: Final = 20
_RECORD: Final = re.compile(rb"([0-9]{1,20})\n")


class Driver(Protocol):
    """Whom a connection tells."""

    stream_id: str | None

    def gen_request(self) -> bytes:
        """Return the request for the events."""

    def redirected(self, leader: str) -> None:
        """The master says that another one leads."""

    def process_event(self, event: Mapping[str, Any]) -> None:
        """Take an event."""

    def on_close(self) -> None:
        """The connection is closed."""


class Connection(process.Connection):
    """A connection that takes large events: pymesos copies all that came of one at every piece of it.

    An event may have no more than `MAX_RECORD` bytes.
    """

    _parser: Any

    def __init__(self, master: str, driver: Driver, tls: ssl.SSLContext | None) -> None:
        try:
            super().__init__(master, driver)  # type: ignore[no-untyped-call]  # pymesos has no types
        except BaseException:  # it leaves its socket open
            if (sock := getattr(self, "_sock", None)) is not None:
                sock.close()
            raise
        self._tls = tls
        self._come = bytearray()
        self._said = b""
        """What came with a refusal."""
        self._head_size = 0

    def handle_connect_event(self) -> str:
        """Note that the connection is made, over TLS with a handshake; return what was wrong.

        Raises
        ------
        FrameworkError
            If the other side does not prove to be who it should be, or speaks no TLS.
        """
        error = str(super().handle_connect_event())  # type: ignore[no-untyped-call]
        if not error and self._tls is not None:
            self._sock = _encrypted(self._sock, self._addr, self._tls)
        return error

    def write(self) -> bool:
        """Send what can be sent; pymesos ends the connection where TLS only asks for patience."""
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = self._sock.send(self._request)
            self._request = self._request[sent:]
        return True

    def read(self) -> bool:
        """Take what has come; False at the end of the connection."""
        try:
            # A record of TLS is no larger: nothing is left where select() does not see it.
            data = self._sock.recv(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        if not data:
            self._require_no_refusal()
            return False
        if self._parser.execute(data, len(data)) != len(data):
            raise FrameworkError("the master does not speak HTTP")
        if self._stream_id is None and not self._opened(len(data)):
            return True
        if self._parser.is_partial_body():
            self._come += self._parser.recv_body()
            for record in self._records():
                self._callback.process_event(orjson.loads(record))
        return not self._parser.is_message_complete()

    def _opened(self, came: int) -> bool:
        """Look at the head of the answer, of which some more has come; False while there is none, or a refusal.

        Raises
        ------
        FrameworkError
            If another master, or this one later, must be asked.
        """
        if not self._parser.is_headers_complete():
            self._head_size += came
            if self._head_size > MAX_HEAD:
                raise FrameworkError("the master's answer has no end of its head")
            return False
        head = {name.upper(): value for name, value in self._parser.get_headers().items()}
        status = self._parser.get_status_code()
        if status == http.HTTPStatus.TEMPORARY_REDIRECT:
            leader = leader_of(head.get("LOCATION", ""))
            self._callback.redirected(leader)
            raise FrameworkError(f"the master says that {leader} leads")
        if status != http.HTTPStatus.OK:
            self._said = (self._said + self._parser.recv_body())[:MAX_REFUSAL]
            if self._parser.is_message_complete() or len(self._said) == MAX_REFUSAL:
                self._require_no_refusal()
            return False
        self._stream_id = head.get("MESOS-STREAM-ID", "")
        self._callback.stream_id = self._stream_id
        return True

    def _require_no_refusal(self) -> None:
        if self._stream_id is None and self._parser.is_headers_complete():
            said, status = self._said.decode(errors="replace"), self._parser.get_status_code()
            raise FrameworkError(
                f"SUBSCRIBE was refused with {status}: {said or 'no reason given'}"
            )

    def _records(self) -> Iterator[bytearray]:
        """Take the complete events out of what has come: length in decimal, line feed, JSON (RecordIO)."""
        while match := _RECORD.match(self._come):
            begin, length = match.end(), int(match[1])
            del match  # holds the buffer
            if length > MAX_RECORD:
                raise FrameworkError(f"an event has more than {MAX_RECORD} bytes")
            if len(self._come) < begin + length:
                return
            record = self._come[begin : begin + length]
            del self._come[: begin + length]
            yield record
        if len(self._come) > MAX_LENGTH_DIGITS:
            raise FrameworkError("the master does not send events")


def leader_of(location: str) -> str:
    """Return ``HOST:PORT`` of the master that a redirection names; Mesos leaves the scheme out.

    Raises
    ------
    FrameworkError
        If it names none.
    """
    try:
        to = urlsplit(location if "//" in location else f"//{location}")
        host, port = to.hostname, to.port or MESOS_PORT
    except ValueError:
        host, port = None, 0
    if not host or ":" in host:  # pymesos knows no addresses of IPv6
        raise FrameworkError(f"the master says that another one leads, at {location[:100]!r}")
    return f"{host}:{port}"


def _encrypted(
    sock: socket.socket, address: tuple[str, int], context: ssl.SSLContext
) -> ssl.SSLSocket:
    sock.settimeout(HANDSHAKE_TIMEOUT)
    try:
        encrypted = context.wrap_socket(sock, server_hostname=address[0])
    except OSError as exc:  # of ssl, too
        raise FrameworkError("no TLS with {}:{}: {}".format(*address, exc)) from exc
    encrypted.setblocking(False)
    return encrypted
