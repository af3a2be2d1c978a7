"""The scheduler's view of a task, in the control plane's words."""

from __future__ import annotations

from scheduler.views import TaskView
from sdpcontroller.control import TaskRecord


def task_record(view: TaskView, before: tuple[TaskView, TaskRecord] | None = None) -> TaskRecord:
    """Translate what the scheduler knows of a task into the record that façades show.

    Parameters
    ----------
    before
        What was known, and its record: what it holds seldom changes, and takes long to write down.
    """
    same = before is not None and before[0].resources is view.resources
    return TaskRecord(
        name=view.name,
        kind=view.kind,
        task_id=view.task_id,
        state=view.state.value,
        mesos_state=view.mesos_state,
        host=view.host,
        outcome="" if view.death is None else str(view.death),
        held=view.held,
        resources=before[1].resources if before is not None and same else str(view.resources),
        ports=view.ports,
    )
