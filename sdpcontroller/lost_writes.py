"""What the database had lost when this controller began, and what became of it: told to operators.

A Redis whose machine failed comes back as it was a second before. What tasks and Mesos tell of that second is
put back (:mod:`scheduler.rebuilding`, :mod:`sdpcontroller.products.evidence`); what cannot be is ended.
Both are in the log, in the event stream of the product that it concerns, and in an alarm for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from scheduler.views import Change, GraphEnds, StrangerKilled, TasksPutBack
from sdpcontroller.control import Alarm, Severity
from sdpcontroller.products.ownership import owner
from sdpcontroller.products.product import Product
from sdpcontroller.some import some

logger = logging.getLogger(__name__)

SHOWN: Final = 3600.0
"""Seconds for which the alarm stands after the last news."""
_NAMED: Final = 5
"""News that the alarm tells."""


class LostWrites:
    """Keeps what was found, and hands it to the products that it concerns.

    Parameters
    ----------
    products
        All, by name.
    changed
        Is called when the alarm changes.
    """

    def __init__(self, products: Mapping[str, Product], changed: Callable[[], None]) -> None:
        self._products = products
        self._changed = changed
        self._news: dict[tuple[str, str], str] = {}
        """By what it is about and what became of it; the text alone, where that is all that is known."""
        self._killed: Counter[tuple[str, str]] = Counter()
        self._until = 0.0

    def take(self, change: Change) -> bool:
        """Take what the scheduler found; whether it is of that kind."""
        match change:
            case TasksPutBack(graph_id, names):
                self.note(f"{', '.join(names)} of {graph_id} run on: their records were put back")
                if product := owner(graph_id, self._products.values()):
                    product.tasks_put_back(names)
            case GraphEnds(graph_id, why):
                self.note(f"graph {graph_id} is taken down: {why}")
                if product := owner(graph_id, self._products.values()):
                    product.ends_unasked(why)
            case StrangerKilled(task_id, why):
                self._kill(task_id, why)
            case _:
                return False
        return True

    def _kill(self, task_id: str, why: str) -> None:
        """Take note of a task that was killed: of a graph that is lost, all are, for one reason."""
        graph_id = task_id.partition(".")[0]
        about = graph_id, why
        self._killed[about] += 1
        count = self._killed[about]
        what = f"task {task_id} was" if count == 1 else f"{count} tasks of graph {graph_id} were"
        self._tell(about, f"{what} killed: {why}")

    def note(self, news: str) -> None:
        """Take note of something that was lost, and of what became of it."""
        self._tell(("", news), news)

    def _tell(self, about: tuple[str, str], news: str) -> None:
        logger.warning("the database knew less than what runs: %s", news)
        loop = asyncio.get_running_loop()
        self._news[about] = news
        self._until = loop.time() + SHOWN
        loop.call_at(self._until, self._changed)
        self._changed()

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is to be told."""
        if not self._news or asyncio.get_running_loop().time() >= self._until:
            return ()
        told = some(list(self._news.values()), _NAMED, "; ")
        text = f"the database had lost its last writes (see the log): {told}"
        return (Alarm("lost-writes", Severity.WARNING, text),)
