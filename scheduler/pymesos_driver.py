"""pymesos' scheduler driver, mended: the private half of :mod:`scheduler.framework`.

pymesos 0.3.15 speaks the protocol; its habits around it break promises of this system. Each mend
names what it replaces (found by reading pymesos and by recording it against a real master):

* ``import pymesos`` replaces the SIGINT handler, which only the main thread may do, and adds a log handler.
  Here it does neither.
* An exception in a callback ends the thread with a TEARDOWN and a ``KeyboardInterrupt`` in the main thread; so
  does an answer to SUBSCRIBE other than 200, 307, 503. Here the connection is made anew, after a back-off.
* 503, and an ERROR that ends the stream, are retried without pause. Here every reconnection backs off.
* A master that another one named is asked for ever, though it may be dead. Here it and the one that is
  configured are asked in turn.
* ``select()`` ends the thread once the process has a thousand open files. Here it polls.
* ``zk://…`` needs ZooKeeper at the start, and masters that have registered before. Here it needs neither
  (:mod:`scheduler.detector`).
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

import http
import http.client
import logging
import math
import os
import random
import select
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from scheduler.agents import basic
from scheduler.call_connection import CallConnection
from scheduler.detector import Detector
from scheduler.errors import FrameworkError
from scheduler.pymesos_connection import MESOS_PORT, Connection, process, pymesos

logger = logging.getLogger(__name__)

HTTP_TIMEOUT: Final = 10.0
"""Seconds for one call, and for the answer to SUBSCRIBE."""
MISSED_HEARTBEATS: Final = 5
"""After as many the link counts as dead: 75 s at Mesos' defaults."""
BACK_OFF_FIRST: Final = 0.5
BACK_OFF_MAX: Final = 15.0
FREE_REDIRECTIONS: Final = 3
UNANSWERED_CALLS: Final = 3
"""After as many calls in a row without an answer the link counts as dead, whatever its events say."""


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

    def may_subscribe(self) -> bool:
        """Whether it is for us to subscribe now."""

    @property
    def over(self) -> bool:
        """Whether it is not for us any more, for good."""


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
            failover=True,
            timeout=http_timeout,
        )
        if credential := basic(principal, secret):  # pymesos' own takes ASCII only
            self._basic_credential = credential
        self._listener = listener
        self._tls = tls
        self._missed_heartbeats = missed_heartbeats
        self._silence_limit = http_timeout
        self._failures = 0
        self._reason = ""
        self._configured: str | None = None
        """Who leads by what we are told from elsewhere."""
        self._leader: str | None = None
        """Who has taken us last."""
        self._subscribed_at: float | None = None
        """Since when this connection has a subscription."""
        self._sends = 0
        self._unanswered = 0
        """Calls without an answer, one after the other."""
        self._calls = CallConnection(http_timeout, tls)
        """Touched by the thread of the calls only."""
        self._detector: Detector | None = None
        """Tells who leads, where ZooKeeper says it."""
        kind, _, where = master.rpartition("://")
        if kind not in ("", "zk"):
            raise FrameworkError(f"{master[:100]!r} is no Mesos master: HOST:PORT or zk://… is")
        if kind:
            self._detector = Detector(where, self.change_master)
        else:
            self._configured = master if ":" in master else f"{master}:{MESOS_PORT}"
            self._new_master = self._configured

    # ------------------------------------------------------------------ the connection's thread

    def _run(self) -> None:
        """Keep a subscription up; takes the place of pymesos' loop."""
        try:
            while not self.aborted:
                self._reason = "the connection was closed"
                try:
                    if self._take_master() and self._may_subscribe():
                        self._serve_connection()
                except Exception as exc:  # whatever it is, the next try may go better
                    logger.debug("connection to Mesos failed", exc_info=True)
                    self._reason = str(exc) or repr(exc)
                self.stream_id = None
                if not self.aborted:
                    self._listener.closed(self._reason)
                    self._choose()
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
            why = "" if self._detector is None else f": {self._detector.trouble}"
            self._reason = f"no leading Mesos master is known{why}"
        return bool(self._master)

    def _may_subscribe(self) -> bool:
        """Look whether it is for us to subscribe: we may have slept, and another one acts in our place."""
        may = self._listener.may_subscribe()
        if not may:
            self._reason = "another controller may have taken over"
            self._failures = 0  # of nobody but us
        return may

    def change_master(self, master: str | None) -> None:
        """Ask that master from now on: it was configured, or ZooKeeper says that it leads."""
        self._configured = master
        super().change_master(master)  # type: ignore[no-untyped-call]  # pymesos has no types

    def redirected(self, leader: str) -> None:
        """Ask that master next, because the present one says that it leads."""
        with self._lock:
            self._new_master = leader

    def _choose(self) -> None:
        """Choose another master where this one did not take us and named no other.

        Where we were taken last, and where we were told to begin, in turn.
        """
        begun, self._subscribed_at = self._subscribed_at, None
        if begun is not None:
            if time.monotonic() - begun >= BACK_OFF_MAX:
                self._failures = 0
            return
        with self._lock:
            if self._master == self._new_master:
                known = [m for m in (self._configured, self._leader) if m and m != self._master]
                self._new_master = known[0] if known else self._new_master

    def _serve_connection(self) -> None:
        self._silence_limit = self._timeout
        self._unanswered = 0
        connection: Any = Connection(str(self._master), self, self._tls)
        try:
            begun = heard = time.monotonic()
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
                self._require_progress(begun)
        finally:
            connection.close()

    def _require_progress(self, begun: float) -> None:
        """Believe no connection that is alive and of no use."""
        if self._unanswered >= UNANSWERED_CALLS:
            raise FrameworkError(f"the master leaves calls unanswered for {self._timeout:g} s each")
        if self._subscribed_at is None and time.monotonic() - begun > self._timeout:
            raise FrameworkError(f"SUBSCRIBE had no answer within {self._timeout:g} s")

    def _require_connected(self, connection: Any) -> None:
        if not connection.connected and (error := connection.handle_connect_event()):
            raise ConnectionError(f"cannot connect to {self._master}: {error}")

    def _select(self, connection: Any, left: float) -> tuple[bool, bool]:
        fd, poll = connection.fileno(), select.poll()  # select() takes no descriptor above 1023
        waiting = not connection.connected or connection.want_write()
        poll.register(fd, select.POLLIN | (select.POLLOUT if waiting else 0))
        poll.register(self._wakeup(), select.POLLIN)
        ready = dict(poll.poll(math.ceil(left * 1000)))
        if self._wakeup() in ready:
            os.read(self._wakeup(), process.PIPE_BUF)
        happened = ready.get(fd, 0)
        return bool(happened & ~select.POLLOUT), bool(happened & select.POLLOUT)

    def _pause(self) -> None:
        """Back off before the next connection; the first redirections cost nothing."""
        limit = min(BACK_OFF_MAX, BACK_OFF_FIRST * 2 ** min(self._failures, 10))
        self._failures += 1
        end = time.monotonic() + limit * random.uniform(0.5, 1.0)  # noqa: S311 - spreads only
        while not self.aborted and (left := end - time.monotonic()) > 0:
            if self._failures <= FREE_REDIRECTIONS and self._master != self._new_master:
                return
            poll = select.poll()
            poll.register(self._wakeup(), select.POLLIN)
            if poll.poll(math.ceil(left * 1000)):
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
        self._listener.event(kind, body)
        if self._listener.over:
            self.stop()

    def _on_subscribed(self, body: Mapping[str, Any]) -> None:
        given, ours = body["framework_id"]["value"], self.framework_id
        if not isinstance(given, str) or not given:
            raise FrameworkError(f"the master gives no framework id: {given!r:.100}")
        if ours is not None and given != ours:  # whose tasks are recorded, or may be
            raise FrameworkError(f"the master takes us for framework {given:.100}, and not {ours}")
        self.framework_id = given
        interval = float(body.get("heartbeat_interval_seconds", 15.0))
        self._silence_limit = max(0.05, min(interval, 3600.0)) * self._missed_heartbeats
        self._subscribed_at, self._leader = time.monotonic(), self._master

    def on_close(self) -> None:
        """Tell nobody yet: :meth:`_run` does, and once per connection."""

    # ------------------------------------------------------------------ the life of the driver

    def _get_version(self, master: str | None) -> None:
        """Ask nothing before subscribing: SUBSCRIBED tells the version (pymesos blocks here)."""

    def _shutdown(self) -> None:
        """Never tear down by the way."""

    def start(self) -> None:
        """Begin to subscribe; waits neither for a master nor for ZooKeeper."""
        process.Process.start(self)
        if self._detector is not None:
            self._detector.start()

    def join(self) -> None:
        """Wait for the end of all threads but that of the calls."""
        super().join()  # type: ignore[no-untyped-call]  # pymesos has no types
        if self._detector is not None:
            self._detector.join()

    def stop(self, failover: bool = True) -> None:
        """End the connection; tasks run on. pymesos' `failover` means nothing here."""
        super().stop(failover=True)  # type: ignore[no-untyped-call]  # pymesos has no types
        if self._detector is not None:
            self._detector.stop()

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
        if stream_id is None or not master or self._unanswered >= UNANSWERED_CALLS:
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
        """Send one request, and count those without an answer."""
        try:
            answer = self._calls.exchange(master, method, path, data, headers)
        except (OSError, http.client.HTTPException) as exc:
            self._unanswered += 1
            if self._unanswered >= UNANSWERED_CALLS:
                self._notify()
            raise CallUncertain(f"no answer from {master}: {exc!r}") from exc
        self._unanswered = 0
        return answer

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
        self._calls.close()

    def send_teardown(self) -> None:
        """Remove the framework from Mesos and kill all its tasks; only when somebody said so."""
        self._send({"type": "TEARDOWN", "framework_id": {"value": self.framework_id}})


class _NoCallbacks(pymesos.Scheduler):
    """pymesos wants a scheduler to call back; events go to the listener instead."""
