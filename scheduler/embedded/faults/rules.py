"""What is done to events and calls on their way: pure descriptions, and whom they meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Drop:
    """Lose it. A call is answered with 202 all the same."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Deliver it later, and what comes after it perhaps before it."""

    seconds: float
    """A call is answered only then."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Deliver it more than once, in a row."""

    copies: int = 2


@dataclass(frozen=True, slots=True)
class Reorder:
    """Keep it back until the next event of the same stream that the rule meets, and deliver it after that."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a call with an error, and do not follow it."""

    status: int = 503
    text: str = ""


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answer a call; the connection stays open."""


EventAction: TypeAlias = Drop | Delay | Duplicate | Reorder
CallAction: TypeAlias = Drop | Delay | Refuse | Hang


@dataclass(slots=True, eq=False, kw_only=True)
class Rule:
    """Whom a fault meets, and how often. Names may hold ``*`` and ``?``."""

    kind: str | None = None
    """Type of the event or call: UPDATE, ACCEPT, …"""
    framework: str | None = None
    task: str | None = None
    agent: str | None = None
    """Id of an agent, in updates and acknowledgements."""
    state: str | None = None
    """Of an update: TASK_RUNNING, …"""
    times: float = math.inf
    """How often it is still to meet somebody."""
    met: int = field(default=0, init=False)
    """How often it has."""

    def meets(self, message: Mapping[str, Any], framework_id: str) -> bool:
        """Whether it applies to an event or call; then that counts."""
        if self.times <= 0 or not self._fits(message, framework_id):
            return False
        self.times -= 1
        self.met += 1
        return True

    def _fits(self, message: Mapping[str, Any], framework_id: str) -> bool:
        body = message.get(message["type"].lower(), {})
        about = body.get("status", body)
        return (
            like(self.kind, message["type"])
            and like(self.framework, framework_id)
            and like(self.task, about.get("task_id", {}).get("value", ""))
            and like(self.agent, about.get("agent_id", {}).get("value", ""))
            and like(self.state, about.get("state", ""))
        )


@dataclass(slots=True, eq=False, kw_only=True)
class EventRule(Rule):
    """A fault of events on their way to frameworks."""

    action: EventAction


@dataclass(slots=True, eq=False, kw_only=True)
class CallRule(Rule):
    """A fault of calls on their way to the master."""

    action: CallAction


def like(pattern: str | None, text: str) -> bool:
    """Whether a name fits a pattern; None fits all."""
    return pattern is None or fnmatchcase(text, pattern)
