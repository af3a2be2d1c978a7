"""The imaging workflow: one batch task for every target of a capture block that was observed long enough.

Pure: made from the configuration and from what was observed, when the block has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipelines import catalogue
from scheduler.graph import LogicalGraph, ReadyCheck, ReadyKind, TaskTemplate
from sdpcontroller.config import Cal, ContinuumImage, ProductConfig, Vis
from sdpcontroller.workflows import resources

MAX_RUN_TIME: Final = 4 * 3600.0
"""Seconds that an imager may run when the document says nothing."""

_CALIBRATOR_TAGS: Final = frozenset({"bpcal", "gaincal", "delaycal", "fluxcal", "polcal"})


@dataclass(frozen=True, slots=True)
class ObservedTarget:
    """A target of a capture block."""

    name: str
    tags: frozenset[str]
    duration: float
    """Seconds on the target."""


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image that will be made."""

    stream: str
    target: str
    task: str
    directory: str
    """Folder under the data volume where it will lie."""


@dataclass(frozen=True, slots=True)
class ImagingPlan:
    """The batch graph of a capture block, and what comes out of it."""

    graph: LogicalGraph
    images: tuple[ImageTask, ...]
    skipped: tuple[str, ...]
    """Targets that are not imaged, with the reason, for people."""


def build(
    config: ProductConfig, product: str, cbid: str, observed: Sequence[ObservedTarget]
) -> ImagingPlan:
    """Make the batch graph of a capture block; it has no tasks where there is nothing to image.

    Calibrators are imaged only when nothing else was observed.
    """
    tasks: list[TaskTemplate] = []
    images: list[ImageTask] = []
    skipped: list[str] = []
    wanted = [t for t in observed if not t.tags & _CALIBRATOR_TAGS] or list(observed)
    for stream, model in config.outputs_of(ContinuumImage).items():
        for number, target in enumerate(wanted):
            if target.duration < model.min_time:
                skipped.append(
                    f"{stream}: {target.name} was observed for {target.duration:.1f} s, "
                    f"images need {model.min_time:g} s (min_time)"
                )
                continue
            image = ImageTask(
                stream, target.name, f"imager.{stream}.{number}", _directory(cbid, stream, target)
            )
            images.append(image)
            tasks.append(_imager(config, cbid, image))
    graph = LogicalGraph(f"{product}-{cbid}", tuple(tasks))
    return ImagingPlan(graph, tuple(images), tuple(skipped))


def _directory(cbid: str, stream: str, target: ObservedTarget) -> str:
    return f"{cbid}/{stream}-{re.sub(r'[^A-Za-z0-9_+-]', '_', target.name)}"


def _imager(config: ProductConfig, cbid: str, image: ImageTask) -> TaskTemplate:
    _, model = config.source(image.stream, ContinuumImage)
    vis, _ = config.source(image.stream, Vis)
    calibrated = any(isinstance(s, Cal) for s in config.sources(image.stream).values())
    volume = f"{{volume[{resources.DATA_VOLUME}].path}}"
    return TaskTemplate(
        name=image.task,
        kind=catalogue.IMAGING.kind,
        command=(
            "python3",
            "-m",
            catalogue.IMAGING.module,
            f"{volume}/{cbid}/{cbid}_{vis}.rdb",
            f"--output={volume}/{image.directory}",
            f"--target={_literal(image.target)}",
            "--applycal" if calibrated else "--no-applycal",
            *_options(model.parameters),
        ),
        request=resources.imager(),
        ready=ReadyCheck(ReadyKind.EXIT),
        max_run_time=model.max_realtime or MAX_RUN_TIME,
    )


def _options(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(parameters.items()):
        yield f"--{name.replace('_', '-')}={_literal(str(value))}"


def _literal(text: str) -> str:
    """Write text so that it comes out of the template as it is."""
    return text.replace("{", "{{").replace("}", "}}")
