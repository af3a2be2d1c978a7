"""Statuses that an agent or an executor makes: what a run looks like to its framework."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.embedded.checks import Check
from scheduler.embedded.identifiers import new_uuid
from scheduler.embedded.model import AgentInfo, TaskState
from scheduler.embedded.runs import Run

EXECUTOR = "SOURCE_EXECUTOR"
AGENT = "SOURCE_AGENT"


def make_status(
    info: AgentInfo,
    run: Run,
    state: TaskState,
    *,
    time: float,
    source: str = EXECUTOR,
    message: str | None = None,
    reason: str | None = None,
    data: bytes = b"",
    healthy: bool | None = None,
    limitation: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return a ``TaskStatus``, its fields in the order in which Mesos writes them.

    Parameters
    ----------
    info
        The agent.
    run, state
        Whose status it is, and which.
    time
        Unix time, s.
    source, message, reason, data, healthy, limitation
        Fields of the status; left out when there is nothing in them.
    """
    update_id = base64.b64encode(new_uuid().bytes).decode()
    status: dict[str, Any] = {"task_id": {"value": run.task.id}, "state": state.value}
    if message is not None:
        status["message"] = message
    status["source"] = source
    if reason is not None:
        status["reason"] = reason
    if data:
        status["data"] = base64.b64encode(data).decode()
    status["agent_id"] = {"value": info.id}
    status["executor_id"] = {"value": run.executor_id}
    if healthy is not None:
        status["healthy"] = healthy
    status["timestamp"] = time
    status["uuid"] = update_id
    if source == EXECUTOR:
        if (check := check_status(run)) is not None:
            status["check_status"] = check
        status["container_status"] = container_status(info, run, state)
    if limitation:
        status["limitation"] = {"resources": list(limitation)}
    return status


def check_status(run: Run) -> dict[str, Any] | None:
    """Return the ``CheckStatusInfo`` of a task with a check; that of a Docker task is never seen."""
    document = run.task.document.get("check")
    if document is None or run.task.is_docker:
        return None
    return Check.from_mesos(document).status(None) if run.checks is None else run.checks.status


def container_status(info: AgentInfo, run: Run, state: TaskState) -> dict[str, Any]:
    """Return the ``ContainerStatus``; a container inside an executor has an address only while it runs."""
    status: dict[str, Any] = {"container_id": {"value": run.container_id}}
    if run.group is not None:
        status["container_id"]["parent"] = {"value": run.group.container_id}
        if state is not TaskState.RUNNING:
            return status
    own = run.running.address if state is TaskState.RUNNING and run.running else None
    address = {"protocol": "IPv4", "ip_address": own or info.ip}
    status["network_infos"] = [{"ip_addresses": [address]}]
    if run.container is not None and run.container.pid is not None:
        status["executor_pid"] = run.container.pid
    return status


def unknown_status(
    info: AgentInfo, task_id: str, executor_id: str, state: TaskState, time: float
) -> dict[str, Any]:
    """Return what an agent says of a task that its master believes it to have, and that it does not."""
    return {
        "task_id": {"value": task_id},
        "state": state.value,
        "message": "Reconciliation: task unknown to the agent",
        "source": AGENT,
        "reason": "REASON_RECONCILIATION",
        "agent_id": {"value": info.id},
        "executor_id": {"value": executor_id},
        "timestamp": time,
        "uuid": base64.b64encode(new_uuid().bytes).decode(),
    }
