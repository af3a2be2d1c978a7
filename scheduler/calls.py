"""Calls to Mesos: made one after the other by a thread of their own, while there is a subscription.

A call belongs to one subscription (ACCEPT, DECLINE, ACKNOWLEDGE, RECONCILE: offers and updates of an old one
mean nothing later; updates are sent again by Mesos) or outlives it (KILL, REVIVE, SUPPRESS). Those that say the
same have one key, and the newest of them takes the place of the others: what waits is bounded by the tasks and
offers that there are, however long it waits.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from scheduler.errors import FrameworkError
from scheduler.pymesos_driver import CallRefused

logger = logging.getLogger(__name__)

NOT_LEADING: Final = 0.05
"""Seconds between two looks whether calls may be made."""
MAX_TRIES: Final = 5
"""How often a call that outlives its subscription is tried while the link is up."""
PAUSE: Final = 0.2
"""Seconds after the first failure of such a call; twice, three times as many after the next ones."""


@dataclass(slots=True, eq=False)
class Call:
    """One call on its way."""

    what: str
    send: Callable[[], object]
    done: Callable[[FrameworkError | None], None]
    """Is told how it went, on any thread; not of a call whose place another takes."""
    key: str | None = None
    """A newer call of the same key takes the place of one that waits; None: it stands for itself."""
    lasting: bool = False
    """Whether it outlives its subscription."""
    tries: int = 0

    @property
    def slot(self) -> object:
        """What tells it from others that wait."""
        return self if self.key is None else self.key


class Caller(Protocol):
    """Makes a call."""

    def make(self, call: Callable[[], object]) -> None:
        """Make a call; raises a :class:`FrameworkError` if it was not taken, or nobody knows."""

    def close_calls(self) -> None:
        """Close the connection of the calls."""


class Calls:
    """Those that wait, and who makes them.

    Parameters
    ----------
    may_act
        Whether calls may be made now.
    """

    def __init__(self, caller: Caller, may_act: Callable[[], bool]) -> None:
        self._caller = caller
        self._may_act = may_act
        self._guard = threading.Condition()
        self._waiting: OrderedDict[object, Call] = OrderedDict()
        self._subscription = 0
        """Number of the last subscription."""
        self._open = False
        """Whether that one goes on."""
        self._allowed = 0
        """Number of the subscription in which calls may be made."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="Mesos calls", daemon=True)

    def start(self) -> None:
        """Begin to make calls."""
        self._thread.start()

    def stop(self) -> None:
        """Make no more calls than the one that is being made."""
        with self._guard:
            self._stopping = True
            self._guard.notify_all()

    def join(self) -> None:
        """Wait until no call is being made."""
        if self._thread.ident is not None:
            self._thread.join()

    # ------------------------------------------------------------------ subscriptions

    def begun(self) -> None:
        """Another subscription has begun; no call is made in it before it is allowed."""
        with self._guard:
            self._subscription += 1
            self._open = True

    def ended(self) -> None:
        """The subscription has ended, and with it the calls that belong to it."""
        with self._guard:
            self._open = False
            gone = [call for call in self._waiting.values() if not call.lasting]
            for call in gone:
                del self._waiting[call.slot]
            self._guard.notify_all()
        for call in gone:
            call.done(CallRefused("the subscription has ended"))

    def allow(self, number: int) -> None:
        """Let calls be made in the subscription of that number, the first being 1, if it goes on."""
        with self._guard:
            self._allowed = number
            self._guard.notify_all()

    # ------------------------------------------------------------------ calls

    def enqueue(self, call: Call) -> None:
        """Have a call made after those that wait; one that would belong to no subscription is refused."""
        with self._guard:
            taken = call.lasting or (self._may_call() and not self._stopping)
            if taken:
                self._waiting.pop(call.slot, None)
                self._waiting[call.slot] = call
                self._guard.notify_all()
        if not taken:
            call.done(CallRefused("there is no subscription"))

    def _may_call(self) -> bool:
        return self._open and self._allowed == self._subscription

    def _run(self) -> None:
        while (call := self._next()) is not None:
            self._make(call)
        self._caller.close_calls()

    def _next(self) -> Call | None:
        with self._guard:
            while not self._stopping:
                if not (self._waiting and self._may_call()):
                    self._guard.wait()
                elif not self._may_act():  # now, not when it was asked for: we may have slept
                    self._guard.wait(timeout=NOT_LEADING)
                else:
                    return self._take()
            return None

    def _take(self) -> Call:
        return self._waiting.popitem(last=False)[1]

    def _make(self, call: Call) -> None:
        try:
            call.tries += 1
            self._caller.make(call.send)
        except FrameworkError as exc:
            self._failed(call, exc)
        except Exception as exc:  # pymesos' own checks: a fault of ours, and not of the link
            logger.exception("the call %s failed", call.what)
            call.done(FrameworkError(f"{call.what} failed: {exc!r}"))
        else:
            call.done(None)

    def _failed(self, call: Call, error: FrameworkError) -> None:
        """Keep a call that outlives its subscription for another try, unless a newer one says the same."""
        with self._guard:
            if call.lasting and call.tries < MAX_TRIES and call.slot not in self._waiting:
                self._waiting[call.slot] = call
                self._waiting.move_to_end(call.slot, last=False)
                self._guard.wait_for(
                    lambda: self._stopping or not self._may_call(), timeout=PAUSE * call.tries
                )
                return
        call.done(error)
