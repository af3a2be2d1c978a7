"""Whoever wants to hear of changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from scheduler.errors import SchedulerError
from scheduler.views import Change

logger = logging.getLogger(__name__)

MAX_LISTENERS: Final = 100


class Listeners:
    """Callbacks, each told of every change; a failing one harms nobody else."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Change], None]] = []

    def add(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Tell `callback` too, until the returned function is called.

        Raises
        ------
        SchedulerError
            If there are too many.
        """
        if len(self._callbacks) >= MAX_LISTENERS:
            raise SchedulerError(f"more than {MAX_LISTENERS} subscribers")
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def tell(self, change: Change) -> None:
        """Tell everybody."""
        for callback in tuple(self._callbacks):
            try:
                callback(change)
            except Exception:
                logger.exception("a subscriber failed")
