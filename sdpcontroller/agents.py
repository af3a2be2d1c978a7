"""The scheduler's view of an agent, in the control plane's words."""

from __future__ import annotations

from scheduler.views import AgentView
from sdpcontroller.control import AgentRecord


def agent_record(view: AgentView) -> AgentRecord:
    """Translate what the scheduler knows of an agent into the record that façades show."""
    if view.quarantine:
        state, reason = "quarantined", view.quarantine
    elif view.drained is not None:
        state, reason = "draining", view.drained or "drained by an operator"
    elif view.condition and view.condition != "disconnected":
        state, reason = "draining", f"Mesos says {view.condition}"
    elif view.maintenance is not None:
        state, reason = "draining", f"maintenance {view.maintenance}"
    else:
        state, reason = "up" if view.active else "lost", ""
    return AgentRecord(view.host, view.agent_id, state, str(view.free), reason)
