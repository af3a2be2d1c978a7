"""Work that goes on beside the commands; when it dies of a fault of ours, that is told, never swallowed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Background:
    """The scheduler's own asyncio tasks.

    Parameters
    ----------
    died
        Is called with the exception of every task that did not end well.
    """

    def __init__(self, died: Callable[[BaseException], None]) -> None:
        self._died = died
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False
        """Whether nothing new is begun."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on by itself; nothing happens after :meth:`close`."""
        if self.closed:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Cancel everything, and wait for its end."""
        self.closed = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.critical("the scheduler died of a fault of its own", exc_info=error)
        self._died(error)
