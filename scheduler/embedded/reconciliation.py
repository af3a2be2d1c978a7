"""What the master answers when it is asked about tasks: pure functions of its books."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from scheduler.embedded.clock import Clock
from scheduler.embedded.model import TaskState
from scheduler.embedded.records import AgentRecord, Framework, Task


class Books(Protocol):
    """What of a master is read here."""

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def agents(self) -> Mapping[str, AgentRecord]:
        """Agents by id."""
        ...


def reconcile(
    books: Books, framework: Framework, task_id: str, agent_id: str | None
) -> dict[str, Any]:
    """Return the status of one task that a framework has asked for.

    Parameters
    ----------
    books
        The master's.
    framework
        Who asks.
    task_id
        The task.
    agent_id
        Where the framework believes it to be; a task that is known is found without.
    """
    if (task := framework.tasks.get(task_id)) is not None:
        return latest_status(books, task)
    agent = None if agent_id is None else books.agents.get(agent_id)
    if agent is None:
        state, text = TaskState.UNKNOWN, "Reconciliation: Task is unknown"
    elif agent.unreachable_since is not None:
        state, text = TaskState.UNREACHABLE, "Reconciliation: Task is unreachable"
    else:
        state, text = TaskState.GONE, "Reconciliation: Task is unknown to the agent"
    status = _status(books, task_id, framework.info.reportable(state), text, agent_id)
    if agent is not None and agent.unreachable_since is not None:
        status["unreachable_time"] = {"nanoseconds": int(agent.unreachable_since * 1e9)}
    return status


def reconcile_all(books: Books, framework: Framework) -> list[dict[str, Any]]:
    """Return the statuses of all tasks of a framework that are not on unreachable agents."""
    return [latest_status(books, task) for task in framework.tasks.values()]


def latest_status(books: Books, task: Task) -> dict[str, Any]:
    """Return the newest state of a task that its framework has been told."""
    text = "Reconciliation: Latest task state"
    status = _status(books, task.info.id, task.forwarded, text, task.info.agent_id)
    return status | _container(task)


def _container(task: Task) -> dict[str, Any]:
    last = task.statuses[-1] if task.statuses else {}
    return {"container_status": last["container_status"]} if "container_status" in last else {}


def _status(
    books: Books, task_id: str, state: TaskState, text: str, agent_id: str | None
) -> dict[str, Any]:
    status: dict[str, Any] = {
        "task_id": {"value": task_id},
        "state": state.value,
        "message": text,
        "source": "SOURCE_MASTER",
        "reason": "REASON_RECONCILIATION",
    }
    if agent_id is not None:
        status["agent_id"] = {"value": agent_id}
    return status | {"timestamp": books.clock.time()}
