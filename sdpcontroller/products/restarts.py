"""When a task that died, and is not critical, is started again: a policy per kind of program. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How often, and after what pause; in seconds."""

    limit: int = 5
    """Restarts in a row; then the task stays dead until an operator restarts it."""
    first: float = 0.5
    """Pause before the first restart of a row; each further one takes twice as long."""
    longest: float = 30.0
    calm: float = 300.0
    """A task that lived for that long begins a new row."""


POLICIES: Final[Mapping[str, RestartPolicy]] = {}
"""By kind of program, where the usual policy does not do."""


@dataclass(frozen=True, slots=True)
class Row:
    """The restarts of one task, one soon after the other."""

    count: int = 0
    last: float = 0.0
    """When the last one was; monotonic."""

    def after_death(self, policy: RestartPolicy, now: float) -> tuple[Row, float | None]:
        """Decide what follows a death.

        Returns
        -------
        row, pause
            The row with the next restart in it, and how long to wait for it; None when there is to be none.
        """
        calm = self.count and now - self.last >= policy.calm
        count = 0 if calm else self.count
        if count >= policy.limit:
            return replace(self, count=count), None
        pause = min(policy.first * 2**count, policy.longest)
        return Row(count + 1, now + pause), pause
