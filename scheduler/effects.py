"""What the effects of a task's state machine do in the world."""

from __future__ import annotations

from collections.abc import Callable

from scheduler import sandbox_log
from scheduler.background import Background
from scheduler.framework import Framework
from scheduler.goahead import GoAhead
from scheduler.runs import TaskEntry
from scheduler.views import Change, TaskChanged


class Effects:
    """The acts that :class:`scheduler.runs.Runs` asks for.

    Parameters
    ----------
    gates
        The go-ahead of waiting tasks.
    background
        Where logs are fetched.
    tell
        Is called with every change of a task.
    """

    def __init__(
        self, gates: GoAhead, background: Background, tell: Callable[[Change], None]
    ) -> None:
        self._gates = gates
        self._background = background
        self._tell = tell
        self.framework: Framework | None = None
        """The link, once there is one."""

    def kill(self, entry: TaskEntry) -> None:
        """Ask Mesos for the end of a task."""
        if self.framework is not None:
            self.framework.kill(entry.task.task_id, at_once=entry.hurried)

    def reconcile(self, entry: TaskEntry) -> None:
        """Ask Mesos for the state of a task: the timer does, once there was no news for a while."""

    def close_gate(self, entry: TaskEntry) -> None:
        """Never let a task through (again)."""
        self._gates.close(entry.task.task_id)

    def fetch_log(self, entry: TaskEntry) -> None:
        """Get the last lines of a task's log, in the background."""
        if not self._background.closed:
            entry.log_done.clear()
            self._background.spawn(self._fetch_log(entry))

    async def _fetch_log(self, entry: TaskEntry) -> None:
        framework_id = self.framework.framework_id if self.framework is not None else None
        try:
            entry.log_tail = await sandbox_log.last_lines(
                entry.agent_url, framework_id or "", entry.task.task_id
            )
        finally:
            entry.log_done.set()
        if entry.log_tail:
            self.task_changed(entry)

    def task_changed(self, entry: TaskEntry) -> None:
        """Tell whoever listens: by its name, under which another attempt may run by now."""
        if not entry.replaced:
            self._tell(TaskChanged(entry.view()))
