"""What the scheduler counts as it happens, for whoever keeps figures."""

from __future__ import annotations

from typing import Protocol


class Figures(Protocol):
    """Is told of what happens; must not block. :meth:`packed` is called from a thread of its own."""

    def offered(self, count: int, what: str) -> None:
        """Offers came, or went: `what` is received, accepted, declined or rescinded."""

    def packed(self, outcome: str, seconds: float) -> None:
        """One graph was tried: `outcome` is placed, no_fit or never."""

    def waited(self, queue: str, outcome: str, seconds: float) -> None:
        """One graph waits no longer: `outcome` is placed, refused, late or withdrawn."""

    def reached(self, what: str) -> None:
        """Who goes on with what a predecessor has left has come that far: `what` is subscribed or compared."""

    def made_room(self, queue: str, count: int) -> None:
        """So many batch nodes are ended for a graph that waits in a queue."""


class NoFigures:
    """Keeps none."""

    def offered(self, count: int, what: str) -> None:
        """Forget it."""

    def packed(self, outcome: str, seconds: float) -> None:
        """Forget it."""

    def waited(self, queue: str, outcome: str, seconds: float) -> None:
        """Forget it."""

    def reached(self, what: str) -> None:
        """Forget it."""

    def made_room(self, queue: str, count: int) -> None:
        """Forget it."""
