"""A graph whose images are named by digest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from scheduler.graph import PhysicalGraph, TaskTemplate
from scheduler.images.resolver import ImageResolver

logger = logging.getLogger(__name__)


async def pinned(graph: PhysicalGraph, images: ImageResolver) -> PhysicalGraph:
    """Return the graph with what its images mean now, each asked for once.

    Raises
    ------
    ImageError
        If one of them cannot be resolved.
    """
    names = {task.image for task in graph.logical.tasks if task.image is not None}
    names.update(name for task in graph.logical.tasks for name in task.gpu_images.values())
    if not names:
        return graph
    found: dict[str, str] = {}

    async def look_up(name: str) -> None:
        image = await images.resolve(name)
        found[name] = image.reference
        logger.info("%s: %s is %s%s", graph.graph_id, name, image.digest, _origin(image.labels))

    try:
        async with asyncio.TaskGroup() as group:
            for name in sorted(names):
                group.create_task(look_up(name))
    except ExceptionGroup as several:  # one reason is enough
        raise _leaf(several) from None

    def with_digests(task: TaskTemplate) -> TaskTemplate:
        image = None if task.image is None else found[task.image]
        by_gpu = {pattern: found[name] for pattern, name in task.gpu_images.items()}
        return replace(task, image=image, gpu_images=by_gpu)

    templates = tuple(map(with_digests, graph.logical.tasks))
    logical = replace(graph.logical, tasks=templates)
    tasks = {
        template.name: replace(graph.tasks[template.name], template=template)
        for template in templates
    }
    return replace(graph, logical=logical, tasks=tasks)


_ORIGIN: Final = tuple(f"org.opencontainers.image.{what}" for what in ("version", "revision"))


def _origin(labels: Mapping[str, str]) -> str:
    """Say of which code an image is made, as far as its labels do."""
    told = [
        f"{name.rpartition('.')[2]} {labels[name][:60]!r}" for name in _ORIGIN if name in labels
    ]
    return f" ({', '.join(told)})" if told else ""


def _leaf(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
