"""The spectral imaging workflow: for each target, tasks that image ranges of channels, and one that joins them.

::

    spectral.STREAM.BLOCK.0.0 ──┐
    spectral.STREAM.BLOCK.0.1 ──┼─FINISHED─► cube.STREAM.BLOCK.0
    …                           │
    imager.CONTINUUM.BLOCK.n ───┘ (before each of them, where its components are subtracted)

Channels are independent, so parts run wherever there is room, each with the memory of one channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines import catalogue
from scheduler.graph import Edge, EdgeKind, ReadyCheck, ReadyKind, TaskTemplate
from sdpcontroller.config import (
    ContinuumImage,
    ProductConfig,
    SpectralImage,
    SpectralImageParameters,
    Vis,
)
from sdpcontroller.workflows import resources
from sdpcontroller.workflows.resources import Asked
from sdpcontroller.workflows.targets import (
    MAX_RUN_TIME,
    VOLUME,
    Chosen,
    ImageTask,
    ObservedTarget,
    choose,
    data_options,
    literal,
    queue_options,
)

CUBE: Final = "cube"
"""What the files of a cube are called."""

_MAJOR_CYCLES: Final = 40
"""Of the imager, when the document says nothing of them but of minor ones."""


@dataclass(frozen=True, slots=True)
class Cubes:
    """The part of a batch graph that makes the cubes of one stream."""

    tasks: tuple[tuple[TaskTemplate, Asked], ...]
    edges: tuple[Edge, ...]
    images: tuple[ImageTask, ...]
    skipped: tuple[str, ...]


def build(
    config: ProductConfig,
    stream: str,
    cbid: str,
    observed: Sequence[ObservedTarget],
    images: Sequence[ImageTask],
    telstate: tuple[str, int] | None = None,
) -> Cubes:
    """Make the tasks for a spectral image stream.

    Parameters
    ----------
    observed
        Targets of its visibility stream.
    images
        Continuum images that are made of the block. Where the stream shall be without continuum, a target that
        has none is left out: a cube with it would not be what was asked for.
    telstate
        Where telescope state is: the figures of the cubes are told beside it.
    """
    model = config.source(stream, SpectralImage)[1]
    chosen, skipped = choose(stream, cbid, observed, model.min_time)
    continuum = _continuum_of(config, model)
    tasks: list[tuple[TaskTemplate, Asked]] = []
    edges: list[Edge] = []
    made: list[ImageTask] = []
    by_target = {image.target: image for image in images if image.stream == continuum}
    for one in chosen:
        image = by_target.get(one.target.name)
        if continuum is not None and image is None:
            skipped.append(f"{stream}: {one.target.name} has no {continuum} to subtract")
            continue
        parts = list(_parts(config, stream, cbid, one, image))
        joiner = _joiner(config, stream, cbid, one, telstate)
        tasks += [*parts, joiner]
        finished = [(joiner[0].name, part.name) for part, _ in parts]
        if image is not None:
            finished += [(part.name, image.task) for part, _ in parts]
        edges += [Edge(source, target, EdgeKind.FINISHED) for source, target in finished]
        made.append(ImageTask(stream, one.target.name, joiner[0].name, one.directory))
    return Cubes(tuple(tasks), tuple(edges), tuple(made), tuple(skipped))


def _continuum_of(config: ProductConfig, model: SpectralImage) -> str | None:
    """Name of the continuum image stream that is subtracted."""
    names = [name for name in model.source_names if name in config.outputs_of(ContinuumImage)]
    return names[0] if names else None


def _channels(config: ProductConfig, stream: str) -> tuple[int, int]:
    model = config.source(stream, SpectralImage)[1]
    return model.output_channels or (0, config.vis(stream).n_chans)


def _parts(
    config: ProductConfig, stream: str, cbid: str, chosen: Chosen, image: ImageTask | None
) -> Iterator[tuple[TaskTemplate, Asked]]:
    """Tasks for ranges of channels, as equal as they can be."""
    first, end = _channels(config, stream)
    n_parts = math.ceil((end - first) / catalogue.CUBE_CHANNELS)
    edges = [first + (end - first) * n // n_parts for n in range(n_parts + 1)]
    model = config.source(stream, SpectralImage)[1]
    vis = config.source(stream, Vis)[0]
    asked = resources.spectral_imager(
        n_antennas=len(config.antenna_names(stream)),
        dumps=math.ceil(chosen.target.duration / config.vis(stream).int_time),
    )
    subtract = () if image is None else (f"--subtract={_components(config, image)}",)
    for number in range(n_parts):
        task = TaskTemplate(
            name=f"spectral.{stream}.{cbid}.{chosen.number}.{number}",
            kind=catalogue.SPECTRAL_IMAGING.kind,
            command=(
                "python3",
                "-m",
                catalogue.SPECTRAL_IMAGING.module,
                *(f"--{name}={value}" for name, value in imager_options(model.parameters).items()),
                f"--channels={edges[number]}:{edges[number + 1]}",
                *subtract,
                f"--name={CUBE}",
                "--part",
                *data_options(config, stream, cbid, vis, chosen),
            ),
            request=asked.request,
            ready=ReadyCheck(ReadyKind.EXIT),
            max_run_time=MAX_RUN_TIME,
        )
        yield task, asked


def _components(config: ProductConfig, image: ImageTask) -> str:
    """Where the components of a continuum image lie."""
    name = config.source(image.stream, ContinuumImage)[1].parameters.get("name", "image")
    return f"{VOLUME}/{image.directory}/{literal(str(name))}-components.fits"


def imager_options(parameters: SpectralImageParameters) -> Mapping[str, float]:
    """Options of the spectral imager for what the document says in MeerKAT's terms.

    Those about the gridder (its kernel, its slices in w) have no meaning for ours, which has an accuracy.
    """
    names = {
        "robust": parameters.robustness,
        "gain": parameters.loop_gain,
        "sigmas": parameters.threshold,
        "major-cycles": parameters.major,
    }
    if parameters.minor is not None:
        names["niter"] = parameters.minor * (parameters.major or _MAJOR_CYCLES)
    return {name: value for name, value in names.items() if value is not None}


def _joiner(
    config: ProductConfig,
    stream: str,
    cbid: str,
    chosen: Chosen,
    telstate: tuple[str, int] | None,
) -> tuple[TaskTemplate, Asked]:
    name = f"cube.{stream}.{cbid}.{chosen.number}"
    first, end = _channels(config, stream)
    asked = resources.cube_joiner()
    task = TaskTemplate(
        name=name,
        kind=catalogue.CUBE_JOINING.kind,
        command=(
            "python3",
            "-m",
            catalogue.CUBE_JOINING.module,
            f"--name={CUBE}",
            f"--channels={first}:{end}",
            *queue_options(name, telstate),
            f"{VOLUME}/{chosen.directory}",
        ),
        request=asked.request,
        ready=ReadyCheck(ReadyKind.EXIT),
        max_run_time=MAX_RUN_TIME,
    )
    return task, asked
