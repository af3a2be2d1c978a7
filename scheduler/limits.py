"""How much the tasks of one queue may hold at a time; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Final, Self

from scheduler.policy import Limits, Queue
from scheduler.quantities import Millis, Resources, format_millis
from scheduler.requests import TaskRequest

_UNITS: Final = ("tasks", "CPUs", "MiB of memory", "GPUs")


@dataclass(frozen=True, slots=True)
class Held:
    """What some tasks hold together, or ask for; thousandths."""

    tasks: Millis = 0
    cpus: Millis = 0
    mem: Millis = 0
    """MiB."""
    gpus: Millis = 0
    """Shares of compute, added up."""

    @classmethod
    def by(cls, tasks: Iterable[Resources]) -> Self:
        """Add up what tasks draw."""
        drawn = [resources.scalars for resources in tasks]
        return cls(
            1000 * len(drawn),
            sum(scalars.get("cpus", 0) for scalars in drawn),
            sum(scalars.get("mem", 0) for scalars in drawn),
            sum(
                amount
                for scalars in drawn
                for name, amount in scalars.items()
                if name.startswith("gpu.") and name.endswith(".compute")
            ),
        )

    @classmethod
    def asked(cls, requests: Iterable[TaskRequest]) -> Self:
        """Add up what tasks ask for, at least: what comes along with their cores is not known before."""
        every = list(requests)
        return cls(
            1000 * len(every),
            sum(request.cpus + 1000 * len(request.cores) for request in every),
            sum(request.mem for request in every),
            sum(gpu.compute for request in every for gpu in request.gpus),
        )

    def __add__(self, other: Held) -> Held:
        """Add up both."""
        return Held(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def over(queue: Queue, held: Held, asked: Held) -> str:
    """Say which limit of its queue a graph would go over, for people; empty if none."""
    limits = queue.limits or Limits()
    most = (limits.tasks, limits.cpus, limits.mem, limits.gpus)
    found = [
        f"{format_millis(limit)} {unit}: {format_millis(there)} are held, {format_millis(more)} asked for"
        for limit, unit, there, more in zip(
            most, _UNITS, astuple(held), astuple(asked), strict=True
        )
        if limit is not None and more and there + more > limit
    ]
    return f"queue {queue.name} may hold " + "; and ".join(found) if found else ""
