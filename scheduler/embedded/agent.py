"""One agent: runs tasks with an executor and tells the master about them.

A task goes ``LAUNCHING → STARTING → RUNNING → ENDED``; it is forgotten when its last status update is
acknowledged::

    LAUNCHING ──► STARTING ──► RUNNING ──► ENDED
        │             └──────────────────────▲    it could not be run
        └────────────────────────────────────┘    killed before delivery, or the launch failed
"""

from __future__ import annotations

import base64
import enum
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scheduler.embedded.clock import Clock, Timer
from scheduler.embedded.executors import (
    Container,
    ContainerLaunchError,
    Executor,
    Launch,
    Outcome,
    Running,
    SandboxError,
)
from scheduler.embedded.model import AgentInfo, FrameworkInfo, TaskInfo, TaskState
from scheduler.embedded.updates import StatusUpdate, UpdateStreams

logger = logging.getLogger(__name__)

MAX_COMPLETED = 150
"""Ended tasks of an agent whose sandboxes are still listed (Mesos: max_completed_executors_per_framework)."""


class Master(Protocol):
    """What an agent needs of its master."""

    def status_update(self, agent_id: str, update: StatusUpdate, latest: TaskState) -> None:
        """Take an update; `latest` is the newest state of the task, which may be ahead of it."""
        ...


class Phase(enum.Enum):
    """Where a task is on its agent."""

    LAUNCHING = "launching"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


_NEXT = {
    Phase.LAUNCHING: {Phase.STARTING, Phase.ENDED},
    Phase.STARTING: {Phase.RUNNING, Phase.ENDED},
    Phase.RUNNING: {Phase.ENDED},
    Phase.ENDED: set[Phase](),
}


@dataclass(slots=True, eq=False)
class Run:
    """One execution of a task."""

    framework: FrameworkInfo
    task: TaskInfo
    container_id: str
    sandbox: Path
    phase: Phase = Phase.LAUNCHING
    container: Container | None = None
    running: Running | None = None
    killed: bool = False
    out_of_time: bool = False
    deadline: Timer | None = None
    abandoned: bool = False
    """Whether nobody wants to hear of it any more."""

    @property
    def key(self) -> tuple[str, str]:
        """Framework and task id."""
        return (self.framework.id, self.task.id)

    def set_phase(self, phase: Phase) -> None:
        """Move on.

        Raises
        ------
        RuntimeError
            If that is a step back.
        """
        if phase not in _NEXT[self.phase]:
            raise RuntimeError(f"task {self.task.id}: {self.phase.value} → {phase.value}")
        self.phase = phase


