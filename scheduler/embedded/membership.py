"""Agents that go away and come back, and what frameworks are told of it.

An agent is connected, or disconnected and perhaps on its way back, or unreachable: away for
``agent_ping_timeout × max_agent_ping_timeouts``. An unreachable agent's tasks may well be running::

    connected ◄──► disconnected ──► unreachable
        ▲──────────────────────────────┘
"""

from __future__ import annotations

import logging
from typing import Any

from scheduler.embedded.master import Master
from scheduler.embedded.model import TaskState
from scheduler.embedded.records import AgentRecord, Framework, Task

logger = logging.getLogger(__name__)


class Membership:
    """Takes note of agents' comings and goings.

    Parameters
    ----------
    master
        Whose books are changed.
    """

    def __init__(self, master: Master) -> None:
        self._master = master

    def disconnect(self, agent_id: str) -> None:
        """Lose the connection to an agent: its offers end, and so do tasks that are not checkpointed."""
        record = self._master.agents[agent_id]
        if not record.connected:
            return
        logger.warning("agent %s disconnected", record.info.spec.hostname)
        record.connected = False
        self._master.desk.withdraw(record.offers.values(), rescind=True)
        message = f"Agent {record.info.spec.hostname} disconnected"
        for framework, task in self._tasks(record):
            if not framework.info.checkpoint:
                self._tell(framework, task, TaskState.LOST, "REASON_AGENT_DISCONNECTED", message)
                self._master.lose(framework, task)
        settings = self._master.settings
        delay = settings.agent_ping_timeout * settings.max_agent_ping_timeouts
        record.loss = self._master.clock.call_later(delay, lambda: self._unreachable(record))

    def reconnect(self, agent_id: str) -> None:
        """Let an agent be there again, with the tasks that it still has."""
        record = self._master.agents[agent_id]
        if record.connected:
            return
        if record.loss is not None:
            record.loss.cancel()
            record.loss = None
        record.connected = True
        if record.unreachable_since is not None:
            record.unreachable_since = None
            self._restore(record)
        for run in list(record.agent.runs.values()):
            framework = self._master.frameworks.get(run.framework.id)
            if framework is None:
                record.agent.shutdown_framework(run.framework.id)
            elif run.task.id not in framework.tasks:
                record.agent.abandon(run)
        for framework_id in self._master.frameworks:
            record.agent.resume_updates(framework_id)
        self._master.allocate_soon()

    def _unreachable(self, record: AgentRecord) -> None:
        """Give an agent up, for now."""
        logger.warning("agent %s is unreachable", record.info.spec.hostname)
        record.loss = None
        record.unreachable_since = self._master.clock.time()
        since = {"unreachable_time": {"nanoseconds": int(record.unreachable_since * 1e9)}}
        reason, text = "REASON_AGENT_REMOVED", "health check timed out"
        for framework, task in self._tasks(record):
            self._tell(framework, task, TaskState.UNREACHABLE, reason, text, since)
            self._master.set_aside(framework, task)
        for framework in self._master.frameworks.values():
            framework.send("FAILURE", agent_id={"value": record.info.id})

    def _restore(self, record: AgentRecord) -> None:
        """Take the tasks of an agent back that was unreachable."""
        text = "Unreachable agent re-reregistered"
        for framework in self._master.frameworks.values():
            for task in list(framework.unreachable.values()):
                if task.info.agent_id != record.info.id:
                    continue
                del framework.unreachable[task.info.id]
                run = record.agent.runs.get((framework.info.id, task.info.id))
                if run is None:
                    framework.completed.append(task)
                    continue
                state = record.agent.latest_state(run)
                self._master.take_back(framework, task, state)
                container = {"container_status": record.agent.container_status(run)}
                self._tell(framework, task, state, "REASON_AGENT_REREGISTERED", text, container)

    def _tasks(self, record: AgentRecord) -> list[tuple[Framework, Task]]:
        return [
            (framework, task)
            for framework in self._master.frameworks.values()
            for task in framework.tasks.values()
            if task.info.agent_id == record.info.id
        ]

    def _tell(
        self,
        framework: Framework,
        task: Task,
        state: TaskState,
        reason: str,
        message: str,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Send a status that the master has made; it carries no uuid and needs no acknowledgement."""
        status = {
            "task_id": {"value": task.info.id},
            "state": framework.info.reportable(state).value,
            "message": message,
            "source": "SOURCE_MASTER",
            "reason": reason,
            "agent_id": {"value": task.info.agent_id},
            "timestamp": self._master.clock.time(),
        }
        framework.send("UPDATE", status=status | (extra or {}))
