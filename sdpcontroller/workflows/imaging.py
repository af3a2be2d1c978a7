"""What is made of a capture block when it has ended: images, and cubes, of what was observed long enough.

Pure: made from the configuration and from what was observed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines import catalogue
from scheduler.graph import Edge, LogicalGraph, ReadyCheck, ReadyKind, TaskTemplate
from sdpcontroller.config import ContinuumImage, ProductConfig, SpectralImage, Vis
from sdpcontroller.workflows import cubes, resources
from sdpcontroller.workflows.resources import Asked, Quantity
from sdpcontroller.workflows.targets import (
    MAX_RUN_TIME,
    Chosen,
    ImageTask,
    ObservedTarget,
    choose,
    data_options,
    options,
    queue_options,
)

__all__ = ["ImageTask", "ImagingPlan", "ObservedTarget", "build", "of_one_target"]


@dataclass(frozen=True, slots=True)
class ImagingPlan:
    """The batch graph of a capture block, and what comes out of it."""

    graph: LogicalGraph
    images: tuple[ImageTask, ...]
    skipped: tuple[str, ...]
    """Targets that are not imaged, with the reason, for people."""
    asked: Mapping[str, tuple[Quantity, ...]] = field(default_factory=dict)
    """What each task asks for and why, by its name."""


def build(
    config: ProductConfig,
    product: str,
    cbid: str,
    observed: Mapping[str, Sequence[ObservedTarget]],
    telstate: tuple[str, int] | None = None,
) -> ImagingPlan:
    """Make the batch graph of a capture block; it has no tasks where there is nothing to image.

    Calibrators are imaged only when nothing else was observed.

    Parameters
    ----------
    observed
        Targets of each visibility stream that has a data set; no name stands twice in one of them.
    telstate
        Server of the product's telescope state, beside which images tell their figures; None: nowhere.
    """
    made: list[tuple[TaskTemplate, Asked]] = []
    images: list[ImageTask] = []
    skipped: list[str] = []
    for stream, model in config.outputs_of(ContinuumImage).items():
        vis = config.source(stream, Vis)[0]
        chosen, left_out = choose(stream, cbid, observed.get(vis, ()), model.min_time)
        skipped += left_out
        for one in chosen:
            task, asked = _imager(config, stream, cbid, one, telstate)
            images.append(ImageTask(stream, one.target.name, task.name, one.directory))
            made.append((task, asked))
    edges: list[Edge] = []
    for stream in config.outputs_of(SpectralImage):
        vis = config.source(stream, Vis)[0]
        plan = cubes.build(config, stream, cbid, observed.get(vis, ()), images, telstate)
        images += plan.images
        skipped += plan.skipped
        made += plan.tasks
        edges += plan.edges
    graph = LogicalGraph(f"{product}-{cbid}", tuple(task for task, _ in made), tuple(edges))
    quantities = {task.name: asked.quantities for task, asked in made}
    return ImagingPlan(graph, tuple(images), tuple(skipped), quantities)


def least_time(config: ProductConfig) -> float:
    """Return how long a target must be observed for to be in every image, seconds."""
    needs = [image.min_time for image in config.outputs_of(ContinuumImage).values()]
    needs += [image.min_time for image in config.outputs_of(SpectralImage).values()]
    return max(needs, default=0.0)


def of_one_target(config: ProductConfig, product: str, seconds: float) -> ImagingPlan:
    """Return what is made for each target that is observed for so long."""
    target = ObservedTarget("TARGET", frozenset(), seconds)
    return build(config, product, "BLOCK", {vis: [target] for vis in config.outputs_of(Vis)})


def _imager(
    config: ProductConfig,
    stream: str,
    cbid: str,
    chosen: Chosen,
    telstate: tuple[str, int] | None,
) -> tuple[TaskTemplate, Asked]:
    name = f"imager.{stream}.{cbid}.{chosen.number}"
    _, model = config.source(stream, ContinuumImage)
    asked = resources.imager(
        size=_at_most(model.parameters.get("size"), catalogue.IMAGE_SIZE, catalogue.MAX_IMAGE_SIZE),
        terms=_at_most(model.parameters.get("terms"), 1, catalogue.MAX_SPECTRAL_TERMS),
    )
    task = TaskTemplate(
        name=name,
        kind=catalogue.IMAGING.kind,
        command=(
            "python3",
            "-m",
            catalogue.IMAGING.module,
            # First, so that what follows wins: no document decides where things are written.
            *options(model.parameters),
            *queue_options(name, telstate),
            *data_options(config, stream, cbid, config.source(stream, Vis)[0], chosen),
        ),
        request=asked.request,
        ready=ReadyCheck(ReadyKind.EXIT),
        max_run_time=model.max_realtime or MAX_RUN_TIME,
    )
    return task, asked


def _at_most(value: object, default: int, largest: int) -> int:
    """Read a number from the imager's parameters; what is no such number the imager will refuse."""
    try:
        number = int(str(value))
    except ValueError:
        return default
    return min(max(number, 1), largest)
