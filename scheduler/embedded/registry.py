"""What of a master outlives it.

Mesos keeps the list of agents, and which of them are unreachable or gone, in a registry. With ``in_memory`` it
is lost with the master, with ``replicated_log`` the next master finds it. Frameworks and tasks are in neither:
they are told by the agents that come back.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field

from scheduler.embedded.model import AgentInfo

MAX_AGENTS = 102_400
"""Unreachable and gone agents that are remembered, each (Mesos: ``--registry_max_agent_count``)."""


class RegistryKind(enum.StrEnum):
    """Mesos' ``--registry``."""

    IN_MEMORY = "in_memory"
    REPLICATED_LOG = "replicated_log"


@dataclass(slots=True, eq=False)
class Registry:
    """The agents that a cluster knows."""

    kind: RegistryKind = RegistryKind.IN_MEMORY
    admitted: dict[str, AgentInfo] = field(default_factory=dict)
    unreachable: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """Since when (Unix time, s)."""
    gone: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """Since when an operator has said so."""

    def admit(self, info: AgentInfo) -> None:
        """Note that an agent is a member, from now on or again."""
        self.unreachable.pop(info.id, None)
        self.admitted[info.id] = info

    def remove(self, agent_id: str) -> None:
        """Forget an agent that has left in good order."""
        self.admitted.pop(agent_id, None)
        self.unreachable.pop(agent_id, None)

    def mark_unreachable(self, agent_id: str, time: float) -> None:
        """Note that an agent does not answer."""
        self.admitted.pop(agent_id, None)
        _remember(self.unreachable, agent_id, time)

    def mark_gone(self, agent_id: str, time: float) -> None:
        """Note that an agent will never come back."""
        self.remove(agent_id)
        _remember(self.gone, agent_id, time)

    def inherited(self) -> Registry:
        """Return what the next master starts with."""
        return self if self.kind is RegistryKind.REPLICATED_LOG else Registry(self.kind)


def _remember(agents: OrderedDict[str, float], agent_id: str, time: float) -> None:
    agents[agent_id] = time
    while len(agents) > MAX_AGENTS:
        agents.popitem(last=False)
