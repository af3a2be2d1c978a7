"""A graph whose images are named by digest."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from scheduler.graph import PhysicalGraph, TaskTemplate
from scheduler.images.resolver import ImageResolver


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
        found[name] = (await images.resolve(name)).reference

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


def _leaf(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
