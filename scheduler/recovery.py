"""Graphs of a predecessor, rebuilt from its journal as they were last recorded.

What happened to the tasks since is for reconciliation to tell; what becomes of each graph is decided by
:meth:`scheduler.graphs.Graphs.take_up`.
"""

from __future__ import annotations

import asyncio

from scheduler.graph import ReadyKind
from scheduler.journal import GraphPhase, JournalState, TaskRecord
from scheduler.runs import GraphRun, TaskEntry
from scheduler.task import Death, Outcome, TaskLife, TaskState, Transition

_TASK_IS_UP = (TaskState.READY, TaskState.DEAD)


async def restore(state: JournalState) -> list[GraphRun]:
    """Rebuild every graph as it was last recorded; the loop goes on in between."""
    runs: list[GraphRun] = []
    for graph_id, graph in state.graphs.items():
        run = GraphRun(graph)
        if (old := state.placements.get(graph_id)) is not None:
            run.placed.update(old.assignments)
        for entry in run.entries.values():
            earlier = _earlier(state, entry)
            record = state.tasks.get(entry.task.task_id)
            for one in (*earlier, *([] if record is None else [record])):
                if one.assignment is not None:
                    run.placed[entry.name] = one.assignment
            if record is not None:
                _restore_task(run, entry, record)
            entry.spent = sum(map(_counts, earlier))
            entry.made_room = bool(earlier) and earlier[-1].preempted
        run.phase = state.phases.get(graph_id) or _guessed_phase(run)
        runs.append(run)
        await asyncio.sleep(0)
    return runs


def _restore_task(run: GraphRun, entry: TaskEntry, record: TaskRecord) -> None:
    if record.agent_id:
        entry.assignment = run.placed.get(entry.name)
    entry.address, entry.agent_url = record.address, record.agent_url
    entry.token, entry.shared, entry.late_values = record.token, record.shared, record.late_values
    entry.recorded, entry.preempted = record, record.preempted
    step = Transition(0.0, TaskState.PLANNED, record.state, "as the journal says")
    entry.life = TaskLife(
        task_id=record.task_id,
        state=record.state,
        agent_id=record.agent_id,
        running=_ran(record),
        death=_death(record),
        history=() if record.state is TaskState.PLANNED else (step,),
    )


def _earlier(state: JournalState, entry: TaskEntry) -> list[TaskRecord]:
    """Return the records of the attempts before the present one."""
    stem = entry.task.task_id.rpartition(".")[0]
    ids = (f"{stem}.{number}" for number in range(entry.task.attempt))
    return [state.tasks[task_id] for task_id in ids if task_id in state.tasks]


def _counts(record: TaskRecord) -> bool:
    """Whether an attempt of a batch node was used up: it ended, and not to make room."""
    lost_a_race = record.death is not None and record.death.worth_another_try
    return record.state is TaskState.DEAD and not record.preempted and not lost_a_race


def _ran(record: TaskRecord) -> bool:
    """Whether Mesos must have said that the task runs; one that never waited may be starting without."""
    if record.state is TaskState.STARTING:
        return bool(record.token)
    return record.state in (TaskState.WAITING, TaskState.READY)


def _death(record: TaskRecord) -> Death | None:
    if record.state is TaskState.DEAD and record.death is None:
        return Death(Outcome.LOST, "the journal does not say why")
    return record.death


def _guessed_phase(run: GraphRun) -> GraphPhase:
    """Return the phase of a graph for which none was recorded: it is in its launch, or its record is old."""
    up = all(map(_was_up, run.entries.values()))
    return GraphPhase.UP if up else GraphPhase.LAUNCHING


def _was_up(entry: TaskEntry) -> bool:
    if entry.template.ready.kind is ReadyKind.EXIT:
        return entry.dead
    return entry.life.state in _TASK_IS_UP
