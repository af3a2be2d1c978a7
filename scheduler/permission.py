"""Whether what has ended may be started again without being asked: somebody above the scheduler may object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Refused = Callable[[str], None]
"""Is told why something is not started again yet, and what is waited for, for people."""


class Permission(Protocol):
    """Waits until a task may be started again; returns at once where nobody objects."""

    async def __call__(self, *, lost: bool, refused: Refused) -> None:
        """Wait until it may.

        Parameters
        ----------
        lost
            Whether the task was lost with its agent, as far as is known.
        refused
            Is called when it may not yet.
        """


async def granted(*, lost: bool, refused: Refused) -> None:
    """Object to nothing."""
