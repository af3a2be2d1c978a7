"""What the JSON endpoints of master and agents show: pure functions of their books.

Field names and their order are those of Mesos 1.12.
"""

from __future__ import annotations

from scheduler.embedded.describe.agent import agent_state_json, containers_json
from scheduler.embedded.describe.flags import agent_flags, flags
from scheduler.embedded.describe.master import (
    frameworks_json,
    roles_json,
    slaves_json,
    state_json,
    state_summary_json,
    tasks_json,
)
from scheduler.embedded.describe.metrics import agent_metrics_json, metrics_json

__all__ = [
    "agent_flags",
    "agent_metrics_json",
    "agent_state_json",
    "containers_json",
    "flags",
    "frameworks_json",
    "metrics_json",
    "roles_json",
    "slaves_json",
    "state_json",
    "state_summary_json",
    "tasks_json",
]