class Agent:
    """An agent of the embedded cluster.

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
    ) -> None:
        self.info = info
        self.runs: dict[tuple[str, str], Run] = {}
        self.completed: OrderedDict[str, Run] = OrderedDict()
        self._executor = executor
        self._master = master
        self._clock = clock
        self._work_dir = work_dir
        self._spawn = spawn
        self._kill_override = kill_override
        self._updates = UpdateStreams(clock, self._forward)

    def launch(self, framework: FrameworkInfo, task: TaskInfo) -> None:
        """Start a task; what becomes of it comes as status updates."""
        container_id = str(uuid.uuid4())
        sandbox = self._runs_folder(framework.id, task.id) / container_id
        run = Run(framework, task, container_id, sandbox)
        self.runs[run.key] = run
        self._spawn(self._run(run))

    def kill(self, framework_id: str, task_id: str, grace: float | None = None) -> None:
        """Kill a task: SIGTERM now, SIGKILL after the grace period of its policy."""
        run = self.runs.get((framework_id, task_id))
        if run is None or run.killed or run.phase is Phase.ENDED:
            return
        run.killed = True
        if run.container is None:
            return
        if run.framework.can("TASK_KILLING_STATE"):
            self._report(run, TaskState.KILLING)
        override = grace is not None and self._kill_override
        run.container.kill(grace if grace is not None and override else run.task.kill_grace)

    def acknowledge(self, framework_id: str, task_id: str, uuid_text: str) -> StatusUpdate | None:
        """Take an acknowledgement; None when it is not for the pending update."""
        done = self._updates.acknowledge(framework_id, task_id, uuid_text)
        if done is not None and done.state.is_terminal:
            self._forget(self.runs.pop((framework_id, task_id)))
        return done

    def resume_updates(self, framework_id: str) -> None:
        """Send pending updates at once: the framework is here again."""
        self._updates.resume(framework_id)

    def shutdown_framework(self, framework_id: str) -> None:
        """Kill the tasks of a framework that is no more; nobody wants to hear of them."""
        self._updates.forget(framework_id)
        for run in [run for run in self.runs.values() if run.framework.id == framework_id]:
            self.abandon(run)

    def kill_everything(self, grace: float | None = None) -> None:
        """Begin to end all tasks, as the cluster is being stopped; with another grace period if given."""
        self._updates.close()
        for run in list(self.runs.values()):
            self.abandon(run)
            if grace is not None and run.container is not None:
                run.container.kill(grace)

    def abandon(self, run: Run) -> None:
        """End a run that nobody wants to hear of any more."""
        run.abandoned = True
        if run.phase is Phase.ENDED:
            self._forget(self.runs.pop(run.key))
        else:
            self.kill(*run.key)

    def latest_state(self, run: Run) -> TaskState:
        """Return the newest state of a task."""
        return self._updates.latest(*run.key) or TaskState.STAGING

    def find_run(self, framework_id: str, executor_id: str) -> Run | None:
        """Return the latest run of a command task's executor, whose id is the task's."""
        if (run := self.runs.get((framework_id, executor_id))) is not None:
            return run
        ended = reversed(self.completed.values())
        return next((run for run in ended if run.key == (framework_id, executor_id)), None)

    def sandboxes(self) -> list[Path]:
        """Return the folders that may be read through the files API."""
        return [run.sandbox for run in (*self.runs.values(), *self.completed.values())]

    def _runs_folder(self, framework_id: str, task_id: str) -> Path:
        agent = self._work_dir / "slaves" / self.info.id
        return agent / "frameworks" / framework_id / "executors" / task_id / "runs"

    async def _run(self, run: Run) -> None:
        container = await self._launch(run)
        if container is None:
            return
        if run.killed and container.pid is None:
            self._killed_during_launch(run)
            return
        run.container = container
        run.set_phase(Phase.STARTING)
        self._report(run, TaskState.STARTING)
        if run.killed:  # while it was being launched
            run.killed = False
            self.kill(*run.key)
        run.running = await container.started()
        if run.running is not None:
            self._runs(run, run.running)
        self._end(run, await container.wait())

    def _runs(self, run: Run, running: Running) -> None:
        run.set_phase(Phase.RUNNING)
        if not run.killed:
            self._report(run, TaskState.RUNNING, data=running.data)
        limit = run.task.max_completion_time
        if limit is not None:
            run.deadline = self._clock.call_later(limit, lambda: self._out_of_time(run))

    async def _launch(self, run: Run) -> Container | None:
        """Start a run; None when it could not be, which has been reported then."""
        if run.killed:
            self._killed_during_launch(run)
            return None
        launch = Launch(run.framework, self.info, run.task, run.container_id, run.sandbox)
        try:
            return await self._executor.launch(launch)
        except SandboxError as exc:
            state = run.framework.reportable(TaskState.DROPPED)
            self._fail(run, state, "REASON_EXECUTOR_TERMINATED", str(exc))
        except ContainerLaunchError as exc:
            text = f"Failed to launch container: {exc}"
            self._fail(run, TaskState.FAILED, "REASON_CONTAINER_LAUNCH_FAILED", text)
        return None

    def _killed_during_launch(self, run: Run) -> None:
        text = "Killed before delivery to the executor"
        self._fail(run, TaskState.KILLED, "REASON_TASK_KILLED_DURING_LAUNCH", text)

    def _out_of_time(self, run: Run) -> None:
        if run.phase is Phase.RUNNING and not run.killed and run.container is not None:
            run.killed = run.out_of_time = True
            run.container.kill(run.task.kill_grace)

    def _end(self, run: Run, outcome: Outcome) -> None:
        if run.deadline is not None:
            run.deadline.cancel()
        run.set_phase(Phase.ENDED)
        state = TaskState.FINISHED if outcome.succeeded else TaskState.FAILED
        reason = outcome.reason
        if run.out_of_time:
            state, reason = TaskState.FAILED, "REASON_MAX_COMPLETION_TIME_REACHED"
        elif run.killed and reason is None:
            state = TaskState.KILLED
        self._report(
            run,
            state,
            source="SOURCE_AGENT" if outcome.by_agent else "SOURCE_EXECUTOR",
            message=outcome.message,
            reason=reason,
            limitation=outcome.limitation,
        )

    def _fail(self, run: Run, state: TaskState, reason: str, message: str) -> None:
        """Report the end of a task that never ran."""
        logger.warning("task %s on %s: %s", run.task.id, self.info.spec.hostname, message)
        run.set_phase(Phase.ENDED)
        self._report(run, state, source="SOURCE_AGENT", reason=reason, message=message)

    def _report(
        self,
        run: Run,
        state: TaskState,
        *,
        source: str = "SOURCE_EXECUTOR",
        message: str | None = None,
        reason: str | None = None,
        data: bytes = b"",
        limitation: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Queue a status update, its fields in the order in which Mesos writes them."""
        update_id = base64.b64encode(uuid.uuid4().bytes).decode()
        status: dict[str, Any] = {"task_id": {"value": run.task.id}, "state": state.value}
        if message is not None:
            status["message"] = message
        status["source"] = source
        if reason is not None:
            status["reason"] = reason
        if data:
            status["data"] = base64.b64encode(data).decode()
        status["agent_id"] = {"value": self.info.id}
        status["executor_id"] = {"value": run.task.id}
        status["timestamp"] = self._clock.time()
        status["uuid"] = update_id
        if source == "SOURCE_EXECUTOR":
            status["container_status"] = self.container_status(run)
        if limitation:
            status["limitation"] = {"resources": list(limitation)}
        if run.abandoned:
            if run.phase is Phase.ENDED:
                self._forget(self.runs.pop(run.key))
            return
        self._updates.append(StatusUpdate(run.framework.id, run.task.id, update_id, state, status))

    def container_status(self, run: Run) -> dict[str, Any]:
        """Return the ``ContainerStatus`` of a run."""
        own = run.running.address if run.phase is Phase.RUNNING and run.running else None
        address = {"protocol": "IPv4", "ip_address": own or self.info.ip}
        status: dict[str, Any] = {
            "container_id": {"value": run.container_id},
            "network_infos": [{"ip_addresses": [address]}],
        }
        if run.container is not None and run.container.pid is not None:
            status["executor_pid"] = run.container.pid
        return status

    def _forward(self, update: StatusUpdate, latest: TaskState) -> None:
        self._master.status_update(self.info.id, update, latest)

    def _forget(self, run: Run) -> None:
        self.completed[run.container_id] = run
        while len(self.completed) > MAX_COMPLETED:
            self.completed.popitem(last=False)
