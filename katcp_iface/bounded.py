"""A KATCP server that no single client can wear out, and that answers failures in one line.

aiokatcp bounds the requests in progress of *all* clients together, so that one client could take all places.
Here each client has its own bound, and beyond it its socket is not read until one of its requests is answered.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import re
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiokatcp
from aiokatcp.server import ClientConnection, RequestContext

from katcp_iface.clients import WatchingClient
from katcp_iface.lines import ClientLines, read_by_lines
from sdpcontroller.config.document import MAX_BYTES
from sdpcontroller.control import Command, ControlPlane
from sdpcontroller.errors import ControllerError

logger = logging.getLogger(__name__)
R = TypeVar("R")

PROTOCOL: Final = "5.1-MIBT"
"""Version and flags of KATCP: several clients, message ids, bulk sampling of sensors, hints of timeouts."""
MAX_LINE: Final = 2 * MAX_BYTES + 4096
"""Longest request [bytes]: the largest configuration, every byte of it escaped."""
MAX_BACKLOG: Final = 8 << 20
"""Bytes of informs that wait for a client that does not read; beyond, it is cut off."""
MAX_FAILURE: Final = 16 << 10
"""Characters of a failure; explanations of a graph that does not fit have some thousands."""
_ODD_ARGUMENTS: Final = (
    (
        r"(?:invalid literal for int\(\) with base 10: b|could not convert string to float: b?)('.*')",
        r"\1 is no number: one was expected",
    ),
    (r"boolean must be 0 or 1, not b('.*')", r"\1 is neither 0 nor 1: one of them was expected"),
    (r"b('.*') is not a valid value for (\w+)", r"\1 is no \2"),
    (
        r"'utf-8' codec can't decode byte (\w+) in position (\d+).*",
        r"byte \2 of an argument, \1, is no UTF-8",
    ),
)
"""What Python and aiokatcp say of arguments, and what clients are told."""

Observed = Callable[[str, str, float], None]
"""Takes the name of a request, its outcome (ok, refused, failed or abandoned) and the seconds it took."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may use."""

    clients: int = 64
    """Connections at once; each has a read buffer of 16 KiB, and the beginning of a line."""
    requests: int = 32
    """Requests of one client in progress; its further ones are read when there is room."""
    line: int = MAX_LINE
    """Longest request [bytes], its end included; a longer one is discarded, and fails."""
    backlog: int = MAX_BACKLOG


@dataclass(slots=True)
class _Lane:
    """Requests of one client."""

    lines: ClientLines
    active: int = 0
    waiting: deque[aiokatcp.Message] = field(default_factory=deque)
    """Read along with the last one that was let through: at most one read buffer full."""
    readings: float = 0.0
    """At most so many readings of sensors a second are sent to it by the clock."""


