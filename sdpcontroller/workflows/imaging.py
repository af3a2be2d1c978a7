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

_MAX_FOLDER: Final = 100
"""Characters of a target's name that its folder keeps; a file system takes 255 bytes in all."""

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
    tasks: list[TaskTemplate] = []
    images: list[ImageTask] = []
    skipped: list[str] = []
    for stream, model in config.outputs_of(ContinuumImage).items():
        seen = observed.get(config.source(stream, Vis)[0], ())
        wanted = [t for t in seen if not t.tags & _CALIBRATOR_TAGS] or seen
        directories = _directories(cbid, stream, wanted)
        for number, target in enumerate(wanted):
            if target.duration < model.min_time:
                skipped.append(
                    f"{stream}: {target.name} was observed for {target.duration:.1f} s, "
                    f"images need {model.min_time:g} s (min_time)"
                )
                continue
            image = ImageTask(
                stream, target.name, f"imager.{stream}.{cbid}.{number}", directories[number]
            )
            images.append(image)
            tasks.append(_imager(config, cbid, image, telstate))
    graph = LogicalGraph(f"{product}-{cbid}", tuple(tasks))
    return ImagingPlan(graph, tuple(images), tuple(skipped))


def _directories(cbid: str, stream: str, targets: Sequence[ObservedTarget]) -> list[str]:
    """Name a folder for each target, after it as far as a folder's name can be, no two alike."""
    safe = [re.sub(r"[^A-Za-z0-9_+-]", "_", target.name)[:_MAX_FOLDER] for target in targets]
    names: list[str] = []
    for number, name in enumerate(safe):
        # A dot makes it differ from every name that needs no number.
        names.append(name if name not in safe[:number] else f"{name}.{number}")
    return [f"{cbid}/{stream}-{name}" for name in names]


def _is_calibrated(config: ProductConfig, stream: str) -> bool:
    """Whether a stream is made from a calibration: directly, or by flags that are."""
    try:
        config.source(stream, Cal)
    except KeyError:
        return False
    return True


def _imager(
    config: ProductConfig, cbid: str, image: ImageTask, telstate: tuple[str, int] | None
) -> TaskTemplate:
    _, model = config.source(image.stream, ContinuumImage)
    vis, _ = config.source(image.stream, Vis)
    calibrated = _is_calibrated(config, image.stream)
    volume = f"{{volume[{resources.DATA_VOLUME}].path}}"
    return TaskTemplate(
        name=image.task,
        kind=catalogue.IMAGING.kind,
        command=(
            "python3",
            "-m",
            catalogue.IMAGING.module,
            # First, so that what follows wins: no document decides where things are written.
            *_options(model.parameters),
            f"--output={volume}/{image.directory}",
            f"--target={_literal(image.target)}",
            "--applycal" if calibrated else "--no-applycal",
            *_quality_queue(image, telstate),
            f"{volume}/{cbid}/{cbid}_{vis}.rdb",
        ),
        request=resources.imager().request,
        ready=ReadyCheck(ReadyKind.EXIT),
        max_run_time=model.max_realtime or MAX_RUN_TIME,
    )


def _quality_queue(image: ImageTask, telstate: tuple[str, int] | None) -> Iterator[str]:
    if telstate is not None:
        yield "--quality-queue={}:{}".format(*telstate)
        yield f"--task={image.task}"


def _options(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(parameters.items()):
        yield f"--{name.replace('_', '-')}={_literal(str(value))}"


def _literal(text: str) -> str:
    """Write text so that it comes out of the template as it is."""
    return text.replace("{", "{{").replace("}", "}}")
