"""The link to Mesos, seen from asyncio: the only module that talks to a master.

The driver (:mod:`scheduler.pymesos_driver`) has a thread of its own; what Mesos says becomes a stream of
frozen events on the loop, in order (:meth:`Framework.events`). Calls are made in order by a second thread
(:mod:`scheduler.calls`), so that the loop never waits for the network. No call is made before the framework id
is safe: see :meth:`Framework.confirm`.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from orjson import Fragment

from scheduler import pymesos_driver
from scheduler.calls import Call, Calls
from scheduler.errors import FrameworkError
from scheduler.figures import Figures, NoFigures
from scheduler.listening import begin
from scheduler.task import StatusUpdate, read_status

logger = logging.getLogger(__name__)

WEEKS: Final = 4 * 7 * 86400.0
"""For which tasks outlive the last controller: longer than a holiday, or than repairing a site."""
CAPABILITIES: Final = (
    "MULTI_ROLE",
    "PARTITION_AWARE",
    "RESERVATION_REFINEMENT",
    "TASK_KILLING_STATE",
)
_REMOVED: Final = "Framework has been removed"
_FAILED_OVER: Final = "Framework failed over"
"""How the texts of these errors begin."""
MAX_INBOX: Final = 100_000
"""Events that may wait for the loop; above it, updates that Mesos will repeat are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkSettings:
    """How we present ourselves to Mesos."""

    master: str
    """``host:port`` or ``zk://…``."""
    name: str
    user: str = field(default_factory=getpass.getuser)
    roles: Sequence[str] = ("sdp",)
    principal: str | None = None
    secret: str | None = None
    tls: ssl.SSLContext | None = None
    """Checks the masters' and agents' certificates; None: they speak plain HTTP."""
    failover_timeout: float = WEEKS
    """Seconds for which tasks outlive us."""
    http_timeout: float = pymesos_driver.HTTP_TIMEOUT
    missed_heartbeats: float = pymesos_driver.MISSED_HEARTBEATS
    may_act: Callable[[], bool] | None = None
    """Whether this controller may act now, by a lease that nobody else has then; None: there is no lease."""

    def framework_info(self, framework_id: str | None) -> dict[str, Any]:
        """Return Mesos' ``FrameworkInfo``."""
        info: dict[str, Any] = {
            "user": self.user,
            "name": self.name,
            "roles": list(self.roles),
            "failover_timeout": self.failover_timeout,
            "checkpoint": True,
            "capabilities": [{"type": name} for name in CAPABILITIES],
        }
        if self.principal is not None:
            info["principal"] = self.principal
        if framework_id is not None:
            info["id"] = {"value": framework_id}
        return info


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Mesos has taken us; answer with :meth:`Framework.confirm` when the id is safe."""

    framework_id: str
    master: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """There is no subscription; another try follows by itself. All offers are void."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Mesos does not take us any more, and no other try is made."""

    reason: str


@dataclass(frozen=True, slots=True)
class Offered:
    """Mesos offers resources (``Offer`` messages, JSON form)."""

    offers: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Rescinded:
    """An offer is void."""

    offer_id: str


@dataclass(frozen=True, slots=True)
class Updated:
    """Mesos has news of a task; to be acknowledged once it is safe."""

    status: StatusUpdate


