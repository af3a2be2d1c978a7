"""An agent's own JSON endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scheduler.embedded.describe.flags import agent_flags
from scheduler.embedded.describe.tasks import task_json
from scheduler.embedded.describe.values import attributes_json, resources_json
from scheduler.embedded.master import Master
from scheduler.embedded.messages import AGENT_CAPABILITIES, endpoint_resources
from scheduler.embedded.model import VERSION, TaskState
from scheduler.embedded.pool import UNRESERVED, Pool
from scheduler.embedded.records import AgentRecord, Framework, Task
from scheduler.embedded.runs import Phase, Run

_SHORT = 15
"""Characters of a command in the name of its executor."""


def agent_state_json(master: Master, record: AgentRecord) -> dict[str, Any]:
    """Return an agent's own ``/state``, where tools find the folders of sandboxes."""
    agent = record.agent
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
        **_agent_resources(record),
        "resource_providers": [],
        "attributes": attributes_json(agent.info.spec.attributes),
        "master_hostname": master.hostname,
        "flags": agent_flags(record, master),
        "frameworks": [_agent_framework(master, *present[i]) for i in present],
        "completed_frameworks": [
            _agent_framework(master, *runs[i]) for i in runs if i not in present
        ],
    }


def _agent_resources(record: AgentRecord) -> dict[str, Any]:
    def by_role(pool: Pool) -> dict[str, Any]:
        return {role: resources_json(part) for role, part in pool.reservations.items()}

    return {
        "resources": resources_json(record.total),
        "reserved_resources": by_role(record.total),
        "unreserved_resources": resources_json(record.total.reserved_for(UNRESERVED)),
        "reserved_resources_full": {
            role: endpoint_resources(Pool({role: part}))
            for role, part in record.total.reservations.items()
        },
        "unreserved_resources_full": endpoint_resources(
            Pool.unreserved(record.total.reserved_for(UNRESERVED))
        ),
        "reserved_resources_allocated": by_role(record.used),
        "unreserved_resources_allocated": resources_json(record.used.reserved_for(UNRESERVED)),
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
        "executors": _executors(master, live, present=True),
        "completed_executors": _executors(master, ended, present=False),
    }


def _executors(master: Master, runs: Sequence[Run], *, present: bool) -> list[dict[str, Any]]:
    """List executors: one for each command task, and default ones with all their tasks."""
    by_executor: dict[str, list[Run]] = {}
    for run in runs:
        container = run.container_id if run.group is None else run.group.container_id
        by_executor.setdefault(container, []).append(run)
    return [_executor(master, c, tasks, present=present) for c, tasks in by_executor.items()]


def _executor(
    master: Master, container_id: str, runs: Sequence[Run], *, present: bool
) -> dict[str, Any]:
    first, group = runs[0], runs[0].group
    tasks = [_task(master, run) for run in runs]
    pool = sum((run.task.pool for run in runs), Pool() if group is None else group.pool)
    return {
        "id": first.executor_id,
        "name": executor_name(first) if group is None else "",
        "source": first.task.id if group is None else "",
        "container": container_id,
        "directory": str(first.sandbox if group is None else group.sandbox),
        "resources": resources_json(pool),
        "role": first.task.role,
        "tasks": tasks if present else [],
        "queued_tasks": [],
        "completed_tasks": [] if present else tasks,
        **({"labels": list(first.task.labels)} if group is None and first.task.labels else {}),
        **({} if group is None else {"type": "DEFAULT"}),
    }


def executor_name(run: Run) -> str:
    """Name a command executor by its task and the beginning of its command."""
    command = run.task.document.get("command", {})
    value = str(command.get("value", ""))
    if command.get("shell", True):
        words = f"sh -c '{_short(value)}'"
    else:
        words = f"[{_short(', '.join((value, *command.get('arguments', ()))))}]"
    return f"Command Executor (Task: {run.task.id}) (Command: {words})"


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 3] + "..."


def _task(master: Master, run: Run) -> dict[str, Any]:
    framework = master.frameworks.get(run.framework.id)
    framework = framework or master.completed_frameworks.get(run.framework.id)
    known = _known_task(framework, run.task.id)
    state = TaskState.UNKNOWN if known is None else known.state
    statuses = [] if known is None else known.statuses
    executor_id = "" if run.group is None else run.group.id
    return task_json(run.framework.id, run.task, state, statuses, executor_id)


def containers_json(record: AgentRecord) -> list[dict[str, Any]]:
    """Return an agent's ``/containers``: what runs, without statistics."""
    return [
        {
            "container_id": run.container_id,
            "executor_id": run.executor_id,
            "executor_name": executor_name(run),
            "framework_id": run.framework.id,
            "source": run.task.id,
            "status": {
                name: value
                for name, value in record.agent.container_status(run, TaskState.RUNNING).items()
                if name in ("container_id", "executor_pid")
            },
        }
        for run in record.agent.runs.values()
        if run.container is not None and run.phase is not Phase.ENDED
    ]


def _known_task(framework: Framework | None, task_id: str) -> Task | None:
    if framework is None:
        return None
    if (task := framework.tasks.get(task_id) or framework.unreachable.get(task_id)) is not None:
        return task
    ended = reversed(framework.completed)
    return next((task for task in ended if task.info.id == task_id), None)
