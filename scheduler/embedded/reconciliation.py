"""What the master answers when it is asked about tasks: pure functions of its books."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from scheduler.embedded.clock import Clock
from scheduler.embedded.model import AgentInfo, TaskState
from scheduler.embedded.notices import container_of, master_status
from scheduler.embedded.records import AgentRecord, Framework, Task
from scheduler.embedded.registry import Registry

_REASON = "REASON_RECONCILIATION"


class Books(Protocol):
    """What of a master is read here."""

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def agents(self) -> Mapping[str, AgentRecord]:
        """Registered agents by id."""
        ...

    @property
    def registry(self) -> Registry:
        """What is known of the others."""
        ...

    @property
    def recovered(self) -> Mapping[str, AgentInfo]:
        """Agents of an earlier master that have not registered again yet."""
        ...


def reconcile(
    books: Books, framework: Framework, task_id: str, agent_id: str | None
) -> dict[str, Any] | None:
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

    Returns
    -------
    dict or None
        None when there is no answer: an agent that may have the task has not registered again after the
        master was exchanged.
    """
    if (task := framework.tasks.get(task_id)) is not None:
        return latest_status(books, task)
    if _may_still_turn_up(books, agent_id):
        return None
    state, text = _of_unknown(books, agent_id)
    extra: dict[str, Any] = {}
    if state is TaskState.UNREACHABLE:
        since = books.registry.unreachable[agent_id or ""]
        extra["unreachable_time"] = {"nanoseconds": int(since * 1e9)}
    return master_status(
        task_id,
        framework.info.reportable(state),
        reason=_REASON,
        message=f"Reconciliation: {text}",
        agent_id=agent_id,
        time=books.clock.time(),
        **extra,
    )


def _may_still_turn_up(books: Books, agent_id: str | None) -> bool:
    return bool(books.recovered) if agent_id is None else agent_id in books.recovered


def _of_unknown(books: Books, agent_id: str | None) -> tuple[TaskState, str]:
    """Return state and text for a task that is in no book."""
    if agent_id is None:
        return TaskState.UNKNOWN, "Task is unknown"
    if agent_id in books.registry.unreachable:
        return TaskState.UNREACHABLE, "Task is unreachable"
    if agent_id in books.registry.gone:
        return TaskState.GONE_BY_OPERATOR, "Task is gone"
    if agent_id in books.agents:
        return TaskState.GONE, "Task is unknown to the agent"
    return TaskState.UNKNOWN, "Task is unknown"


def reconcile_all(books: Books, framework: Framework) -> list[dict[str, Any]]:
    """Return the statuses of all tasks of a framework that are not on unreachable agents."""
    return [latest_status(books, task) for task in framework.tasks.values()]


def latest_status(books: Books, task: Task) -> dict[str, Any]:
    """Return the newest state of a task that its framework has been told."""
    return master_status(
        task.info.id,
        task.forwarded,
        reason=_REASON,
        message="Reconciliation: Latest task state",
        agent_id=task.info.agent_id,
        time=books.clock.time(),
        **container_of(task.statuses[-1] if task.statuses else None),
    )
