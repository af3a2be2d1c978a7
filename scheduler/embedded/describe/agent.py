"""An agent's own JSON endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scheduler.embedded.agent import Agent, Run
from scheduler.embedded.describe.master import AGENT_CAPABILITIES
from scheduler.embedded.describe.tasks import task_json
from scheduler.embedded.describe.values import attributes_json, resources_json
from scheduler.embedded.master import VERSION, Master
from scheduler.embedded.model import TaskState
from scheduler.embedded.records import Framework, Task


def agent_state_json(master: Master, agent: Agent) -> dict[str, Any]:
    """Return an agent's own ``/state``, where tools find the folders of sandboxes."""
    record = master.agents[agent.info.id]
    total = resources_json(record.total)
    runs: dict[str, tuple[list[Run], list[Run]]] = {}
    for run in agent.runs.values():
        runs.setdefault(run.framework.id, ([], []))[0].append(run)
    for run in agent.completed.values():
        runs.setdefault(run.framework.id, ([], []))[1].append(run)
    present = {i: r for i, r in runs.items() if i in master.frameworks}
    return {
        "version": VERSION,
        "start_time": record.registered_time,
        "id": agent.info.id,
        "pid": agent.info.pid,
        "hostname": agent.info.spec.hostname,
        "capabilities": list(AGENT_CAPABILITIES),
        "resources": total,
        "reserved_resources": {},
        "unreserved_resources": total,
        "reserved_resources_allocated": {},
        "unreserved_resources_allocated": resources_json(record.used),
        "resource_providers": [],
        "attributes": attributes_json(agent.info.spec.attributes),
        "master_hostname": master.hostname,
        "flags": {},
        "frameworks": [_agent_framework(master, *present[i]) for i in present],
        "completed_frameworks": [
            _agent_framework(master, *runs[i]) for i in runs if i not in present
        ],
    }


def _agent_framework(master: Master, live: Sequence[Run], ended: Sequence[Run]) -> dict[str, Any]:
    info = (*live, *ended)[0].framework
    return {
        "id": info.id,
        "name": info.name,
        "user": info.user,
        "failover_timeout": info.failover_timeout,
        "checkpoint": info.checkpoint,
        "hostname": info.hostname,
        "roles": list(info.roles),
        "executors": [_executor(master, run, live=True) for run in live],
        "completed_executors": [_executor(master, run, live=False) for run in ended],
    }


def _executor(master: Master, run: Run, *, live: bool) -> dict[str, Any]:
    framework = master.frameworks.get(run.framework.id)
    framework = framework or master.completed_frameworks.get(run.framework.id)
    known = _known_task(framework, run.task.id)
    state = TaskState.UNKNOWN if known is None else known.state
    statuses = [] if known is None else known.statuses
    task = task_json(run.framework.id, run.task, state, statuses)
    return {
        "id": run.task.id,
        "name": f"Command Executor (Task: {run.task.id})",
        "source": run.task.id,
        "container": run.container_id,
        "directory": str(run.sandbox),
        "resources": resources_json(run.task.resources),
        "role": run.task.role,
        "labels": list(run.task.labels),
        "tasks": [task] if live else [],
        "queued_tasks": [],
        "completed_tasks": [] if live else [task],
    }


def _known_task(framework: Framework | None, task_id: str) -> Task | None:
    if framework is None:
        return None
    if (task := framework.tasks.get(task_id) or framework.unreachable.get(task_id)) is not None:
        return task
    ended = reversed(framework.completed)
    return next((task for task in ended if task.info.id == task_id), None)
