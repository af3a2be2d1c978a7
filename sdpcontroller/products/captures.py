"""Telling the tasks of a product that a capture begins or ends, in the order of the data's flow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

from scheduler.crash_points import CrashPoint
from sdpcontroller.errors import CommandError
from sdpcontroller.products.connections import TaskConnection

logger = logging.getLogger(__name__)

Stages = Sequence[Sequence[str]]
"""Task names in the order of the data's flow, sources first."""
Connections = Mapping[str, TaskConnection]
"""Link to each task."""
Told = Mapping[str, TaskConnection]
"""The link on which each task was told something."""

BLOCK_SENSOR: Final = "capture-block-id"
"""Of every program that takes part in captures: the block it is at, empty for none."""
_AGAIN: Final = 0.25
"""Seconds between two questions whether a task has drained."""

_BEGUN: Final = CrashPoint("capture-init.stage", "the tasks of one more stage have begun the block")
_ENDED: Final = CrashPoint("capture-done.stage", "the tasks of one more stage have drained")


async def begin(
    stages: Stages,
    connections: Connections,
    cbid: str,
    timeout: float,
    expendable: Collection[str] = (),
) -> Told:
    """Send ``capture-init`` to every task, those that receive before those that send to them.

    Parameters
    ----------
    timeout
        Seconds for each task.
    expendable
        Tasks that an observation can do without: one that fails is logged, and keeps nobody from beginning.

    Returns
    -------
    Told
        The links on which tasks were told, for :func:`catch_up`.

    Raises
    ------
    CommandError
        If a task refused; some may have begun then and must be told to :func:`end`.
    """
    told: dict[str, TaskConnection] = {}

    async def tell(task: str) -> None:
        told[task] = _connection(connections, task, "capture-init")
        await told[task].request("capture-init", cbid, timeout=timeout)

    for stage in reversed(stages):
        if failures := _grave(await _each(stage, tell), expendable):
            raise CommandError("; ".join(failures))
        _BEGUN.reached()
    return told


async def catch_up(late: Connections, cbid: str, *, timeout: float, ask: float) -> dict[str, str]:
    """Send ``capture-init`` to tasks that were started anew while the others began, or went on.

    Parameters
    ----------
    ask
        Seconds within which one that refuses must tell which block it is at: it may have been told already.

    Returns
    -------
    dict of str to str
        What went wrong, by task.
    """

    async def tell(task: str) -> None:
        """Send ``capture-init``; one that refuses may have been told already, and then is at the block."""
        try:
            await late[task].request("capture-init", cbid, timeout=timeout)
        except CommandError:
            if await late[task].sensor(BLOCK_SENSOR, timeout=ask) != cbid:
                raise

    return await _each(tuple(late), tell)


async def end(
    stages: Stages, connections: Connections, timeout: float, expendable: Collection[str] = ()
) -> list[str]:
    """Send ``capture-done`` to every task, sources first; each replies when it is drained.

    A task that fails does not keep the others from draining.

    Returns
    -------
    list of str
        What went wrong, for people; of `expendable` tasks that is only logged.
    """

    async def tell(task: str) -> None:
        await _connection(connections, task, "capture-done").request(
            "capture-done", timeout=timeout
        )

    return await _end(stages, tell, expendable)


async def end_again(
    stages: Stages,
    connections: Connections,
    cbid: str,
    *,
    timeout: float,
    ask: float,
    expendable: Collection[str] = (),
) -> list[str]:
    """Go on with an :func:`end` of which nobody knows how far it came: a task may drain already, or have.

    Parameters
    ----------
    ask
        Seconds within which a task must tell which block it is at.

    Returns
    -------
    list of str
        What went wrong, for people; of `expendable` tasks that is only logged.
    """

    async def tell(task: str) -> None:
        """Send ``capture-done`` until the task is no longer at the block."""
        connection = _connection(connections, task, "capture-done")
        async with asyncio.timeout(timeout):
            while await connection.sensor(BLOCK_SENSOR, timeout=ask) == cbid:
                try:
                    await connection.request("capture-done", timeout=timeout)
                except CommandError:  # it drains since it was first told
                    await asyncio.sleep(_AGAIN)

    return await _end(stages, tell, expendable)


async def _end(
    stages: Stages, tell: Callable[[str], Awaitable[None]], expendable: Collection[str]
) -> list[str]:
    failures: list[str] = []
    for stage in stages:
        failures += _grave(await _each(stage, tell), expendable)
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


async def _each(tasks: Sequence[str], act: Callable[[str], Awaitable[None]]) -> dict[str, str]:
    """Do the same with several tasks at once; return what went wrong, by task."""

    async def one(task: str) -> str:
        """Do it with one task; return what went wrong, empty if nothing."""
        try:
            await act(task)
        except CommandError as exc:
            return str(exc)
        except TimeoutError:
            return f"{task} has not drained in time"
        return ""

    answers = zip(tasks, await asyncio.gather(*map(one, tasks)), strict=True)
    return {task: failure for task, failure in answers if failure}


def _grave(failures: Mapping[str, str], expendable: Collection[str]) -> list[str]:
    """Log the failures of tasks that an observation can do without; return the others."""
    for task in failures.keys() & set(expendable):
        logger.warning("the observation goes on without it: %s", failures[task])
    return [failure for task, failure in failures.items() if task not in expendable]
