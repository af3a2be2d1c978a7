"""A graph that has its place and is not known to hold it yet: its records are being written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scheduler.claims import Choice
from scheduler.placement import Running
from scheduler.quantities import Resources
from scheduler.reservations import Waiting
from scheduler.scene import Holder


@dataclass(frozen=True, slots=True)
class Begun:
    """One of them. Nobody else may count on what it was given."""

    waiting: Waiting
    choice: Choice

    def holder(self) -> Holder:
        """Return it under the name under which it will be known."""
        assignments = self.choice.placement.assignments.values()
        return Holder(
            name=self.waiting.holder,
            priority=self.waiting.queue.priority,
            drawn=[*zip(assignments, self.choice.drawn.values(), strict=True)],
            in_roles=True,
        )

    def running(self) -> Iterator[tuple[str, Running]]:
        """Yield its tasks, with the id of its graph."""
        for name, assignment in self.choice.placement.assignments.items():
            yield self.waiting.graph_id, Running(self.waiting.requests[name], assignment)

    def limited(self) -> tuple[str, Sequence[Resources]]:
        """Return what counts against the limit of its queue."""
        return self.waiting.queue.name, [*self.choice.drawn.values()]
