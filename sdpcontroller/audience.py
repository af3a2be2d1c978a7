"""Who is told what changes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sdpcontroller.control import Listener

logger = logging.getLogger(__name__)


class Audience:
    """The listeners of a control plane."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> Callable[[], None]:
        """Register a listener; the returned function ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, tell: Callable[[Listener], None]) -> None:
        """Tell all of them the same."""
        for listener in tuple(self._listeners):
            try:
                tell(listener)
            except Exception:  # a façade's fault must not stop the controller in mid-act
                logger.exception("a listener failed")
