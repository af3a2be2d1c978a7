"""The master's ``/metrics/snapshot``."""

from __future__ import annotations

from collections import Counter

from scheduler.embedded.describe.master import COUNTED
from scheduler.embedded.master import Master
from scheduler.embedded.model import TaskState
from scheduler.embedded.pool import united
from scheduler.embedded.records import AgentRecord
from scheduler.quantities import from_millis


def metrics_json(master: Master) -> dict[str, float]:
    """Return ``/metrics/snapshot``: the gauges and counters that monitoring commonly reads."""
    agents = list(master.agents.values())
    frameworks = list(master.frameworks.values())
    metrics = {
        "master/elected": 1.0,
        "master/uptime_secs": master.clock.time() - master.start_time,
        "master/slaves_active": sum(a.connected for a in agents),
        "master/slaves_connected": sum(a.connected for a in agents),
        "master/slaves_disconnected": sum(not a.connected for a in agents),
        "master/slaves_unreachable": len(master.registry.unreachable),
        "master/frameworks_active": sum(f.connected for f in frameworks),
        "master/frameworks_connected": sum(f.connected for f in frameworks),
        "master/frameworks_disconnected": sum(not f.connected for f in frameworks),
        "master/outstanding_offers": len(master.desk.offers),
        "allocator/mesos/allocation_runs": master.counters["allocations"],
        "master/invalid_status_update_acknowledgements": master.counters[
            "invalid_acknowledgements"
        ],
    }
    total, used = united(a.total.plain for a in agents), united(a.used.plain for a in agents)
    for name in ("cpus", "mem", "disk"):
        metrics[f"master/{name}_total"] = from_millis(total.scalars.get(name, 0))
        metrics[f"master/{name}_used"] = from_millis(used.scalars.get(name, 0))
    states = Counter(task.state for f in frameworks for task in f.tasks.values())
    for state in COUNTED:
        name = f"master/tasks_{state.name.lower()}"
        counted = master.counters[f"updates/{state.value}"] if state.is_terminal else states[state]
        metrics[name] = counted
    for framework in frameworks:
        prefix = f"master/frameworks/{framework.info.name}/{framework.info.id}/calls"
        for kind, count in framework.calls.items():
            metrics[f"{prefix}/{kind}"] = count
    return {name: float(value) for name, value in sorted(metrics.items())}


def agent_metrics_json(master: Master, record: AgentRecord) -> dict[str, float]:
    """Return an agent's ``/metrics/snapshot``: the gauges that monitoring commonly reads."""
    tasks = [t for f in master.frameworks.values() for t in f.tasks_on(record.info.id)]
    states = Counter(task.state for task in tasks)
    metrics = {
        "slave/registered": float(record.connected),
        "slave/uptime_secs": master.clock.time() - record.registered_time,
        "slave/executors_running": float(len(record.agent.runs)),
    }
    total, used = record.total.plain, record.used.plain
    for name in ("cpus", "mem", "disk"):
        metrics[f"slave/{name}_total"] = from_millis(total.scalars.get(name, 0))
        metrics[f"slave/{name}_used"] = from_millis(used.scalars.get(name, 0))
    for state in (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING):
        metrics[f"slave/tasks_{state.name.lower()}"] = float(states[state])
    return dict(sorted(metrics.items()))
