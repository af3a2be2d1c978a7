"""pymesos' scheduler driver, mended: the private half of :mod:`scheduler.framework`.

pymesos 0.3.15 speaks the protocol; its habits around it break promises of this system. Each mend
names what it replaces (found by reading pymesos and by recording it against a real master):

* ``import pymesos`` replaces the SIGINT handler, which only the main thread may do, and adds a log handler.
  Here it does neither.
* An exception in a callback ends the thread with a TEARDOWN and a ``KeyboardInterrupt`` in the main thread; so
  does an answer to SUBSCRIBE other than 200, 307, 503. Here the connection is made anew, after a back-off.
* 503, and an ERROR that ends the stream, are retried without pause. Here every reconnection backs off.
* ``stop()`` tears the framework down. Here only :meth:`MendedDriver.send_teardown` does.
* Whatever has come of an event is copied at every 4 KiB of it. Here a buffer grows.
* Heartbeats are not supervised. Here a silent connection is closed.
* Calls hold the driver's lock for as long as the HTTP request lasts, with a time-out of one day, and the other
  thread closes their connection under their feet. Here there is no lock around them, the time-out is short, and
  the connection belongs to the thread of the calls.
* ``reconcileTasks`` drops the agent ids. Here they are sent.
* It speaks plain HTTP only. Here both of its connections can be over TLS.

The connection of the events is in :mod:`scheduler.pymesos_connection`.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import logging
import os
import random
import select
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from scheduler.errors import FrameworkError
from scheduler.pymesos_connection import MAX_REFUSAL, Connection, process, pymesos

logger = logging.getLogger(__name__)

HTTP_TIMEOUT: Final = 10.0
"""Seconds for one call, and for the answer to SUBSCRIBE."""
MISSED_HEARTBEATS: Final = 5
"""After as many the link counts as dead: 75 s at Mesos' defaults."""
BACK_OFF_FIRST: Final = 0.5
BACK_OFF_MAX: Final = 15.0
KEEP_ALIVE: Final = 2.0
"""Seconds for which an idle connection is trusted to be still open."""
FREE_REDIRECTIONS: Final = 3
FATAL_ERRORS: Final = ("Framework has been removed", "Framework failed over")
"""ERROR events after which another SUBSCRIBE would only do harm: it never succeeds, or starts a fight."""


def written(call: Mapping[str, Any]) -> bytes:
    """Write a call as JSON. A launch has megabytes of it, which :mod:`json` needs eight times as long for."""
    return orjson.dumps(call)


def part(message: Mapping[str, Any]) -> orjson.Fragment:
    """Write a part of a call beforehand; in a call it stands for the message.

    A ``TaskInfo`` is some seventy containers, three times as large as its text. Hundreds of them at a time are
    more than a processor's cache holds: to make them and to write each at once takes a third less time.
    """
    return orjson.Fragment(orjson.dumps(message))


class CallRefused(FrameworkError):
    """The master answered a call with an error status: the call was not taken."""


class CallUncertain(FrameworkError):
    """No answer to a call came: it may have been taken."""


class DriverListener(Protocol):
    """What the driver's own thread tells; must return quickly and raise nothing."""

    def event(self, kind: str, body: Mapping[str, Any]) -> None:
        """Mesos sent an event; `kind` is its lower-case type."""

    def closed(self, reason: str) -> None:
        """The connection is closed, or could not be made; another try follows."""


