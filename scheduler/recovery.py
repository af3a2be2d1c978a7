"""Graphs of a predecessor, rebuilt from its journal."""

from __future__ import annotations

from scheduler.graph import ReadyKind
from scheduler.journal import JournalState, TaskRecord
from scheduler.runs import GraphRun, TaskEntry
from scheduler.task import Death, Outcome, TaskLife, TaskState, Transition

_TASK_IS_UP = (TaskState.READY, TaskState.DEAD)


def restore(state: JournalState) -> list[GraphRun]:
    """Rebuild every graph as it was last recorded.

    A graph counts as launched when every task of it was ready once. What happened to the tasks since is for
    reconciliation to tell.
    """
    runs: list[GraphRun] = []
    for graph_id, graph in state.graphs.items():
        run = GraphRun(graph)
        run.placement = state.placements.get(graph_id)
        for entry in run.entries.values():
            if (record := state.tasks.get(entry.task.task_id)) is not None:
                _restore_task(run, entry, record)
        run.launched = all(map(_was_up, run.entries.values()))
        runs.append(run)
    return runs


def _restore_task(run: GraphRun, entry: TaskEntry, record: TaskRecord) -> None:
    if run.placement is not None:
        entry.assignment = run.placement.assignments.get(entry.name)
    entry.address, entry.agent_url = record.address, record.agent_url
    entry.token = record.token
    entry.recorded = record
    step = Transition(0.0, TaskState.PLANNED, record.state, "as the journal says")
    entry.life = TaskLife(
        task_id=record.task_id,
        state=record.state,
        agent_id=record.agent_id,
        running=record.state in (TaskState.WAITING, TaskState.READY),
        death=_death(record),
        history=() if record.state is TaskState.PLANNED else (step,),
    )


def _death(record: TaskRecord) -> Death | None:
    if record.state is TaskState.DEAD and record.death is None:
        return Death(Outcome.LOST, "the journal does not say why")
    return record.death


def _was_up(entry: TaskEntry) -> bool:
    if entry.template.ready.kind is ReadyKind.EXIT:
        return entry.dead
    return entry.life.state in _TASK_IS_UP
