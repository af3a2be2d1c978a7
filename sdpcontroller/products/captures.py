"""Telling the tasks of a product that a capture begins or ends, in the order of the data's flow."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sdpcontroller.errors import CommandError
from sdpcontroller.products.connections import TaskConnection


async def begin(
    stages: Sequence[Sequence[str]],
    connections: Mapping[str, TaskConnection],
    cbid: str,
    timeout: float,
) -> None:
    """Send ``capture-init`` to every task, those that receive before those that send to them.

    Parameters
    ----------
    stages
        Task names in the order of the data's flow, sources first.
    connections
        Link to each task.
    cbid
        Capture block.
    timeout
        Seconds for each task.

    Raises
    ------
    CommandError
        If a task refused; some may have begun then and must be told to :func:`end`.
    """
    for stage in reversed(stages):
        failures = await _tell(stage, connections, "capture-init", cbid, timeout=timeout)
        if failures:
            raise CommandError("; ".join(failures))


async def end(
    stages: Sequence[Sequence[str]], connections: Mapping[str, TaskConnection], timeout: float
) -> list[str]:
    """Send ``capture-done`` to every task, sources first; each replies when it is drained.

    A task that fails does not keep the others from draining.

    Returns
    -------
    list of str
        What went wrong, for people.
    """
    failures: list[str] = []
    for stage in stages:
        failures += await _tell(stage, connections, "capture-done", timeout=timeout)
    return failures


async def _tell(
    tasks: Sequence[str],
    connections: Mapping[str, TaskConnection],
    request: str,
    *args: object,
    timeout: float,
) -> list[str]:
    """Make the same request to several tasks at once; return what went wrong."""

    async def tell(task: str) -> None:
        connection = connections.get(task)
        if connection is None:  # it died since this began
            raise CommandError(f"{task} is gone: no {request}")
        await connection.request(request, *args, timeout=timeout)

    replies = await asyncio.gather(*map(tell, tasks), return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException) and not isinstance(reply, CommandError):
            raise reply
    return [str(reply) for reply in replies if isinstance(reply, CommandError)]
