"""What one agent is made of, and how it advertises that through Mesos.

The schema of attributes and resources is written down in ``docs/reference/agents.md``. :class:`Topology` is
the machine, whatever is free on it; :class:`AgentSnapshot` adds what is free now, merged from all offers of
the agent. Facts that are malformed or contradict each other make one agent unusable, never the others:
:func:`merge_offers` reports them as :class:`Quarantined`.
"""

from __future__ import annotations

from scheduler.topology.model import Topology
from scheduler.topology.offers import (
    AgentSnapshot,
    MergedOffers,
    Quarantined,
    gathered,
    merge_agent,
    merge_offers,
)
from scheduler.topology.parts import Gpu, Nic, NumaNode, Volume, is_number, keeps, mesos_text

__all__ = [
    "AgentSnapshot",
    "Gpu",
    "MergedOffers",
    "Nic",
    "NumaNode",
    "Quarantined",
    "Topology",
    "Volume",
    "gathered",
    "is_number",
    "keeps",
    "merge_agent",
    "merge_offers",
    "mesos_text",
]