@dataclass(frozen=True, slots=True)
class AgentLost:
    """Mesos has removed an agent."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class AskedToLeave:
    """Mesos asks for agents back (``InverseOffer`` messages, JSON form)."""

    offers: tuple[Mapping[str, Any], ...]


LinkEvent: TypeAlias = (
    Subscribed | Disconnected | Lost | Offered | Rescinded | Updated | AgentLost | AskedToLeave
)


class Framework:
    """Our subscription to Mesos, and the calls that we make.

    Parameters
    ----------
    framework_id
        The id of an earlier subscription, or None.
    """

    def __init__(
        self,
        settings: FrameworkSettings,
        framework_id: str | None = None,
        figures: Figures | None = None,
    ) -> None:
        self._settings = settings
        self._figures: Figures = figures or NoFigures()
        self._driver: Any = pymesos_driver.MendedDriver(  # pymesos has no types
            self,
            settings.framework_info(framework_id),
            settings.master,
            principal=settings.principal,
            secret=settings.secret,
            tls=settings.tls,
            http_timeout=settings.http_timeout,
            missed_heartbeats=settings.missed_heartbeats,
        )
        self.framework_id = framework_id
        """The id under which Mesos knows us, as the reader of the events knows."""
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[LinkEvent] = deque()
        self._arrived = asyncio.Event()
        self._calls = Calls(self._driver, self.may_subscribe)
        self._over = False
        self._seen = 0
        """Number of the subscription, as the reader of the events knows."""
        self._stopping = False

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to subscribe; the outcome comes as an event."""
        self._calls.start()
        await begin(asyncio.to_thread(self._driver.start))

    async def stop(self, *, teardown: bool) -> None:
        """End the link; with `teardown`, Mesos forgets us and kills all our tasks.

        Raises
        ------
        FrameworkError
            If Mesos could not be told to tear down. The link is ended all the same.
        """
        try:
            if teardown:
                await self._call("TEARDOWN", self._driver.send_teardown)
        finally:
            self._driver.stop()
            self._stopping = True
            self._calls.stop()
            await asyncio.to_thread(self._join)
            self._arrived.set()

    def _join(self) -> None:
        self._driver.join()
        self._calls.join()

    async def events(self) -> AsyncIterator[LinkEvent]:
        """Yield what Mesos says, in order, until :meth:`stop`."""
        while not self._stopping:
            while self._inbox:
                event = self._inbox.popleft()
                if isinstance(event, Subscribed):
                    self._seen += 1
                    self.framework_id = event.framework_id
                yield event
            self._arrived.clear()
            if not self._inbox and not self._stopping:
                await self._arrived.wait()

    def confirm(self) -> None:
        """Allow calls in the subscription of the last :class:`Subscribed` that was read."""
        self._calls.allow(self._seen)

    # ------------------------------------------------------------------ calls

    async def accept(
        self,
        offer_ids: Sequence[str],
        task_infos: Sequence[Mapping[str, Any] | Fragment],
        *,
        refuse_seconds: float = 0.0,
    ) -> None:
        """Launch tasks on offers of one agent; what they leave is refused for that long.

        Parameters
        ----------
        task_infos
            As messages, or already written: see :func:`scheduler.pymesos_driver.part`.

        Raises
        ------
        CallRefused
            If the tasks were not launched.
        CallUncertain
            If nobody knows; reconciliation will tell.
        """
        ids = [{"value": offer_id} for offer_id in offer_ids]
        operations = [{"type": "LAUNCH", "launch": {"task_infos": list(task_infos)}}]
        filters = {"refuse_seconds": refuse_seconds}
        self._figures.offered(len(ids), "accepted")
        await self._call("ACCEPT", lambda: self._driver.acceptOffers(ids, operations, filters))

    def decline(self, offer_ids: Sequence[str], *, refuse_seconds: float) -> None:
        """Give offers back, and do not want them again for that long."""
        if ids := [{"value": offer_id} for offer_id in offer_ids]:
            filters = {"refuse_seconds": refuse_seconds}
            self._figures.offered(len(ids), "declined")
            self._post("DECLINE", lambda: self._driver.declineOffer(ids, filters))

    def answer(self, inverse_offer_id: str, *, accept: bool, refuse_seconds: float) -> None:
        """Say whether we leave an agent before its maintenance, and when to be asked again."""
        ids, filters = [{"value": inverse_offer_id}], {"refuse_seconds": refuse_seconds}
        answer = self._driver.answer_inverse_offers
        what = "ACCEPT_INVERSE_OFFERS" if accept else "DECLINE_INVERSE_OFFERS"
        self._post(
            what, lambda: answer(ids, filters, accept=accept), key=f"answer {inverse_offer_id}"
        )

    def revive(self, roles: Collection[str] = ()) -> None:
        """Want offers, whatever was refused before.

        Parameters
        ----------
        roles
            In these, and in no others; in all of ours, if none are named.
        """
        others = sorted(set(self._settings.roles).difference(roles)) if roles else []

        def send() -> None:
            if others:  # an empty list would mean all
                self._driver.suppressOffers(others)
            self._driver.reviveOffers(sorted(roles))

        self._post("REVIVE", send, key="offers", lasting=True)

    def suppress(self) -> None:
        """Want no offers."""
        self._post("SUPPRESS", self._driver.suppressOffers, key="offers", lasting=True)

    def kill(self, task_id: str, *, at_once: bool = False) -> None:
        """Ask for the end of a task; `at_once`, without the time of grace that it asked for.

        Its agent is left out: Mesos ignores a KILL that names another than it knows.
        """
        task = {"value": task_id}
        kill = self._driver.kill_at_once if at_once else self._driver.killTask
        self._post("KILL", lambda: kill(task), key=f"kill {task_id}", lasting=True)

    def acknowledge(self, status: StatusUpdate) -> None:
        """Tell that an update is safe; nothing happens for one that the master made."""
        if status.uuid is None:
            return
        update = {
            "agent_id": {"value": status.agent_id},
            "task_id": {"value": status.task_id},
            "uuid": status.uuid,
        }
        key = f"acknowledge {status.uuid} {status.task_id}"
        self._post("ACKNOWLEDGE", lambda: self._driver.acknowledgeStatusUpdate(update), key=key)

    def reconcile(self, tasks: Sequence[tuple[str, str]] = ()) -> None:
        """Ask for the states of tasks, given as (task id, agent id); of all tasks, if none is given."""
        entries: list[dict[str, Any]] = []
        for task_id, agent_id in tasks:
            entry = {"task_id": {"value": task_id}}
            entries.append(entry | ({"agent_id": {"value": agent_id}} if agent_id else {}))
        key = None if entries else "reconcile"
        self._post("RECONCILE", lambda: self._driver.reconcileTasks(entries), key=key)

    def _post(
        self,
        what: str,
        send: Callable[[], object],
        *,
        key: str | None = None,
        lasting: bool = False,
    ) -> None:
        def done(error: FrameworkError | None) -> None:
            if error is not None:
                logger.warning("%s was not made: %s", what, error)

        self._calls.enqueue(Call(what, send, done, key, lasting))

    async def _call(self, what: str, send: Callable[[], object]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()

        def settle(error: FrameworkError | None) -> None:
            """End the wait, in the loop's own thread: with what went wrong, or None."""
            if future.done():  # its owner has gone away
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        def done(error: FrameworkError | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(settle, error)

        self._calls.enqueue(Call(what, send, done))
        await future

    # ------------------------------------------------------------------ the driver's thread

    @property
    def over(self) -> bool:
        """Whether another SUBSCRIBE would only do harm: it never succeeds, or starts a fight."""
        return self._over

    def may_subscribe(self) -> bool:
        """Whether it is for us to speak to Mesos now."""
        may_act = self._settings.may_act
        return may_act is None or may_act()

    def event(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take an event of the driver."""
        try:
            event = self._read(kind, body)
        except (KeyError, TypeError, AttributeError, FrameworkError) as exc:
            logger.warning("Mesos sent a malformed %s event: %r", kind, exc)
            return
        if event is not None:
            self._tell(event)

    def closed(self, reason: str) -> None:
        """Take the driver's word that there is no connection."""
        self._calls.ended()
        self._tell(Disconnected(reason))

    def _read(self, kind: str, body: Mapping[str, Any]) -> LinkEvent | None:
        match kind:
            case "subscribed":
                self._calls.begun()
                return Subscribed(str(body["framework_id"]["value"]), str(self._driver.master))
            case "offers":
                return Offered(tuple(body.get("offers", ())))
            case "rescind":
                return Rescinded(str(body["offer_id"]["value"]))
            case "update":
                return Updated(read_status(body["status"]))
            case "failure" if "executor_id" not in body:
                return AgentLost(str(body["agent_id"]["value"]))
            case "error":
                return self._read_error(str(body.get("message", "")))
            case "inverse_offers":
                return AskedToLeave(tuple(body.get("inverse_offers", ())))
            case "heartbeat" | "failure" | "rescind_inverse_offer" | "message":
                return None
        logger.warning("Mesos sent an event of unknown kind %.50r", kind)
        return None

    def _read_error(self, message: str) -> LinkEvent | None:
        logger.error("Mesos says: %.500s", message)
        leads = self._settings.may_act is not None and self._settings.may_act()
        # Who subscribes in our place though the lease is ours has slept, and will see that it is.
        if message.startswith(_REMOVED) or (message.startswith(_FAILED_OVER) and not leads):
            self._over = True
            self._calls.ended()
            return Lost(message)
        return None  # the stream ends, which is told then

    def _tell(self, event: LinkEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._arrive, event)

    def _arrive(self, event: LinkEvent) -> None:
        repeated = isinstance(event, Updated) and event.status.uuid is not None
        if repeated and len(self._inbox) >= MAX_INBOX:
            logger.warning("too much news to follow: an update is left for Mesos to repeat")
            return
        self._inbox.append(event)
        self._arrived.set()
