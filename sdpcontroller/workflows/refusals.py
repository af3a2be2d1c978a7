"""What a document may ask for in form, and no workflow makes; and overrides of what there is not."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from sdpcontroller.config import (
    Beamformer,
    BeamformerEngineering,
    ProductConfig,
    SimBaselineCorrelationProducts,
    SpectralImage,
    Vis,
)
from sdpcontroller.config.problems import Problem, refuse, suggestion

_NOT_MADE: Final = (Beamformer, BeamformerEngineering)
"""Outputs that the document may name and no workflow makes yet."""


def check_is_made(config: ProductConfig) -> None:
    """Refuse outputs that no workflow makes, and inputs that none reads.

    Raises
    ------
    ConfigError
        Naming all of them.
    """
    _raise([*_outputs(config), *_inputs(config)])


def check_overrides(config: ProductConfig, tasks: Collection[str]) -> None:
    """Refuse overrides that would change nothing: of a task that the graph has not.

    Raises
    ------
    ConfigError
        Naming all of them, with what was meant perhaps.
    """
    known = ", ".join(sorted(tasks))
    _raise(
        Problem(
            ("config", "service_overrides", name),
            f"there is no task of this name{suggestion(name, tasks)} (tasks: {known})",
        )
        for name in config.config.service_overrides
        if name not in tasks
    )


def _raise(problems: Iterator[Problem] | list[Problem]) -> None:
    if found := list(problems):
        raise refuse(found)


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