class MendedDriver(pymesos.MesosSchedulerDriver):
    """One subscription to Mesos at a time, kept up until :meth:`stop`.

    Parameters
    ----------
    listener
        Is told of events, on the driver's thread.
    framework
        ``FrameworkInfo``, with the id if there is one.
    master
        ``host:port`` or ``zk://…``.
    tls
        Checks the masters' certificates, which must be for the names (or addresses) that they are reached
        by; None: they speak plain HTTP.
    """

    def __init__(
        self,
        listener: DriverListener,
        framework: dict[str, Any],
        master: str,
        *,
        principal: str | None = None,
        secret: str | None = None,
        tls: ssl.SSLContext | None = None,
        http_timeout: float = HTTP_TIMEOUT,
        missed_heartbeats: float = MISSED_HEARTBEATS,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # pymesos has no types
            _NoCallbacks(),
            framework,
            master,
            implicit_acknowledgements=False,
            principal=principal,
            secret=secret,
            failover=True,
            timeout=http_timeout,
        )
        self._listener = listener
        self._tls = tls
        self._missed_heartbeats = missed_heartbeats
        self._silence_limit = http_timeout
        self._failures = 0
        self._reason = ""
        self._sends = 0
        self._calls: http.client.HTTPConnection | None = None
        """Touched by the thread of the calls only."""
        self._call_master = ""
        self._call_used = 0.0
        if "://" not in master:  # else a detector tells
            self._new_master = master if ":" in master else f"{master}:5050"

    # ------------------------------------------------------------------ the connection's thread

    def _run(self) -> None:
        """Keep a subscription up; takes the place of pymesos' loop."""
        try:
            while not self.aborted:
                self._reason = "the connection was closed"
                try:
                    if self._take_master():
                        self._serve_connection()
                except Exception as exc:  # whatever it is, the next try may go better
                    logger.debug("connection to Mesos failed", exc_info=True)
                    self._reason = str(exc) or repr(exc)
                self.stream_id = None
                if not self.aborted:
                    self._listener.closed(self._reason)
                    self._pause()
        finally:
            with self._lock:
                for fd in self._wakeup_fds or ():
                    os.close(fd)
                self._wakeup_fds = None

    def _take_master(self) -> bool:
        with self._lock:
            self._master = self._new_master
        if not self._master:
            self._reason = "no leading Mesos master is known"
        return bool(self._master)

    def _serve_connection(self) -> None:
        self._silence_limit = self._timeout
        connection: Any = Connection(str(self._master), self, self._tls)
        try:
            heard = time.monotonic()
            while not self.aborted and self._master == self._new_master:
                left = heard + self._silence_limit - time.monotonic()
                # Who was held up himself looks once more: it may all be there.
                readable, writable = self._select(connection, max(0.0, left))
                if readable or writable:
                    self._require_connected(connection)
                elif left <= 0:
                    raise FrameworkError(f"nothing was heard for {self._silence_limit:.0f} s")
                if writable and not connection.write():
                    return
                if readable:
                    heard = time.monotonic()
                    if not connection.read():
                        return
        finally:
            connection.close()

    def _require_connected(self, connection: Any) -> None:
        if not connection.connected and (error := connection.handle_connect_event()):
            raise ConnectionError(f"cannot connect to {self._master}: {error}")

    def _select(self, connection: Any, left: float) -> tuple[bool, bool]:
        wakeup = self._wakeup()
        fd = connection.fileno()
        waiting = not connection.connected or connection.want_write()
        readers, writers, _ = select.select([wakeup, fd], [fd] if waiting else [], [], left)
        if wakeup in readers:
            os.read(wakeup, process.PIPE_BUF)
        return fd in readers, bool(writers)

    def _pause(self) -> None:
        """Back off before the next connection; the first redirections cost nothing."""
        limit = min(BACK_OFF_MAX, BACK_OFF_FIRST * 2 ** min(self._failures, 10))
        self._failures += 1
        end = time.monotonic() + limit * random.uniform(0.5, 1.0)  # noqa: S311 - spreads only
        while not self.aborted and (left := end - time.monotonic()) > 0:
            if self._failures <= FREE_REDIRECTIONS and self._master != self._new_master:
                return
            if select.select([self._wakeup()], [], [], left)[0]:
                os.read(self._wakeup(), process.PIPE_BUF)

    def _wakeup(self) -> int:
        fds: Any = self._wakeup_fds  # not None while the thread runs
        return int(fds[0])

    def process_event(self, event: Mapping[str, Any]) -> None:
        """Take one event; malformed ones are reported, and end nothing."""
        kind = str(event.get("type", "")).lower() if isinstance(event, dict) else ""
        body = event.get(kind, {}) if kind else {}
        if not kind or not isinstance(body, dict):
            logger.warning("Mesos sent what is no event: %.300s", event)
            return
        if kind == "subscribed":
            self._on_subscribed(body)
        elif kind == "error":
            self._reason = f"Mesos says: {body.get('message', '')}"
            if str(body.get("message", "")).startswith(FATAL_ERRORS):
                self.stop()
        self._listener.event(kind, body)

    def _on_subscribed(self, body: Mapping[str, Any]) -> None:
        self.framework_id = body["framework_id"]["value"]
        interval = float(body.get("heartbeat_interval_seconds", 15.0))
        self._silence_limit = max(0.05, min(interval, 3600.0)) * self._missed_heartbeats
        self._failures = 0

    def on_close(self) -> None:
        """Tell nobody yet: :meth:`_run` does, and once per connection."""

    # ------------------------------------------------------------------ the life of the driver

    def _get_version(self, master: str | None) -> None:
        """Ask nothing before subscribing: SUBSCRIBED tells the version (pymesos blocks here)."""

    def _shutdown(self) -> None:
        """Never tear down by the way."""

    def stop(self, failover: bool = True) -> None:
        """End the connection; tasks run on. pymesos' `failover` means nothing here."""
        super().stop(failover=True)  # type: ignore[no-untyped-call]  # pymesos has no types

    # ------------------------------------------------------------------ calls

    def make(self, call: Callable[[], object]) -> None:
        """Make a call of this driver: pymesos' own methods return silently where there is no link.

        Raises
        ------
        CallRefused
            If nothing was sent, or the master answered with an error status.
        CallUncertain
            If no answer came.
        """
        before = self._sends
        call()
        if self._sends == before:
            raise CallRefused("there is no subscription")

    def _send(
        self,
        body: Mapping[str, Any],
        path: str = "/api/v1/scheduler",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make one call. For one thread only.

        Raises
        ------
        CallRefused
            If the master answered with an error status.
        CallUncertain
            If no answer came.
        """
        stream_id, master = self.stream_id, self._master
        if stream_id is None or not master:
            raise CallRefused("there is no subscription")
        head = {"Content-Type": "application/json", "Mesos-Stream-Id": stream_id, **(headers or {})}
        if self._basic_credential:
            head["Authorization"] = self._basic_credential
        self._sends += 1
        status, text = self._exchange(master, method, path, written(body), head)
        if not 200 <= status < 300:
            raise CallRefused(f"{body.get('type')} was refused with {status}: {text}")
        return {}

    def _exchange(
        self, master: str, method: str, path: str, data: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str]:
        """Send one request. It is never repeated: the second of two equal ACCEPTs would do harm."""
        connection = self._call_connection(master)
        try:
            connection.request(method, path, body=data, headers=dict(headers))
            response = connection.getresponse()
            text = response.read().decode(errors="replace")[:MAX_REFUSAL]
        except (OSError, http.client.HTTPException) as exc:
            self._drop_call_connection()
            raise CallUncertain(f"no answer from {master}: {exc!r}") from exc
        self._call_used = time.monotonic()
        return response.status, text

    def _call_connection(self, master: str) -> http.client.HTTPConnection:
        """Return the kept connection, or a new one if the other side may have closed it."""
        idle = time.monotonic() - self._call_used
        if master != self._call_master or idle > KEEP_ALIVE:
            self._drop_call_connection()
        if self._calls is None:
            host, _, port = master.rpartition(":")
            self._calls = self._open_calls(host, int(port))
            self._call_master = master
        return self._calls

    def _open_calls(self, host: str, port: int) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls)

    def _drop_call_connection(self) -> None:
        connection, self._calls = self._calls, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _close(self) -> None:
        """Leave the connection of the calls alone: pymesos closes it from the other thread."""

    def reconcileTasks(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Ask for the state of tasks, with their agents: without, an unreachable one is unknown."""
        entries = [
            {key: task[key] for key in ("task_id", "agent_id") if key in task} for task in tasks
        ]
        self._send(
            {
                "type": "RECONCILE",
                "framework_id": {"value": self.framework_id},
                "reconcile": {"tasks": entries},
            }
        )

    def kill_at_once(self, task_id: Mapping[str, str]) -> None:
        """Kill a task without a time of grace, whatever it was launched with; pymesos cannot say that."""
        policy = {"grace_period": {"nanoseconds": 0}}
        self._send(
            {
                "type": "KILL",
                "framework_id": {"value": self.framework_id},
                "kill": {"task_id": task_id, "kill_policy": policy},
            }
        )

    def answer_inverse_offers(
        self, offer_ids: Sequence[Mapping[str, str]], filters: Mapping[str, Any], *, accept: bool
    ) -> None:
        """Say whether we leave agents before their maintenance; pymesos wraps the ids twice."""
        kind = "accept_inverse_offers" if accept else "decline_inverse_offers"
        self._send(
            {
                "type": kind.upper(),
                "framework_id": {"value": self.framework_id},
                kind: {"inverse_offer_ids": list(offer_ids), "filters": dict(filters)},
            }
        )

    def close_calls(self) -> None:
        """Close the connection of the calls; by their thread, at its end."""
        self._drop_call_connection()

    def send_teardown(self) -> None:
        """Remove the framework from Mesos and kill all its tasks; only when somebody said so."""
        self._send({"type": "TEARDOWN", "framework_id": {"value": self.framework_id}})


class _NoCallbacks(pymesos.Scheduler):
    """pymesos wants a scheduler to call back; events go to the listener instead."""
