"""Which container image each task of a graph runs in; pure.

All programs of this project are in one image, and the controller is told which. A document may ask for another
tag of it, or for another image for programs of one kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from scheduler.graph import LogicalGraph, TaskTemplate
from sdpcontroller.config.options import Options

_TAG: Final = re.compile(r"(:[\w][\w.-]*)?(@[\w:.+-]+)?$", re.ASCII)
"""Tag and digest at the end of a reference; the port of a registry has a slash after it."""


def in_containers(graph: LogicalGraph, options: Options, image: str | None) -> LogicalGraph:
    """Return a graph whose tasks run in containers.

    Parameters
    ----------
    options
        Of the product: ``image_overrides`` names an image for a kind of program; ``image_tag`` another tag of
        the controller's image.
    image
        The controller's image. None: what has no image of its own runs as a process on its agent, whatever
        tag the document names.
    """
    if image is not None and options.image_tag is not None:
        image = with_tag(image, options.image_tag)
    tasks = _with_images(graph.tasks, options, image)
    return replace(graph, tasks=tuple(tasks))


def with_tag(reference: str, tag: str) -> str:
    """Return the reference of the same image with another tag."""
    name = _TAG.sub("", reference)
    return f"{name}:{tag}"


def _with_images(
    tasks: Iterable[TaskTemplate], options: Options, image: str | None
) -> Iterable[TaskTemplate]:
    for task in tasks:
        chosen = options.image_overrides.get(task.kind, image)
        yield task if task.image is not None else replace(task, image=chosen)
