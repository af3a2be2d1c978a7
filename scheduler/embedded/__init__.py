"""A Mesos-compatible master with its agents in one process."""

from __future__ import annotations

from scheduler.embedded.cluster import Cluster
from scheduler.embedded.model import AgentSpec

__all__ = ["AgentSpec", "Cluster"]
