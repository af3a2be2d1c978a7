"""What a workflow makes of a product configuration: frozen data, the same for the same input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scheduler.graph import LogicalGraph
from sdpcontroller.workflows.resources import Quantity

LAUNCH_TIMEOUT: Final = 60.0
"""Seconds that a program may take until it is ready, what it waits for not counted."""
KILL_GRACE: Final = 10.0
"""Seconds that a program has to end by itself when it is told to."""


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """A task that takes part in captures."""

    name: str
    stage: int
    """Place in the flow of data, 0 first; see :class:`pipelines.catalogue.CaptureStage`."""


@dataclass(frozen=True, slots=True)
class SimulatedStream:
    """A stream that a simulated correlator of this product sends."""

    name: str
    endpoint: str
    """``ADDRESS+N:PORT``."""
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What the controller asks of the tasks of a graph.

    Kept in the product's record, so that a later version of the controller goes on with the graph that runs.
    """

    telstate_task: str
    """The task that serves the telescope state."""
    katcp_tasks: tuple[str, ...] = ()
    """Tasks with a port ``katcp`` to connect to."""
    captures: tuple[CaptureTask, ...] = ()
    simulated: tuple[SimulatedStream, ...] = ()

    def capture_order(self) -> list[list[str]]:
        """Tasks in the order in which a capture *ends*: sources first, one list per stage.

        A capture begins in the opposite order, so that whoever receives is there before data comes.
        """
        stages = sorted({task.stage for task in self.captures})
        return [[t.name for t in self.captures if t.stage == stage] for stage in stages]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A logical graph, with all that the controller does around it."""

    graph: LogicalGraph
    telstate_task: str
    """The task that serves the telescope state."""
    katcp_tasks: tuple[str, ...]
    """Tasks with a port ``katcp`` to connect to."""
    captures: tuple[CaptureTask, ...]
    simulated: tuple[SimulatedStream, ...]
    telstate: Mapping[str, Any] = field(default_factory=dict)
    """Values for the telescope state before any program starts, by full key."""
    asked: Mapping[str, tuple[Quantity, ...]] = field(default_factory=dict)
    """What each task asks for and why, by its name."""

    @property
    def roles(self) -> Roles:
        """What is kept of it once the graph is launched."""
        return Roles(
            telstate_task=self.telstate_task,
            katcp_tasks=self.katcp_tasks,
            captures=self.captures,
            simulated=self.simulated,
        )
