"""Tasks as the JSON endpoints show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.embedded.describe.values import resources_json
from scheduler.embedded.model import TaskInfo, TaskState, container_message
from scheduler.embedded.records import Task


def _status_json(status: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"state": status["state"], "timestamp": status["timestamp"]}
    if "container_status" in status:
        container = dict(status["container_status"])
        container.pop("executor_pid", None)
        shown["container_status"] = container
    return shown


def task_json(
    framework_id: str,
    task: TaskInfo,
    state: TaskState,
    statuses: Sequence[Mapping[str, Any]],
    executor_id: str = "",
) -> dict[str, Any]:
    """Write a task as ``/tasks`` has it."""
    shown: dict[str, Any] = {
        "id": task.id,
        "name": task.name,
        "framework_id": framework_id,
        "executor_id": executor_id,
        "slave_id": task.agent_id,
        "state": state.value,
        "resources": resources_json(task.resources),
        "role": task.role,
        "statuses": [_status_json(status) for status in statuses],
    }
    if task.labels:
        shown["labels"] = list(task.labels)
    for name in ("discovery", "health_check"):
        if name in task.document:
            shown[name] = task.document[name]
    if "container" in task.document:
        shown["container"] = container_message(task.document["container"])
    return shown


def known_task_json(task: Task) -> dict[str, Any]:
    """Write a task as the master knows it."""
    return task_json(
        task.framework_id, task.info, task.state, task.statuses, task.executor_id or ""
    )
