"""One agent: runs tasks with an executor and tells the master about them.

The life of a run is drawn in :mod:`~scheduler.embedded.runs`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scheduler.embedded import statuses
from scheduler.embedded.execution import Execution, Master
from scheduler.embedded.executors import Container
from scheduler.embedded.identifiers import new_uuid
from scheduler.embedded.model import (
    FrameworkInfo,
    TaskGroup,
    TaskInfo,
    TaskState,
)
from scheduler.embedded.notices import remember
from scheduler.embedded.pool import Pool
from scheduler.embedded.runs import Group, Key, Phase, Run
from scheduler.embedded.updates import StatusUpdate, UpdateStreams

logger = logging.getLogger(__name__)


class _Nobody:
    """In the place of a master while there is none: what is said is lost, and repeated later."""

    def status_update(self, agent_id: str, update: StatusUpdate, latest: TaskState) -> None:
        """Lose it."""

    def executor_ended(self, agent_id: str, framework_id: str, executor_id: str) -> None:
        """Lose it."""

    def executor_message(
        self, agent_id: str, framework_id: str, executor_id: str, data: str
    ) -> None:
        """Lose it."""


class Agent(Execution):
    """An agent of the embedded cluster: what it is told to do, and what it can be asked.

    Parameters are those of :class:`~scheduler.embedded.execution.Execution`.
    """

    def attach(self, master: Master) -> None:
        """Talk to another master from now on."""
        self._master = master

    def detach(self) -> None:
        """Talk to nobody until there is a master again."""
        self._master = _Nobody()

    def lose_everything(self) -> None:
        """Let all tasks die at once and without a word, as when the machine goes down."""
        self.kill_everything(grace=0.0)
        self.groups.clear()
        for run in list(self.runs.values()):
            self._forget(self.runs.pop(run.key))
        self._updates = UpdateStreams(self._clock, self._forward)

    # Orders of the master

    def launch(self, framework: FrameworkInfo, task: TaskInfo) -> None:
        """Start a task; what becomes of it comes as status updates."""
        if (framework.id, task.id) in self._leaving:
            self._refuse_reuse(framework, task)
            return
        container_id = str(new_uuid())
        sandbox = self._runs_folder(framework.id, task.id) / container_id
        self._start(Run(framework, task, container_id, sandbox))

    def _refuse_reuse(self, framework: FrameworkInfo, task: TaskInfo) -> None:
        """Drop a task whose id the executor of an earlier one still has."""
        run = Run(framework, task, "", self._runs_folder(framework.id, task.id), phase=Phase.ENDED)
        status = statuses.make_status(
            self.info,
            run,
            framework.reportable(TaskState.DROPPED),
            time=self._clock.time(),
            source=statuses.AGENT,
            reason="REASON_TASK_INVALID",
            message="Cannot reuse an already existing executor for a command task",
        )
        state = TaskState(status["state"])
        update = StatusUpdate(framework.id, task.id, status["uuid"], state, status)
        self._updates.append(update)

    def launch_group(self, framework: FrameworkInfo, executor_id: str, tasks: TaskGroup) -> None:
        """Start tasks in a default executor, which is started when it is not there yet."""
        key = (framework.id, executor_id)
        group = self.groups.get(key)
        if group is None:
            container_id = str(new_uuid())
            sandbox = self._runs_folder(framework.id, executor_id) / container_id
            group = Group(executor_id, framework, container_id, sandbox, tasks.executor)
            self.groups[key] = group
        for task in tasks.tasks:
            container_id = str(new_uuid())
            sandbox = group.sandbox / "containers" / container_id
            run = Run(framework, task, container_id, sandbox, group)
            group.runs.append(run)
            self._start(run)

    def drain(self, max_grace: float | None) -> None:
        """Kill all tasks, and give none more time than that."""
        for run in list(self.runs.values()):
            if run.phase is not Phase.ENDED and not run.killed:
                grace = run.task.kill_grace
                grace = grace if max_grace is None else min(grace, max_grace)
                self._kill(run, grace, "REASON_AGENT_DRAINING")

    def acknowledge(self, framework_id: str, task_id: str, uuid_text: str) -> StatusUpdate | None:
        """Take an acknowledgement; None when it is not for the pending update."""
        done = self._updates.acknowledge(framework_id, task_id, uuid_text)
        run = None if done is None else self.runs.get((framework_id, task_id))
        if done is None or run is None:
            return done
        if done.state.is_terminal:
            del self.runs[run.key]
            self._forget(run)
        elif self._checkpoint is not None:
            self._checkpoint.acknowledged(run)
        return done

    def resume_updates(self, framework_id: str) -> None:
        """Send pending updates at once: the framework is here again."""
        self._updates.resume(framework_id)

    def shutdown_executor(self, framework_id: str, executor_id: str) -> None:
        """End an executor with all its tasks."""
        for run in list(self.runs.values()):
            if (run.framework.id, run.executor_id) == (framework_id, executor_id):
                self.kill(*run.key)

    def shutdown_framework(self, framework_id: str) -> None:
        """Kill the tasks of a framework that is no more; nobody wants to hear of them."""
        self._updates.forget(framework_id)
        for run in [run for run in self.runs.values() if run.framework.id == framework_id]:
            self.abandon(run)

    def deliver(self, framework_id: str, executor_id: str, data: str) -> None:
        """Hand a message to an executor. Those of this cluster listen to none, as Mesos' own do not."""
        logger.debug("executor %s of %s ignores %d bytes", executor_id, framework_id, len(data))

    def send_message(self, framework_id: str, executor_id: str, data: str) -> None:
        """Send a message in the name of an executor; base64."""
        self._master.executor_message(self.info.id, framework_id, executor_id, data)

    def report_unknown(self, framework: FrameworkInfo, task: TaskInfo) -> None:
        """Tell that a task which the master believes to be here is not."""
        state = framework.reportable(TaskState.DROPPED)
        status = statuses.unknown_status(self.info, task.id, task.id, state, self._clock.time())
        update = StatusUpdate(framework.id, task.id, status["uuid"], state, status)
        self._updates.append(update)

    def shutdown(self) -> None:
        """End all tasks, as the agent itself ends; nobody hears of them."""
        self._updates.close()
        for run in list(self.runs.values()):
            self.abandon(run)

    def kill_everything(self, grace: float | None = None) -> None:
        """Begin to end all tasks, as the cluster is being stopped; with another grace period if given."""
        self.shutdown()
        for run in list(self.runs.values()):
            if grace is not None and run.container is not None:
                run.container.kill(grace)

    def abandon(self, run: Run) -> None:
        """End a run that nobody wants to hear of any more."""
        run.abandoned = True
        if self._checkpoint is not None:
            self._checkpoint.forget(run)
        if run.phase is Phase.ENDED:
            self._forget(self.runs.pop(run.key))
        else:
            self.kill(*run.key)

    # What an earlier process of the agent has left

    def restore(self, run: Run, updates: Sequence[StatusUpdate], acknowledged: int) -> None:
        """Have a run again, with what has been reported of it."""
        self.runs[run.key] = run
        if run.group is not None and run.phase is not Phase.ENDED:
            self.groups[run.group.key] = run.group
        if updates:
            self._updates.restore(updates, acknowledged)
        for update in updates[: acknowledged + 1]:
            remember(run.told, update.status)

    def resume(self, run: Run, container: Container | None) -> None:
        """Accompany a run that has been restored; without a container it has ended meanwhile."""
        self._spawn(self._resume(run, container))

    # What others may know

    def container_status(self, run: Run, state: TaskState) -> dict[str, Any]:
        """Return the ``ContainerStatus`` of a run."""
        return statuses.container_status(self.info, run, state)

    def executor_pools(self, framework_id: str) -> dict[Key, Pool]:
        """Return what a framework's default executors use themselves."""
        return {key: group.pool for key, group in self.groups.items() if key[0] == framework_id}

    def find_run(self, framework_id: str, task_id: str) -> Run | None:
        """Return the latest run of a task."""
        if (run := self.runs.get((framework_id, task_id))) is not None:
            return run
        ended = reversed(self.completed.values())
        return next((run for run in ended if run.key == (framework_id, task_id)), None)

    def find_sandbox(self, framework_id: str, executor_id: str) -> Run | Group | None:
        """Return what has the sandbox of an executor: a run, or a group with those of its tasks inside."""
        for run in (*reversed(self.runs.values()), *reversed(self.completed.values())):
            if (run.framework.id, run.executor_id) == (framework_id, executor_id):
                return run.group or run
        return None

    def sandboxes(self) -> list[Path]:
        """Return the folders that may be read through the files API."""
        runs = (*self.runs.values(), *self.completed.values())
        return list(dict.fromkeys((run.group or run).sandbox for run in runs))
