"""A graph that has its place and is not known to hold it yet: its records are being written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.limits import Held
from scheduler.occupancy import by_role, holdings
from scheduler.packing import Occupant
from scheduler.placement import Assignment, Placement, Running
from scheduler.quantities import Resources
from scheduler.reservations import Waiting


@dataclass(frozen=True, slots=True)
class Begun:
    """One of them. Nobody else may count on what it was given."""

    waiting: Waiting
    placement: Placement

    def _drawn(self) -> list[tuple[Assignment, Resources]]:
        requests = self.waiting.requests
        return [(a, a.resources(requests[name])) for name, a in self.placement.assignments.items()]

    def occupant(self) -> Occupant:
        """Return it under the name under which it will be known."""
        drawn = self._drawn()
        return Occupant(
            name=self.waiting.holder,
            priority=self.waiting.queue.priority,
            holds=holdings(drawn),
            by_role=by_role(drawn),
        )

    def running(self) -> Iterator[tuple[str, Running]]:
        """Yield its tasks, with the id of its graph."""
        for name, assignment in self.placement.assignments.items():
            yield self.waiting.graph_id, Running(self.waiting.requests[name], assignment)

    def held(self) -> Held:
        """Return what counts against the limit of its queue."""
        return Held.by(resources for _, resources in self._drawn())
