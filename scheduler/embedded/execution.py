"""The life of the tasks of one agent: from an order to launch to the last status update.

The life of a run is drawn in :mod:`~scheduler.embedded.runs`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from scheduler.embedded import statuses
from scheduler.embedded.checkpoint import Checkpoint
from scheduler.embedded.checks import Prober, TaskChecks, Verdict
from scheduler.embedded.clock import Clock
from scheduler.embedded.executors import (
    Container,
    ContainerLaunchError,
    Executor,
    Launch,
    Outcome,
    Running,
    SandboxError,
)
from scheduler.embedded.model import (
    AgentInfo,
    TaskState,
)
from scheduler.embedded.notices import remember
from scheduler.embedded.probes import HostProber
from scheduler.embedded.runs import Group, Key, Phase, Run
from scheduler.embedded.updates import StatusUpdate, UpdateStreams

logger = logging.getLogger(__name__)

STARTUP = 0.05
"""Seconds that a command executor needs from its first word to the start of its task; it heeds no kill then."""
EXECUTOR_LEAVES = 1.0
"""Seconds that a command executor stays after the end of its task; its id cannot be used again before."""
MAX_COMPLETED = 150
"""Ended tasks of an agent whose sandboxes are still listed (Mesos: max_completed_executors_per_framework)."""


class Master(Protocol):
    """What an agent needs of its master."""

    def status_update(self, agent_id: str, update: StatusUpdate, latest: TaskState) -> None:
        """Take an update; `latest` is the newest state of the task, which may be ahead of it."""
        ...

    def executor_ended(self, agent_id: str, framework_id: str, executor_id: str) -> None:
        """Take the end of a default executor."""
        ...

    def executor_message(
        self, agent_id: str, framework_id: str, executor_id: str, data: str
    ) -> None:
        """Take a message of an executor for its framework."""
        ...


class Execution:
    """What happens to the tasks of one agent.

    Parameters
    ----------
    info
        Who it is and what it has.
    executor
        What runs its tasks.
    master
        Where status updates go.
    clock
        The time.
    work_dir
        Root of the sandboxes.
    spawn
        Starts a background task; whoever owns it must be told when it fails.
    kill_override
        Whether the kill policy of a KILL call overrides that of the task. Mesos' command executor
        ignores it, unless the agent runs with ``--http_command_executor``.
    prober
        Looks after tasks with checks; on this machine's network when it is not given.
    checkpoint
        Where it is written down what a later process of this agent must know; None: nowhere.
    """

    def __init__(
        self,
        info: AgentInfo,
        executor: Executor,
        master: Master,
        clock: Clock,
        *,
        work_dir: Path,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        kill_override: bool = False,
        prober: Prober | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self.info = info
        self.runs: dict[Key, Run] = {}
        self.completed: OrderedDict[str, Run] = OrderedDict()
        self._executor = executor
        self._master = master
        self._clock = clock
        self._work_dir = work_dir
        self._spawn = spawn
        self._kill_override = kill_override
        self._prober = prober or HostProber()
        self.groups: dict[Key, Group] = {}
        self._leaving: set[Key] = set()
        """Command executors whose task has ended and that have not gone yet."""
        self._updates = UpdateStreams(clock, self._forward)

    def kill(
        self,
        framework_id: str,
        task_id: str,
        grace: float | None = None,
        reason: str | None = None,
    ) -> None:
        """Kill a task: SIGTERM now, SIGKILL after the grace period of its policy.

        Parameters
        ----------
        framework_id, task_id
            The task; nothing happens when it is not here.
        grace
            Seconds that a KILL call wants instead.
        reason
            Why, where its framework is to be told that.
        """
        run = self.runs.get((framework_id, task_id))
        if run is None or run.killed or run.phase is Phase.ENDED:
            return
        override = grace is not None and self._kill_override
        self._kill(run, grace if grace is not None and override else run.task.kill_grace, reason)

    def launch_of(self, run: Run) -> Launch:
        """Return what an executor has to know of a run."""
        group = None if run.group is None else run.group.id
        return Launch(run.framework, self.info, run.task, run.container_id, run.sandbox, group)

    def latest_state(self, run: Run) -> TaskState:
        """Return the newest state of a task."""
        return self._updates.latest(*run.key) or TaskState.STAGING

    # The life of a run

    def _runs_folder(self, framework_id: str, executor_id: str) -> Path:
        folders = ("slaves", self.info.id, "frameworks", framework_id, "executors", executor_id)
        return self._work_dir.joinpath(*folders, "runs")

    def _start(self, run: Run) -> None:
        self.runs[run.key] = run
        if self._checkpoint is not None:
            self._checkpoint.launched(run)
        self._spawn(self._run(run))

    async def _run(self, run: Run) -> None:
        if run.group is not None and not run.killed:
            self._starts(run)  # its executor reports before it has a container
        launch = self.launch_of(run)
        container = None if run.killed else await self._launch(run, launch)
        if container is None:
            if run.phase is not Phase.ENDED:
                self._killed_during_launch(run)
            return
        if run.killed and container.pid is None:  # nothing runs yet
            container.kill(0.0)
            self._killed_during_launch(run)
            return
        await self._follow(run, launch, container)

    async def _follow(self, run: Run, launch: Launch, container: Container) -> None:
        """Accompany a run from its container on, be that new or taken up."""
        run.container = container
        if run.phase is Phase.LAUNCHING:
            self._starts(run)
        if run.killed:  # while it was being launched
            run.killed = False
            self.kill(*run.key, reason=run.kill_reason)
        run.running = await container.started()
        if run.running is not None:
            self._runs(run, launch, container, run.running)
        outcome = await container.wait()
        if self.runs.get(run.key) is run:  # else its machine went down: nobody is left to report it
            self._end(run, outcome)

    async def _resume(self, run: Run, container: Container | None) -> None:
        if container is not None:
            self._limit(run)
            await self._follow(run, self.launch_of(run), container)
        elif run.phase is Phase.LAUNCHING:
            state = run.framework.reportable(TaskState.DROPPED)
            text = "Executor did not register before the agent was killed"
            self._fail(run, state, "REASON_EXECUTOR_TERMINATED", text)
        else:
            self._end(run, Outcome.executor_lost("Executor terminated"))

    def _starts(self, run: Run) -> None:
        run.set_phase(Phase.STARTING)
        run.since = self._clock.time()
        self._report(run, TaskState.STARTING)
        self._limit(run)

    def _limit(self, run: Run) -> None:
        """Let a task end when its time is over, which counts from its start."""
        limit = run.task.max_completion_time
        if limit is not None:
            left = max(0.0, limit - (self._clock.time() - run.since))
            run.deadline = self._clock.call_later(left, lambda: self._out_of_time(run))

    def _runs(self, run: Run, launch: Launch, container: Container, running: Running) -> None:
        if run.phase is not Phase.RUNNING:  # of one that is taken up it has been told
            run.set_phase(Phase.RUNNING)
            if not run.killed:
                self._report(run, TaskState.RUNNING, data=running.data)
        if run.kill_when_running is not None:
            self._kill(run, *run.kill_when_running)
        elif "check" in run.task.document and run.task.is_docker:
            run.executor_lost = True  # Mesos' Docker executor aborts when it is asked for a check
            container.kill(0.0)
        elif "check" in run.task.document or "health_check" in run.task.document:
            run.checks = TaskChecks(
                launch,
                container,
                self._prober,
                self._clock,
                self._spawn,
                tell_health=lambda verdict: self._heard_health(run, verdict),
                tell_check=lambda: self._heard_check(run),
            )
            run.checks.start()

    def _heard_health(self, run: Run, verdict: Verdict) -> None:
        if run.killed or run.phase is not Phase.RUNNING:
            return
        reason = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED"
        self._report(run, TaskState.RUNNING, reason=reason, healthy=verdict.healthy)
        if verdict.kill:
            run.unhealthy = True
            self._kill(run, run.task.kill_grace, None)

    def _heard_check(self, run: Run) -> None:
        if run.killed or run.phase is not Phase.RUNNING or run.checks is None:
            return
        reason = "REASON_TASK_CHECK_STATUS_UPDATED"
        self._report(run, TaskState.RUNNING, reason=reason, healthy=run.checks.healthy)

    def _kill(self, run: Run, grace: float, reason: str | None) -> None:
        if run.phase is Phase.STARTING and run.container is not None and not run.task.is_docker:
            if run.kill_when_running is None:
                run.kill_when_running = (grace, reason)
                self._clock.call_later(STARTUP, lambda: self._kill_late(run))
            return
        self._kill_now(run, grace, reason)

    def _kill_late(self, run: Run) -> None:
        """Kill a task that has been told to end and does not come up."""
        if run.kill_when_running is not None and run.phase is Phase.STARTING:
            self._kill_now(run, *run.kill_when_running)

    def _kill_now(self, run: Run, grace: float, reason: str | None) -> None:
        run.kill_when_running = None
        run.killed = True
        run.kill_reason = reason
        self._note_kill(run)
        if run.checks is not None:
            run.checks.stop()
        if run.container is None:
            if run.launching is not None:
                run.launching.cancel()
            return
        told = self.latest_state(run) is TaskState.KILLING  # by an earlier process of this agent
        if run.framework.can("TASK_KILLING_STATE") and not told:
            self._report(run, TaskState.KILLING, reason=reason)
        run.container.kill(grace)

    async def _launch(self, run: Run, launch: Launch) -> Container | None:
        """Start a run; None when it could not be, which has been reported then, or was killed before."""
        run.launching = asyncio.current_task()
        try:
            return await self._executor.launch(launch)
        except asyncio.CancelledError:
            if not run.killed or run.launching is None:
                raise
            run.launching.uncancel()
        except SandboxError as exc:
            state = run.framework.reportable(TaskState.DROPPED)
            self._fail(run, state, "REASON_EXECUTOR_TERMINATED", str(exc))
        except ContainerLaunchError as exc:
            text = f"Failed to launch container: {exc}"
            self._fail(run, TaskState.FAILED, "REASON_CONTAINER_LAUNCH_FAILED", text)
        finally:
            run.launching = None
        return None

    def _killed_during_launch(self, run: Run) -> None:
        text = "Killed before delivery to the executor"
        self._fail(run, TaskState.KILLED, "REASON_TASK_KILLED_DURING_LAUNCH", text)

    def _out_of_time(self, run: Run) -> None:
        if run.phase is not Phase.ENDED and not run.killed and run.container is not None:
            run.killed = run.out_of_time = True
            self._note_kill(run)
            run.container.kill(0.0)  # its policy does not count then

    def _end(self, run: Run, outcome: Outcome) -> None:
        if run.deadline is not None:
            run.deadline.cancel()
        if run.checks is not None:
            run.checks.stop()
        run.set_phase(Phase.ENDED)
        if run.executor_lost:
            outcome = Outcome.executor_lost("Container terminated")
        state = TaskState.FINISHED if outcome.succeeded else TaskState.FAILED
        reason = outcome.reason
        if run.out_of_time:
            state, reason = TaskState.FAILED, "REASON_MAX_COMPLETION_TIME_REACHED"
        elif run.killed and reason is None:
            state, reason = TaskState.KILLED, run.kill_reason
        self._report(
            run,
            state,
            source=statuses.AGENT if outcome.by_agent else statuses.EXECUTOR,
            message=outcome.message,
            reason=reason,
            healthy=False if run.unhealthy else None,
            limitation=outcome.limitation,
        )
        self._left(run, failed=not outcome.succeeded)
        if run.group is None:
            self._leaving.add(run.key)
            self._clock.call_later(EXECUTOR_LEAVES, lambda: self._leaving.discard(run.key))

    def _fail(self, run: Run, state: TaskState, reason: str, message: str) -> None:
        """Report the end of a task that never ran."""
        logger.warning("task %s on %s: %s", run.task.id, self.info.spec.hostname, message)
        run.set_phase(Phase.ENDED)
        self._report(run, state, source=statuses.AGENT, reason=reason, message=message)
        self._left(run, failed=True)

    def _left(self, run: Run, *, failed: bool) -> None:
        """Let a default executor notice that one of its tasks has ended."""
        group = run.group
        if group is None:
            return
        if failed:
            for other in group.others(run):
                self.kill(*other.key)
        if group.ended:
            self._clock.call_later(EXECUTOR_LEAVES, lambda: self._leave(group))

    def _leave(self, group: Group) -> None:
        """Let a default executor end, unless it has got new tasks."""
        if group.ended and self.groups.pop(group.key, None) is not None:
            self._master.executor_ended(self.info.id, *group.key)

    def _report(self, run: Run, state: TaskState, **fields: Any) -> None:
        """Queue a status update; `fields` are those of :func:`~scheduler.embedded.statuses.make_status`."""
        status = statuses.make_status(self.info, run, state, time=self._clock.time(), **fields)
        if run.abandoned:
            if run.phase is Phase.ENDED and self.runs.get(run.key) is run:
                self._forget(self.runs.pop(run.key))
            return
        update = StatusUpdate(run.framework.id, run.task.id, status["uuid"], state, status)
        if self._checkpoint is not None:
            self._checkpoint.reported(run, update)
        self._updates.append(update)

    def _note_kill(self, run: Run) -> None:
        if self._checkpoint is not None:
            self._checkpoint.killed(run)

    def _forward(self, update: StatusUpdate, latest: TaskState) -> None:
        if (run := self.runs.get((update.framework_id, update.task_id))) is not None:
            remember(run.told, update.status)
        self._master.status_update(self.info.id, update, latest)

    def _forget(self, run: Run) -> None:
        if self._checkpoint is not None:
            self._checkpoint.forget(run)
        self.completed[run.container_id] = run
        while len(self.completed) > MAX_COMPLETED:
            self.completed.popitem(last=False)
