"""What launches and ends of graphs work with: the parts of the scheduler that they share."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from orjson import Fragment

from scheduler.errors import JournalError, LaunchError
from scheduler.goahead import GoAhead
from scheduler.journal import Journal
from scheduler.queues import LaunchQueue
from scheduler.runs import GraphRun, Runs, TaskEntry
from scheduler.task import Event
from scheduler.tls import GoAheadTls

logger = logging.getLogger(__name__)

JOURNAL_PAUSE: Final = 0.5


class Calls(Protocol):
    """The calls to Mesos that a launch makes; see :class:`scheduler.framework.Framework`."""

    async def accept(
        self,
        offer_ids: Sequence[str],
        task_infos: Sequence[Mapping[str, Any] | Fragment],
        *,
        refuse_seconds: float = 0.0,
    ) -> None:
        """Launch tasks on offers of one agent."""

    def decline(self, offer_ids: Sequence[str], *, refuse_seconds: float) -> None:
        """Give offers back."""

    def reconcile(self, tasks: Sequence[tuple[str, str]] = ()) -> None:
        """Ask for the states of tasks, by id and agent; of all that Mesos knows, if none are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What a launch works with."""

    framework: Calls
    gates: GoAhead
    journal: Journal
    queue: LaunchQueue
    runs: Runs
    controllers: Sequence[str]
    """Base URLs at which waiting tasks may ask."""
    goahead_tls: GoAheadTls
    """Whom they believe."""
    goahead_deadline: float
    """Seconds for which they ask."""
    kill_interval: float
    """Seconds between two kills of a task that does not end."""


async def insist(deadline: float, write: Callable[[], Any], run: GraphRun | None = None) -> None:
    """Repeat a write of the journal until it is safe or the deadline has passed.

    Parameters
    ----------
    run
        The graph of which it writes: one that is taken down is forgotten, and must not be written of again.

    Raises
    ------
    JournalError
        If the deadline has passed.
    LaunchError
        If the graph is taken down.
    """
    while True:
        if run is not None and run.stop_cause is not None:
            raise LaunchError(f"graph {run.graph.graph_id}: {run.stop_cause}")
        try:
            await write()
        except JournalError as exc:
            if asyncio.get_running_loop().time() + JOURNAL_PAUSE > deadline:
                raise
            logger.warning("waiting for the journal: %s", exc)
            await asyncio.sleep(JOURNAL_PAUSE)
        else:
            return


async def apply_recorded(
    equipment: Equipment, entry: TaskEntry, event: Event, deadline: float = math.inf
) -> None:
    """Let something of ours happen to a task; return when it is recorded: a journal that is away is waited for.

    Raises
    ------
    JournalError
        If the deadline has passed.
    """
    try:
        await equipment.runs.apply(entry, event)
    except JournalError as exc:
        logger.warning("%s waits for the journal: %s", entry.task.task_id, exc)
        await insist(deadline, lambda: equipment.runs.record(entry))
