"""What a document may ask for in form, and no workflow makes; and overrides of what there is not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from pipelines import catalogue
from sdpcontroller.config import (
    Beamformer,
    BeamformerEngineering,
    ContinuumImage,
    ProductConfig,
    SimBaselineCorrelationProducts,
    SpectralImage,
    Vis,
)
from sdpcontroller.config.problems import Problem, refuse, suggestion
from sdpcontroller.config.stream import Stream
from sdpcontroller.some import some

_NOT_MADE: Final = (Beamformer, BeamformerEngineering)
"""Outputs that the document may name and no workflow makes yet."""

_OFFLINE: Final[Mapping[type[Stream], frozenset[str]]] = {
    ContinuumImage: frozenset({catalogue.IMAGING.kind}),
    SpectralImage: frozenset({catalogue.SPECTRAL_IMAGING.kind, catalogue.CUBE_JOINING.kind}),
}
"""Kinds of the programs that make each output of a capture block."""

_LISTED: Final = 30
"""Names that a refusal lists."""


def check_is_made(config: ProductConfig) -> None:
    """Refuse outputs that no workflow makes, and inputs that none reads.

    Raises
    ------
    ConfigError
        Naming all of them.
    """
    refuse_if_any([*_outputs(config), *_inputs(config)])


def check_overrides(config: ProductConfig, tasks: Collection[str]) -> None:
    """Refuse overrides of tasks that there will not be.

    Parameters
    ----------
    tasks
        Names of the tasks of the real-time graph.

    Raises
    ------
    ConfigError
        Naming all of them, with what was meant perhaps.
    """
    refuse_if_any(_overridden_tasks(config, tasks))


def images_without_program(config: ProductConfig, realtime: Iterable[str]) -> Iterator[Problem]:
    """Tell of images for kinds of programs that there will not be: they change nothing.

    They are no reason to refuse: an observatory gives the same images with every configuration.

    Parameters
    ----------
    realtime
        Kinds of the tasks of the real-time graph.
    """
    kinds = {*realtime, *offline_kinds(config)}
    for kind, image in config.config.image_overrides.items():
        if kind not in kinds:
            listed = some(sorted(kinds), _LISTED)
            rule = f"it has no program of this kind{suggestion(kind, kinds)} (kinds: {listed})"
            yield Problem(("config", "image_overrides", kind), rule, image)


def refuse_if_any(found: Iterable[Problem]) -> None:
    """Raise ``ConfigError`` that tells of all problems, if there are any."""
    if problems := list(found):
        raise refuse(problems)


def _overridden_tasks(config: ProductConfig, tasks: Collection[str]) -> Iterator[Problem]:
    for name in config.config.service_overrides:
        if name not in tasks:
            listed = some(sorted(tasks), _LISTED)
            rule = f"there is no task of this name{suggestion(name, tasks)} (tasks: {listed})"
            yield Problem(("config", "service_overrides", name), rule, _given(config, name))


def _given(config: ProductConfig, task: str) -> Any:
    return config.to_json()["config"]["service_overrides"][task]


def offline_kinds(config: ProductConfig) -> frozenset[str]:
    """Return the kinds of the programs that begin when a capture block has ended."""
    return frozenset(
        kind for output, kinds in _OFFLINE.items() if config.outputs_of(output) for kind in kinds
    )


def _outputs(config: ProductConfig) -> Iterator[Problem]:
    for name, stream in config.outputs.items():
        if isinstance(stream, _NOT_MADE):
            yield Problem(("outputs", name), f"no workflow makes {stream.type} yet; leave it out")
    for name, image in config.outputs_of(SpectralImage).items():
        if image.parameters.clean_mode == "IQUV":
            path = ("outputs", name, "parameters", "clean_mode")
            yield Problem(path, "only Stokes I is imaged; leave it out")


def _inputs(config: ProductConfig) -> Iterator[Problem]:
    for name, vis in config.outputs_of(Vis).items():
        source = vis.src_streams[0]
        if not isinstance(config.stream(source), SimBaselineCorrelationProducts):
            yield Problem(
                ("outputs", name, "src_streams"),
                f"{source} is not simulated; receiving from a real correlator needs its attributes "
                "from CAM, which no workflow reads yet",
            )
