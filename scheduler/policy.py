"""Queues, as data: who goes before whom, who may pass, who may be ended for whom."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Order(enum.Enum):
    """Who of a queue is tried first, among graphs of the same priority."""

    ARRIVAL = "arrival"
    """Who came first."""
    DEADLINE = "deadline"
    """Whose time is up first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One queue of graphs that wait for a place."""

    name: str
    priority: int = 0
    """Graphs of a queue of higher priority are tried before all those of lower ones."""
    order: Order = Order.ARRIVAL
    roles: tuple[str, ...] = ()
    """Only what is offered in these Mesos roles is used; in all of ours, if there are none."""
    backfill: bool = True
    """Whether its graphs may pass one that waits, on what that does not need."""
    preempts: bool = False
    """Whether tasks of preemptible queues of lower priority are ended where that makes room."""
    preemptible: bool = False
    """Whether its tasks may be ended so; only batch nodes are, which are run again."""


REALTIME: Final = Queue(name="realtime", priority=100)
"""Where :meth:`~scheduler.service.Scheduler.launch` puts graphs, if nothing else is said."""
BATCH: Final = Queue(name="batch")
"""Where :meth:`~scheduler.service.Scheduler.run_batch` puts graphs, if nothing else is said."""
