"""What was observed, and what follows from it for every workflow that begins when a capture block has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdpcontroller.config import Cal, ProductConfig
from sdpcontroller.workflows import resources

MAX_RUN_TIME: Final = 4 * 3600.0
"""Seconds that an imager may run when the document says nothing."""

_MAX_FOLDER: Final = 100
"""Characters of a target's name that its folder keeps; a file system takes 255 bytes in all."""

_CALIBRATOR_TAGS: Final = frozenset({"bpcal", "gaincal", "delaycal", "fluxcal", "polcal"})

VOLUME: Final = f"{{volume[{resources.DATA_VOLUME}].path}}"
"""Template of the path of the data volume."""


@dataclass(frozen=True, slots=True)
class ObservedTarget:
    """A target of a capture block."""

    name: str
    tags: frozenset[str]
    duration: float
    """Seconds on the target."""


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image, or cube, that will be made."""

    stream: str
    target: str
    task: str
    """The task that makes it, or the last of those that do."""
    directory: str
    """Folder under the data volume where it will lie."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A target that is imaged for a stream."""

    target: ObservedTarget
    number: int
    """Among those of the stream, for names."""
    directory: str
    """Folder under the data volume."""


def choose(
    stream: str, cbid: str, observed: Sequence[ObservedTarget], min_time: float
) -> tuple[list[Chosen], list[str]]:
    """Decide which targets are imaged for a stream; the second list says why others are not.

    Calibrators are imaged only when nothing else was observed.
    """
    wanted = [t for t in observed if not t.tags & _CALIBRATOR_TAGS] or list(observed)
    chosen, skipped = [], []
    for number, (target, directory) in enumerate(
        zip(wanted, _directories(cbid, stream, wanted), strict=True)
    ):
        if target.duration < min_time:
            skipped.append(
                f"{stream}: {target.name} was observed for {target.duration:.1f} s, "
                f"images need {min_time:g} s (min_time)"
            )
        else:
            chosen.append(Chosen(target, number, directory))
    return chosen, skipped


def _directories(cbid: str, stream: str, targets: Sequence[ObservedTarget]) -> list[str]:
    """Name a folder for each target, after it as far as a folder's name can be, no two alike."""
    safe = [re.sub(r"[^A-Za-z0-9_+-]", "_", target.name)[:_MAX_FOLDER] for target in targets]
    names: list[str] = []
    for number, name in enumerate(safe):
        # A dot makes it differ from every name that needs no number.
        names.append(name if name not in safe[:number] else f"{name}.{number}")
    return [f"{cbid}/{stream}-{name}" for name in names]


def is_calibrated(config: ProductConfig, stream: str) -> bool:
    """Whether a stream is made from a calibration: directly, or by flags that are."""
    try:
        config.source(stream, Cal)
    except KeyError:
        return False
    return True


def options(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Parameters of the document as words of a command line."""
    for name, value in sorted(parameters.items()):
        yield f"--{name.replace('_', '-')}={literal(str(value))}"


def data_options(
    config: ProductConfig, stream: str, cbid: str, vis: str, chosen: Chosen
) -> tuple[str, ...]:
    """Which data an imager takes, and where its files go."""
    return (
        f"--output={VOLUME}/{chosen.directory}",
        f"--target={literal(chosen.target.name)}",
        "--applycal" if is_calibrated(config, stream) else "--no-applycal",
        f"{VOLUME}/{cbid}/{cbid}_{vis}.rdb",
    )


def queue_options(task: str, telstate: tuple[str, int] | None) -> tuple[str, ...]:
    """Where an imager tells its figures: beside the telescope state, if that is known."""
    if telstate is None:
        return ()
    return "--quality-queue={}:{}".format(*telstate), f"--task={task}"


def literal(text: str) -> str:
    """Write text so that it comes out of the template as it is."""
    return text.replace("{", "{{").replace("}", "}}")
