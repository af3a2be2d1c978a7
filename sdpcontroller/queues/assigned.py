"""In which queue what waits, and what there is to tell of the queues."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdpcontroller.control import QueueRecord
from sdpcontroller.queues.model import BUILT_IN, QueuesConfig, Work

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QueueInUse:
    """The queue in which something waits."""

    name: str
    instead_of: str = ""
    """The queue that was recorded and is not declared any more; empty where it is, or none was recorded."""

    @property
    def note(self) -> str:
        """What to tell people, for an event; empty where there is nothing to tell."""
        return (
            f"queue {self.instead_of} is not declared any more: it waits in {self.name}"
            if self.instead_of
            else ""
        )


@dataclass(frozen=True, slots=True)
class Assigned:
    """The declared queues, and who waits where."""

    config: QueuesConfig = BUILT_IN

    def to(self, work: Work, product: str) -> str:
        """Return the queue in which new work of a product waits."""
        return self.config.queue_of(work, product)

    def still(self, recorded: str, work: Work, product: str) -> QueueInUse:
        """Return the queue of work of which one was recorded: that one, as long as it can be.

        What an earlier version has recorded names none: it gets the one that it would get now.
        """
        settings = self.config.queues.get(recorded)
        fit = settings is not None and not (work is Work.PRODUCTS and settings.preemptible)
        if recorded and fit:
            return QueueInUse(recorded)
        found = QueueInUse(self.to(work, product), instead_of=recorded)
        if found.note:
            logger.warning("%s of %s: %s", work.value, product, found.note)
        return found

    def records(self, waiting: Mapping[str, Sequence[float]]) -> tuple[QueueRecord, ...]:
        """Return what everybody may know of the queues, the highest first.

        Parameters
        ----------
        waiting
            For how long graphs wait in each queue that is not empty, seconds.
        """
        return tuple(
            QueueRecord(
                name=queue.name,
                priority=queue.priority,
                waiting=len(waiting.get(queue.name, ())),
                oldest=max(waiting.get(queue.name, ()), default=0.0),
                terms=self._terms(queue.name),
            )
            for queue in self.config.declared()
        )

    def _terms(self, name: str) -> str:
        """Say what is particular to a queue, for people."""
        settings = self.config.queues[name]
        work = [work.value for work in Work if getattr(self.config.work, work.value) == name]
        ruled = [
            f"{work.value} of {rule.product}"
            for rule in self.config.rules
            for work in Work
            if getattr(rule, work.value) == name
        ]
        told = [f"for {', '.join((*work, *ruled)) or 'nobody'}"]
        told += ["by deadline"] * (settings.order == "deadline")
        told += ["no backfill"] * (not settings.backfill)
        told += ["preempts"] * settings.preempts + ["preemptible"] * settings.preemptible
        if settings.roles:
            told.append(f"roles {', '.join(settings.roles)}")
        if settings.limits is not None:
            given = settings.limits.model_dump(exclude_none=True)
            told.append("at most " + ", ".join(f"{n:g} {what}" for what, n in given.items()))
        return "; ".join(told)
