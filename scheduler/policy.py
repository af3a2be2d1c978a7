"""Queues, as data: who goes before whom, who may pass, who may be ended for whom."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from scheduler.quantities import Millis


class Order(enum.Enum):
    """Who of a queue is tried first, among graphs of the same priority."""

    ARRIVAL = "arrival"
    """Who came first."""
    DEADLINE = "deadline"
    """Whose time is up first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the tasks of one queue may hold at a time, together; thousandths, None: as much as there is."""

    tasks: Millis | None = None
    cpus: Millis | None = None
    mem: Millis | None = None
    """MiB."""
    gpus: Millis | None = None
    """Whole devices; shares of compute are added up."""


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
    limits: Limits | None = None
    """Behind a graph that waits for what its queue may hold, nobody else of that queue is tried. What is begun
    anew within a graph that runs goes beyond it."""


REALTIME: Final = Queue(name="realtime", priority=100)
"""Where :meth:`~scheduler.service.Scheduler.launch` puts graphs, if nothing else is said."""
BATCH: Final = Queue(name="batch")
"""Where :meth:`~scheduler.service.Scheduler.run_batch` puts graphs, if nothing else is said."""


def for_whole_graphs(queue: Queue) -> Queue:
    """Return a queue as it is for graphs that are launched as a whole.

    They are never ended for others: what is kept for those is not for them either.
    """
    return replace(queue, preemptible=False)
