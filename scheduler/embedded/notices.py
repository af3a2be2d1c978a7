"""Statuses that a master makes itself; they carry no uuid and need no acknowledgement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.embedded.model import TaskState


def master_status(
    task_id: str,
    state: TaskState,
    *,
    reason: str,
    message: str,
    agent_id: str | None,
    time: float,
    **extra: Any,
) -> dict[str, Any]:
    """Return a ``TaskStatus``, its fields in the order in which Mesos writes them.

    Parameters
    ----------
    task_id
        The task.
    state
        As its framework understands it.
    reason, message
        Why.
    agent_id
        Where it was, None when nobody has said.
    time
        Unix time, s.
    extra
        Further fields.
    """
    status: dict[str, Any] = {
        "task_id": {"value": task_id},
        "state": state.value,
        "message": message,
        "source": "SOURCE_MASTER",
        "reason": reason,
    }
    if agent_id is not None:
        status["agent_id"] = {"value": agent_id}
    return status | {"timestamp": time} | extra


def container_of(status: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the ``container_status`` of a status, as a field for another one."""
    if status is None or "container_status" not in status:
        return {}
    return {"container_status": status["container_status"]}


def remember(statuses: list[Mapping[str, Any]], status: Mapping[str, Any]) -> None:
    """Keep a status in the history of a task, without its data; the next of the same state replaces it."""
    if statuses and statuses[-1]["state"] == status["state"]:
        statuses.pop()
    statuses.append({name: value for name, value in status.items() if name != "data"})
