"""Agents that take no new tasks for a while, or only short ones: drained, or due for maintenance.

Mesos announces maintenance in every offer of the agent (``unavailability``) and asks whoever holds something
there to leave, by an inverse offer. A task without a limit to its run time gets no place on such an
agent; one with a limit does if it ends before the window begins; one that tolerates maintenance always does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from scheduler.graph import TaskTemplate
from scheduler.packing import Idle
from scheduler.topology import AgentSnapshot

MAX_WINDOWS: Final = 100_000
"""Agents whose maintenance is remembered."""


@dataclass(frozen=True, slots=True)
class Window:
    """When an agent will not be there; Unix time, s."""

    start: float
    end: float = math.inf

    def __str__(self) -> str:
        """Say it for people: ``from 2026-11-25 10:00 UTC to 2026-11-25 11:00 UTC``."""
        until = "" if math.isinf(self.end) else f" to {_utc(self.end)}"
        return f"from {_utc(self.start)}{until}"


def _utc(unix: float) -> str:
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return "a time that no calendar has"


def read_window(message: Mapping[str, Any]) -> Window | None:
    """Read the ``Unavailability`` of an offer or inverse offer; None when there is none.

    One that cannot be read counts as for ever: nothing is placed there on a guess.
    """
    if (unavailability := message.get("unavailability")) is None:
        return None
    try:
        start = float(unavailability["start"]["nanoseconds"]) / 1e9
        duration = unavailability.get("duration")
        length = math.inf if duration is None else float(duration["nanoseconds"]) / 1e9
    except (KeyError, TypeError, ValueError, AttributeError):
        return Window(0.0)
    return Window(start, start + length)


def stay(templates: Iterable[TaskTemplate]) -> float:
    """Return for how many seconds the agents of these tasks must be there."""
    return max((_stay(template) for template in templates), default=0.0)


def _stay(template: TaskTemplate) -> float:
    if template.tolerates_maintenance:
        return 0.0
    if template.max_run_time is None:
        return math.inf
    return template.launch_timeout + template.max_run_time


class Closures:
    """What is known of agents that take no tasks."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._drained: dict[str, str] = {}
        self.version = 0
        """Grows with every change."""

    @property
    def drained(self) -> Mapping[str, str]:
        """Hosts that an operator has drained, and why."""
        return self._drained

    def drain(self, drained: Mapping[str, str]) -> None:
        """Drain exactly these hosts."""
        self._drained = dict(drained)
        self.version += 1

    def note(self, offers: Iterable[Mapping[str, Any]]) -> bool:
        """Learn from offers and inverse offers, and tell whether anything is new."""
        changed = False
        for offer in offers:
            try:
                agent_id = str(offer["agent_id"]["value"])
            except (KeyError, TypeError):
                continue
            window = read_window(offer)
            if self._windows.get(agent_id) != window:
                changed = True
                self._windows.pop(agent_id, None)
                if window is not None and len(self._windows) < MAX_WINDOWS:
                    self._windows[agent_id] = window
        self.version += changed
        return changed

    def forget(self, agent_id: str) -> None:
        """Forget an agent that is gone."""
        self.version += self._windows.pop(agent_id, None) is not None

    def window(self, agent_id: str) -> Window | None:
        """Return when an agent will not be there, as Mesos last told."""
        return self._windows.get(agent_id)

    def why_not(self, agent: AgentSnapshot, stay: float, now: float) -> str:
        """Say why tasks get no place on an agent; empty, if they may.

        Parameters
        ----------
        stay
            For how many seconds the agent must be there.
        now
            Unix time, s: that is what maintenance is announced in.
        """
        if agent.host in self._drained:
            reason = self._drained[agent.host]
            return "drained" + (f" ({reason})" if reason else "")
        window = self._windows.get(agent.mesos_agent_id)
        if window is None or window.end <= now or now + stay <= window.start:
            return ""
        return f"due for maintenance {window}"

    def open(
        self, agents: Sequence[AgentSnapshot], stay: float, now: float
    ) -> Sequence[AgentSnapshot]:
        """Return the agents that may be used."""
        if not self._drained and not self._windows:
            return agents
        return [agent for agent in agents if not self.why_not(agent, stay, now)]

    def closed(self, agents: Sequence[AgentSnapshot], stay: float, now: float) -> list[Idle]:
        """Return the agents that may not be used, with the reason."""
        return [
            Idle(host=agent.host, reason=reason, agent=agent)
            for agent in agents
            if (reason := self.why_not(agent, stay, now))
        ]
