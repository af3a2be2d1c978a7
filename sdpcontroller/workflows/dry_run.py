"""A product's graphs for a dry run, which must not take anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scheduler.graph import PhysicalGraph, TaskTemplate, instantiate
from scheduler.requests import TaskRequest
from sdpcontroller import config
from sdpcontroller.config import ProductConfig
from sdpcontroller.workflows import imaging, totals
from sdpcontroller.workflows.admission import checked_workflow
from sdpcontroller.workflows.containers import in_containers

LONG: Final = 8 * 3600.0
"""Seconds of a long observation of one target: some imagers need the more memory the more there is."""


@dataclass(frozen=True, slots=True)
class PlannedImaging:
    """What a capture block would start for one target."""

    seconds: float
    """How long the target was observed for."""
    graph: PhysicalGraph


@dataclass(frozen=True, slots=True)
class Planned:
    """The graphs that a configuration would become."""

    realtime: PhysicalGraph
    imaging: tuple[PlannedImaging, ...]
    """For a target observed as long as the images need, and for a long one where that makes a difference."""


def planned(text: str, image: str | None) -> Planned:
    """Return the graphs that a configuration would become.

    Parameters
    ----------
    text
        The document, as JSON.
    image
        Container image of the programs; None: they run as processes.

    Raises
    ------
    ConfigError
        If the document is none, or not all of it would be done.
    """
    document = config.parse(text)
    logical = checked_workflow(document, "plan").graph
    physical = instantiate(in_containers(logical, document.config, image), "plan")
    return Planned(physical, tuple(_imaging(document, image)))


def _imaging(document: ProductConfig, image: str | None) -> Sequence[PlannedImaging]:
    found: list[PlannedImaging] = []
    least = imaging.least_time(document)
    for seconds in (least, max(least, LONG)):
        plan = imaging.of_one_target(document, "plan", seconds)
        if not plan.images:
            continue
        logical = in_containers(plan.graph, document.config, image)
        graph = instantiate(logical, f"plan-{len(found)}")
        if not found or _requests(found[0].graph) != _requests(graph):
            found.append(PlannedImaging(seconds, graph))
    return found


def _requests(graph: PhysicalGraph) -> Mapping[str, TaskRequest]:
    return {task.name: task.request for task in graph.logical.tasks}


def alike(graph: PhysicalGraph) -> Mapping[tuple[str, TaskRequest], list[TaskTemplate]]:
    """Return the tasks of a graph by what they are and ask for: most are alike."""
    groups: dict[tuple[str, TaskRequest], list[TaskTemplate]] = {}
    for task in graph.logical.tasks:
        groups.setdefault((task.kind, task.request), []).append(task)
    return groups


def in_words(graph: PhysicalGraph) -> Sequence[str]:
    """Say what the tasks of a graph are and ask for, and all of it together."""
    lines = [
        f"{len(tasks)} × {kind}: {totals.in_words(totals.row(request))}"
        for (kind, request), tasks in alike(graph).items()
    ]
    together = totals.totals(totals.row(task.request) for task in graph.logical.tasks)
    return [*lines, f"all at once: {totals.in_words(together)}"]