class BoundedServer(aiokatcp.DeviceServer):
    """A device server on a control plane, with bounds per client and one-line failures.

    A client that vanishes leaves its requests running: whether a product was wanted does not depend on the
    link, and a client that comes back asks the same again.
    """

    VERSION = "sdp-controller-1.0"
    BUILD_STATE = "sdp-controller-1.0"

    def __init__(
        self,
        control: ControlPlane,
        host: str,
        port: int,
        limits: Limits,
        observed: Observed | None = None,
    ) -> None:
        super().__init__(
            host,
            port,
            limit=limits.line,
            max_backlog=limits.backlog,
            max_pending=limits.clients * limits.requests + 1,
        )
        self.control = control
        self._limits = limits
        self._observed = observed or (lambda request, outcome, seconds: None)
        self._lanes: dict[ClientConnection, _Lane] = {}
        for handler in self._request_handlers.values():
            # aiokatcp answers ?help with the docstring as it stands in the source, indentation and all.
            handler.__doc__ = inspect.cleandoc(handler.__doc__ or "")

    async def execute(self, command: Command[R]) -> R:
        """Have the control plane do a command."""
        return await self.control.execute(command)

    async def request_halt(self, ctx: RequestContext) -> None:
        """Refused: the controller is not stopped over KATCP.

        KATCP has this request for devices that are a program. Here a client would only take the interface
        away from all others. Stop the controller where it was started.
        """
        raise aiokatcp.FailReply(
            "the controller is not stopped over KATCP; stop it where it was started"
        )

    def send_version_info(self, ctx: RequestContext, *, send_reply: bool = True) -> None:
        """Send what this is and what it speaks; aiokatcp does not know of hints of timeouts."""
        minor = aiokatcp.minor_version()  # type: ignore[no-untyped-call]
        library = (f"aiokatcp-{minor}", f"aiokatcp-{aiokatcp.__version__}")
        ctx.informs(
            [
                ("katcp-protocol", PROTOCOL),
                ("katcp-library", *library),
                ("katcp-device", self.VERSION, self.BUILD_STATE),
            ],
            send_reply=send_reply,
        )

    def cut_off_slow(self) -> None:
        """Cut off the clients that let more than the backlog wait.

        aiokatcp looks at the backlog when it sends informs to all, but not when replies are written.
        """
        for conn in list(self._lanes):
            self.cut_off_if_slow(conn)

    def cut_off_if_slow(self, conn: ClientConnection) -> None:
        """Cut one client off, if it lets more than the backlog wait."""
        if conn.get_write_buffer_size() > self._limits.backlog:
            logger.warning("cut off the client at %s: it does not read", conn.address)
            conn.abort()

    def count_malformed(self) -> None:
        """Log how many malformed lines clients have sent, where there is more to say than was said."""
        for lane in self._lanes.values():
            lane.lines.count_malformed()

    def abort_clients(self) -> None:
        """Close all connections at once, whatever is left to send."""
        for conn in list(self._lanes):
            conn.abort()

    # What follows overrides methods that aiokatcp calls itself; they are the only places where all
    # requests and connections pass.

    async def _handle_request(self, ctx: RequestContext) -> None:
        begun, outcome = time.monotonic(), "abandoned"
        try:
            # A client that sends but does not read: its further requests wait until it has read the replies.
            await ctx.drain()
            await super()._handle_request(ctx)
            outcome = "ok"
        except (aiokatcp.FailReply, aiokatcp.InvalidReply) as error:
            outcome = "refused"
            raise type(error)(_bounded(_plain(str(error)))) from error
        except ControllerError as error:
            outcome = "refused"
            raise aiokatcp.FailReply(_bounded(str(error))) from error
        except Exception:
            outcome = "failed"
            logger.exception("request %s of %s failed", ctx.req.name, ctx.conn.address)
            raise aiokatcp.FailReply(
                f"{ctx.req.name} failed by a fault of the controller, which its log describes"
            ) from None
        finally:
            self._observed(self._known(ctx.req.name), outcome, time.monotonic() - begun)
            self._request_done(ctx.conn)

    def handle_message(self, conn: ClientConnection, msg: aiokatcp.Message) -> None:
        """Take a request, or keep it until the client has room for it."""
        lane = self._lanes.get(conn)
        if lane is None or msg.mtype is not aiokatcp.Message.Type.REQUEST:
            return
        if lane.active >= self._limits.requests:
            lane.waiting.append(msg)
            conn.pause_reading()
            return
        self._begin(conn, lane, msg)

    def _begin(self, conn: ClientConnection, lane: _Lane, msg: aiokatcp.Message) -> None:
        lane.active += 1
        super().handle_message(conn, msg)

    def _request_done(self, conn: ClientConnection) -> None:
        lane = self._lanes.get(conn)
        if lane is None:
            return  # the client has gone
        lane.active -= 1
        if lane.waiting:
            self._begin(conn, lane, lane.waiting.popleft())
        elif not conn.is_closing():
            conn.resume_reading()

    def _connection_made(self, conn: ClientConnection) -> None:
        if len(self._lanes) >= self._limits.clients:
            logger.warning("refused a client at %s: there are %d", conn.address, len(self._lanes))
            conn.write_message(aiokatcp.Message.inform("disconnect", "too many clients"))
            conn.close()
            return
        WatchingClient.adopt(conn)
        _keep_alive(conn)
        lines = ClientLines(conn, self._limits.line, self._unreadable)
        read_by_lines(conn, lines)
        self._lanes[conn] = _Lane(lines)
        super()._connection_made(conn)

    def knows(self, request: str) -> bool:
        """Whether there is a request of that name."""
        return request in self._request_handlers

    def _known(self, request: str) -> str:
        """Return a name for figures: clients can make up as many as they like."""
        return request if self.knows(request) else "unknown"

    def _unreadable(self, request: str) -> None:
        self._observed(self._known(request), "refused", 0.0)

    def _connection_lost(self, conn: ClientConnection, exc: Exception | None) -> None:
        lane = self._lanes.pop(conn, None)
        if lane is not None:
            lane.lines.count_malformed(at_end=True)
        super()._connection_lost(conn, exc)


def _plain(text: str) -> str:
    """Say in a client's words what Python says of an argument."""
    for said, told in _ODD_ARGUMENTS:
        found = re.fullmatch(said, text, re.DOTALL)
        if found is not None:
            return found.expand(told)
    return text


def _bounded(text: str) -> str:
    """Make one line of a failure; what a client has said it need not hear again at any length."""
    line = one_line(text)
    return line if len(line) <= MAX_FAILURE else f"{line[:MAX_FAILURE]}…"


def one_line(text: str) -> str:
    """Join the lines of a message; those that end with a full stop or a colon need no semicolon."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ends = [" " if line.endswith((".", ":")) else "; " for line in lines]
    return "".join(itertools.chain(*zip(lines, ends, strict=True))).rstrip("; ")


def _keep_alive(conn: ClientConnection) -> None:
    """Have the kernel find out that the other end is gone, within two minutes."""
    transport: Any = conn._transport  # noqa: SLF001  # aiokatcp has no other way to the socket
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
