"""Agents that go away and come back, and what frameworks are told of it.

An agent is connected, or disconnected and perhaps on its way back, or unreachable: silent for
``agent_ping_timeout × max_agent_ping_timeouts``. An unreachable agent's tasks may well be running. One that has
unregistered, or is gone by an operator's word, is no member any more::

    connected ◄──► disconnected ──► unreachable
      ▲  │  ▲                          │
      │  │  └──────────────────────────┘
      │  └──► removed (may register anew)  /  gone (for good)
    registered
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scheduler.embedded import subscriptions
from scheduler.embedded.agent import Agent
from scheduler.embedded.model import TaskState
from scheduler.embedded.records import AgentRecord, Framework, Task
from scheduler.embedded.runs import Run

if TYPE_CHECKING:
    from scheduler.embedded.master import Master

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

    # Going away

    def disconnect(self, agent_id: str) -> None:
        """Lose the connection to an agent: its offers end, and so do tasks that are not checkpointed."""
        record = self._master.agents[agent_id]
        if not record.connected:
            return
        logger.warning("agent %s disconnected", record.info.spec.hostname)
        record.connected = record.frozen = False
        record.mailbox.clear()
        message = f"Agent {record.info.spec.hostname} disconnected"
        reason = "REASON_AGENT_DISCONNECTED"
        for framework, task in self._tasks(record):
            if not framework.info.checkpoint:
                self._master.tell(framework, task, TaskState.LOST, reason=reason, message=message)
                self._master.lose(framework, task)
        self._master.desk.withdraw(record.offers.values(), rescind=True)
        self._expect(record)

    def freeze(self, agent_id: str) -> None:
        """Let an agent neither hear nor say anything; the master notices by its silence only."""
        record = self._master.agents[agent_id]
        if record.connected and not record.frozen:
            record.frozen = True
            self._expect(record)

    def thaw(self, agent_id: str) -> None:
        """Let a frozen agent go on, with the orders that have come meanwhile."""
        record = self._master.agents[agent_id]
        if not record.frozen:
            return
        record.frozen = False
        record.stop_waiting()
        orders, record.mailbox = record.mailbox, []
        for order in orders:
            order(record.agent)
        self._resume(record)

    def unregister(self, agent_id: str, reason: str = "the agent unregistered") -> None:
        """Let an agent leave in good order; its tasks are lost, whatever a framework understands."""
        record = self._master.agents[agent_id]
        message = f"Agent {record.info.spec.hostname} removed: {reason}"
        for framework, task in self._tasks(record):
            self._master.tell(
                framework, task, TaskState.LOST, reason="REASON_AGENT_REMOVED", message=message
            )
            self._master.lose(framework, task)
        self._master.registry.remove(agent_id)
        self._remove(record)
        self._master.observers.agent_removed(agent_id)

    def mark_gone(self, agent_id: str) -> bool:
        """Let an agent never come back, on an operator's word; whether there was such an agent."""
        known = agent_id in self._master.registry.unreachable or agent_id in self._master.recovered
        record = self._master.agents.get(agent_id)
        if record is None and not known:
            return agent_id in self._master.registry.gone
        for framework, task in self._tasks_of(agent_id):
            self._master.tell(
                framework,
                task,
                TaskState.GONE_BY_OPERATOR,
                reason="REASON_AGENT_REMOVED_BY_OPERATOR"
                if framework.info.can("PARTITION_AWARE")
                else "REASON_AGENT_REMOVED",
                message="Agent has been marked gone",
            )
            if task.info.id in framework.tasks:
                self._master.lose(framework, task, TaskState.GONE_BY_OPERATOR)
            else:
                task.state = framework.info.reportable(TaskState.GONE_BY_OPERATOR)
                framework.completed.append(framework.unreachable.pop(task.info.id))
        self._master.registry.mark_gone(agent_id, self._master.clock.time())
        self._master.recovered.pop(agent_id, None)
        if record is not None:
            record.post(lambda agent: agent.shutdown())
            self._remove(record)  # of which Mesos' event stream does not tell
        return True

    def _remove(self, record: AgentRecord) -> None:
        """Let an agent whose tasks have been dealt with be no member any more."""
        agent_id = record.info.id
        self._master.desk.withdraw(record.offers.values(), rescind=True)
        self._master.maintenance.forget_agent(agent_id)
        self._master.forget_agent(record)
        self._master.tell_failure(agent_id)

    def _expect(self, record: AgentRecord) -> None:
        if record.loss is None:
            patience = self._master.settings.patience
            record.loss = self._master.clock.call_later(patience, lambda: self._unreachable(record))

    def _unreachable(self, record: AgentRecord) -> None:
        """Give an agent up, for now."""
        logger.warning("agent %s is unreachable", record.info.spec.hostname)
        now = self._master.clock.time()
        since = {"unreachable_time": {"nanoseconds": int(now * 1e9)}}
        for framework, task in self._tasks(record):
            self._master.tell(
                framework,
                task,
                TaskState.UNREACHABLE,
                reason="REASON_AGENT_REMOVED",
                message="health check timed out",
                **since,
            )
            self._master.set_aside(framework, task)
        self._master.registry.mark_unreachable(record.info.id, now)
        self._remove(record)
        self._master.observers.agent_removed(record.info.id)

    # Coming back

    def register(self, agent: Agent) -> bool:
        """Let an agent register, for the first time or with what it has of an earlier one.

        Returns
        -------
        bool
            Whether it may be a member: neither gone, nor on a machine that is down. Otherwise it has been told
            to end itself.
        """
        agent_id = agent.info.id
        master = self._master
        known = master.agents.get(agent_id)
        if known is not None:
            self._reconnect(known, agent)
            return True
        text = "Unknown agent reregistered"
        if agent_id in master.registry.unreachable:
            text = "Unreachable agent re-reregistered"
        expected = agent_id in master.recovered
        if agent_id in master.registry.gone:
            logger.warning("agent %s has been marked gone: refused", agent.info.spec.hostname)
            agent.shutdown()
            return False
        again = agent_id in master.removed_agents or bool(agent.runs)
        record = master.register(agent.info, agent)
        if master.maintenance.is_down(record):
            master.registry.remove(agent_id)
            master.forget_agent(record)
            agent.shutdown()
            return False
        if again:
            record.reregistered_time = master.clock.time()
        self._take_over(record, None if expected else text)
        self._settle(record)
        return True

    def reconnect(self, agent_id: str) -> None:
        """Let an agent that was cut off be here again, with the tasks that it still has."""
        record = self._master.find_agent(agent_id)
        if record is not None and not record.connected:
            self.register(record.agent)

    def _reconnect(self, record: AgentRecord, agent: Agent) -> None:
        """Take an agent back that was away for a moment, perhaps with another configuration."""
        record.stop_waiting()
        record.agent, record.info, record.total = agent, agent.info, agent.info.spec.pool
        self._master.registry.admit(agent.info)
        record.reregistered_time = self._master.clock.time()
        self._master.desk.attention.at(record.info.id)
        if record.connected:
            return
        record.connected = True
        self._missing(record)
        self._settle(record)

    def _take_over(self, record: AgentRecord, text: str | None) -> None:
        """Enter the tasks that an agent brings along, which this master does not have.

        Parameters
        ----------
        record
            The agent.
        text
            What frameworks are told of each; None: nothing.
        """
        for run in list(record.agent.runs.values()):
            framework = self._framework_of(run)
            if framework is None:
                continue
            state = record.agent.latest_state(run)
            task = framework.unreachable.pop(run.task.id, None) or Task(
                framework.info.id, run.task, None if run.group is None else run.group.id
            )
            task.state, task.released = state, False
            task.statuses = list(run.told)
            self._master.add_task(framework, task)
            for key, pool in record.agent.executor_pools(framework.info.id).items():
                if key not in record.executors:
                    record.executors[key] = pool
                    record.used += pool
            if state.is_terminal:
                self._master.set_task_state(task, state)
            if text is not None:
                self._tell_return(framework, task, record.agent.container_status(run, state), text)
        self._lost_meanwhile(record)

    def _tell_return(
        self, framework: Framework, task: Task, container: dict[str, Any], text: str
    ) -> None:
        """Tell that a task is there after all; its history stays what its agent knows."""
        statuses = list(task.statuses)
        self._master.tell(
            framework,
            task,
            task.state,
            reason="REASON_AGENT_REREGISTERED",
            message=text,
            container_status=container,
        )
        task.statuses = statuses

    def _framework_of(self, run: Run) -> Framework | None:
        """Return whose a run is; None, and the run ends, when that is not there any more."""
        framework = self._master.frameworks.get(run.framework.id)
        if framework is None and run.framework.id not in self._master.completed_frameworks:
            framework = subscriptions.recover(self._master, run.framework)
        if framework is not None and any(t.info.id == run.task.id for t in framework.completed):
            return None
        return framework

    def _lost_meanwhile(self, record: AgentRecord) -> None:
        """Let tasks of an agent end that were set aside and that it does not have any more."""
        for framework in self._master.frameworks.values():
            for task in list(framework.unreachable.values()):
                if task.info.agent_id == record.info.id:
                    del framework.unreachable[task.info.id]
                    framework.completed.append(task)

    def _missing(self, record: AgentRecord) -> None:
        """Let the agent report tasks that the master believes it to have, and that it does not."""
        for framework, task in self._tasks(record):
            if (framework.info.id, task.info.id) not in record.agent.runs:
                record.agent.report_unknown(framework.info, task.info)

    def _settle(self, record: AgentRecord) -> None:
        """End what nobody wants, and repeat what has been said meanwhile."""
        for run in list(record.agent.runs.values()):
            framework = self._master.frameworks.get(run.framework.id)
            if framework is None:
                record.agent.shutdown_framework(run.framework.id)
            elif run.task.id not in framework.tasks:
                record.agent.abandon(run)
        for (framework_id, task_id), grace in record.killed.items():
            record.agent.kill(framework_id, task_id, grace)
        record.killed.clear()
        if record.drain is not None:
            record.agent.drain(record.drain.max_grace)
        self._resume(record)

    def _resume(self, record: AgentRecord) -> None:
        for framework_id, framework in self._master.frameworks.items():
            if framework.connected:
                record.agent.resume_updates(framework_id)
        self._master.allocate_soon(record.info.id)

    def _tasks(self, record: AgentRecord) -> list[tuple[Framework, Task]]:
        return [
            (framework, task)
            for framework in self._master.frameworks.values()
            for task in framework.tasks_on(record.info.id)
        ]

    def _tasks_of(self, agent_id: str) -> list[tuple[Framework, Task]]:
        """Return the tasks of an agent, reachable or not."""
        return [
            (framework, task)
            for framework in self._master.frameworks.values()
            for task in (*framework.tasks.values(), *framework.unreachable.values())
            if task.info.agent_id == agent_id
        ]
