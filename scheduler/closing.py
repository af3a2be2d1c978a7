"""Hosts that an operator drains: in the journal first, then for whoever places tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from scheduler.closures import Closures
from scheduler.journal import Journal

MAX_REASON: Final = 200
"""Characters of a reason that are kept."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Drains hosts.

    Parameters
    ----------
    changed
        Is called when others are drained.
    """

    journal: Journal
    closures: Closures
    changed: Callable[[], None]

    async def drain(self, host: str, reason: str) -> None:
        """Let a host get no new tasks; raises ``JournalError`` if that could not be written."""
        said = "".join(c if c.isprintable() else " " for c in reason[:MAX_REASON])
        await self._record({**self.closures.drained, host: said})

    async def undrain(self, host: str) -> None:
        """Let a host get new tasks again; raises as :meth:`drain`."""
        await self._record({h: why for h, why in self.closures.drained.items() if h != host})

    async def _record(self, drained: Mapping[str, str]) -> None:
        await self.journal.record_drained(drained)
        self.closures.drain(drained)
        self.changed()
