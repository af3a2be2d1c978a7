"""Telling the tasks of a product that a capture begins or ends, in the order of the data's flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from scheduler.crash_points import CrashPoint
from sdpcontroller.errors import CommandError
from sdpcontroller.products.connections import TaskConnection

Stages = Sequence[Sequence[str]]
"""Task names in the order of the data's flow, sources first."""
Connections = Mapping[str, TaskConnection]
"""Link to each task."""

BLOCK_SENSOR: Final = "capture-block-id"
"""Of every program that takes part in captures: the block it is at, empty for none."""
_AGAIN: Final = 0.25
"""Seconds between two questions whether a task has drained."""

_BEGUN: Final = CrashPoint("capture-init.stage", "the tasks of one more stage have begun the block")
_ENDED: Final = CrashPoint("capture-done.stage", "the tasks of one more stage have drained")


async def begin(stages: Stages, connections: Connections, cbid: str, timeout: float) -> None:
    """Send ``capture-init`` to every task, those that receive before those that send to them.

    Parameters
    ----------
    timeout
        Seconds for each task.

    Raises
    ------
    CommandError
        If a task refused; some may have begun then and must be told to :func:`end`.
    """

    async def tell(task: str) -> None:
        await _connection(connections, task, "capture-init").request(
            "capture-init", cbid, timeout=timeout
        )

    for stage in reversed(stages):
        failures = await _each(stage, tell)
        if failures:
            raise CommandError("; ".join(failures))
        _BEGUN.reached()


async def end(stages: Stages, connections: Connections, timeout: float) -> list[str]:
    """Send ``capture-done`` to every task, sources first; each replies when it is drained.

    A task that fails does not keep the others from draining.

    Returns
    -------
    list of str
        What went wrong, for people.
    """

    async def tell(task: str) -> None:
        await _connection(connections, task, "capture-done").request(
            "capture-done", timeout=timeout
        )

    return await _end(stages, tell)


async def end_again(
    stages: Stages, connections: Connections, cbid: str, *, timeout: float, ask: float
) -> list[str]:
    """Go on with an :func:`end` of which nobody knows how far it came: a task may drain already, or have.

    Parameters
    ----------
    ask
        Seconds within which a task must tell which block it is at.

    Returns
    -------
    list of str
        What went wrong, for people.
    """

    async def tell(task: str) -> None:
        connection = _connection(connections, task, "capture-done")
        async with asyncio.timeout(timeout):
            while await connection.sensor(BLOCK_SENSOR, timeout=ask) == cbid:
                try:
                    await connection.request("capture-done", timeout=timeout)
                except CommandError:  # it drains since it was first told
                    await asyncio.sleep(_AGAIN)

    return await _end(stages, tell)


async def _end(stages: Stages, tell: Callable[[str], Awaitable[None]]) -> list[str]:
    failures: list[str] = []
    for stage in stages:
        failures += await _each(stage, tell)
        _ENDED.reached()
    return failures


async def ask(tasks: Sequence[str], connections: Connections, timeout: float) -> dict[str, str]:
    """Ask tasks which capture block they are at; those that do not tell in time are left out."""
    told: dict[str, str] = {}

    async def one(task: str) -> None:
        told[task] = await _connection(connections, task, "question").sensor(
            BLOCK_SENSOR, timeout=timeout
        )

    await _each(tasks, one)
    return told


def _connection(connections: Connections, task: str, request: str) -> TaskConnection:
    try:
        return connections[task]
    except KeyError:  # it died since this began
        raise CommandError(f"{task} is gone: no {request}") from None


async def _each(tasks: Sequence[str], act: Callable[[str], Awaitable[None]]) -> list[str]:
    """Do the same with several tasks at once; return what went wrong."""

    async def one(task: str) -> str:
        try:
            await act(task)
        except CommandError as exc:
            return str(exc)
        except TimeoutError:
            return f"{task} has not drained in time"
        return ""

    return [failure for failure in await asyncio.gather(*map(one, tasks)) if failure]
