"""What a product needs of the rest of the controller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from scheduler.breath import OneByOne, Ration
from scheduler.permission import Permission, granted
from sdpcontroller.control import ProductRecord, TaskSensor
from sdpcontroller.multicast import MulticastPool
from sdpcontroller.queues import Assigned
from sdpcontroller.store import Store

if TYPE_CHECKING:  # else the options of the command line would load all of it
    from scheduler.service import Scheduler

LINKS_AT_ONCE: Final = 16
"""Links to tasks that are opened at a time where many are: each takes the controller 1.5 ms."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a product waits, in seconds."""

    fit: float = 60.0
    """For a place in the cluster, and all tasks ready."""
    capture_init: float = 60.0
    """For one program to be ready for data."""
    capture_done: float = 300.0
    """For one program to drain."""
    ask: float = 5.0
    """For a program to tell which capture block it is at, after a restart of the controller."""
    batch: float = 6 * 3600.0
    """For the postprocessing of one capture block."""


class Figures(Protocol):
    """Is told of what becomes of tasks, for whoever counts."""

    def died(self, kind: str, outcome: str) -> None:
        """A task of this kind ended by itself, and should not have."""

    def restarted(self, kind: str, outcome: str) -> None:
        """A task that died was to be started again: ok, failed, or given_up."""

    def reached(self, what: str) -> None:
        """The controller has come that far since it was started: told once for each."""


class NoFigures:
    """Counts nothing."""

    def died(self, kind: str, outcome: str) -> None:
        """Forget it."""

    def restarted(self, kind: str, outcome: str) -> None:
        """Forget it."""

    def reached(self, what: str) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Services:
    """The controller's parts that products share."""

    scheduler: Scheduler
    store: Store
    multicast: MulticastPool
    background: asyncio.TaskGroup
    """Runs what outlives a command: postprocessing, and the closing of what failed."""
    product_changed: Callable[[ProductRecord], None]
    sensor_changed: Callable[[TaskSensor], None] | None
    """Is told of what tasks publish; None: it is not asked for."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    queues: Assigned = field(default_factory=Assigned)
    """Where graphs wait for their place."""
    image: str | None = None
    """Container image of the programs; None: they run as processes on their agents."""
    may_act: Callable[[], bool] = lambda: True
    """Whether this controller leads at the moment."""
    figures: Figures = field(default_factory=NoFigures)
    may_repair: Permission = granted
    """When tasks may be started again without being asked; see :mod:`sdpcontroller.repair`."""
    linking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LINKS_AT_ONCE))
    """Room for links that are being opened, where many are."""
    reading: Ration = field(default_factory=Ration)
    """The loop's time for what all tasks tell of their sensors."""
    telling: OneByOne = field(default_factory=OneByOne)
    """Through which all products tell of their tasks."""
    note_loss: Callable[[str], None] = lambda _: None
    """Is told what the database had lost, and what became of it."""
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when another controller goes on with the products: what is cancelled then is not undone."""
