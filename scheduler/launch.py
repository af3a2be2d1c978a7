"""The multi-stage launch of one physical graph, and its ordered shutdown.

All tasks of a graph are launched together or not at all. Those that depend on others wait for their go-ahead
(:mod:`scheduler.goahead`), which they get once all that they depend on is ready. Whatever fails on the way
takes the whole graph down, leaf to root; only a race between the offers and the cluster is worth one more
try, under new ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from scheduler import shutdown
from scheduler.breath import Breath
from scheduler.closures import stay
from scheduler.crash_points import CrashPoint
from scheduler.equipment import Equipment, apply_recorded, insist
from scheduler.errors import LaunchError, SchedulerError
from scheduler.graph import EdgeKind, ReadyKind
from scheduler.journal import GraphPhase
from scheduler.readiness import until_ready
from scheduler.runs import GraphRun, TaskEntry
from scheduler.shutdown import unwind
from scheduler.starting import start_tasks
from scheduler.task import LetThrough, ReadyHeld, TaskState

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 2
LOG_SECONDS: Final = 3.5
"""How long a failure waits for the dead task's last lines."""

_BEGUN: Final = CrashPoint("launch.begun", "a launch is asked for, the scheduler has no record")
_RECORDED: Final = CrashPoint("launch.recorded", "the graph is recorded, it has no place")
_BEFORE_GO_AHEAD: Final = CrashPoint("launch.before-go-ahead", "one more task may go, not recorded")
_GO_AHEAD_RECORDED: Final = CrashPoint(
    "launch.go-ahead-recorded", "one more go-ahead is recorded, not given"
)
_GO_AHEAD: Final = CrashPoint("launch.go-ahead", "one more go-ahead is given")
_TASK_READY: Final = CrashPoint("launch.task-ready", "one more task is ready")
_UP: Final = CrashPoint("launch.up", "all tasks are ready, that is recorded, nobody was told")


class TaskDied(Exception):
    """A task died before the graph was up."""

    def __init__(self, entry: TaskEntry) -> None:
        super().__init__(entry.task.task_id)
        self.entry = entry


async def launch(
    equipment: Equipment,
    run: GraphRun,
    *,
    deadline: float,
    priority: int = 0,
    resume: bool = False,
) -> None:
    """Bring a graph up: returns when every task is ready.

    Parameters
    ----------
    deadline
        Until when the graph must have found its place; time of the event loop's clock.
    resume
        Whether to go on with what a predecessor began.

    Raises
    ------
    NoFitError, NeverFitsError
        If it found none.
    LaunchError
        If a task died or was late, or the graph was told to stop. All its tasks were told to end then, and
        have ended unless one takes unreasonably long (its agent is unreachable, say).
    JournalError
        If the intent could not be written before the deadline.
    """
    if run.stop_cause is not None:  # it was taken down before it was gone on with
        raise LaunchError(f"graph {run.graph.graph_id}: {run.stop_cause}")
    for attempt in range(ATTEMPTS):
        try:
            if resume and attempt == 0:
                await _go_on(equipment, run, deadline, priority)
            else:
                await _launch_once(equipment, run, deadline, priority)
        except SchedulerError:
            await shutdown.give_up(equipment, run)
            await unwind(equipment, run, "the launch failed")
            raise
        except TaskDied as died:
            last = attempt + 1 == ATTEMPTS or not _worth_another_try(run, died.entry, deadline)
            if last:
                await shutdown.give_up(equipment, run)
            await unwind(equipment, run, f"{died.entry.name} died during the launch")
            if last or not run.dead or run.stop_cause is not None:
                raise LaunchError(await last_words(died.entry)) from None
            logger.warning("graph %s is tried again: %s", run.graph.graph_id, died.entry.life.death)
            _renew(equipment, run)
        else:
            await _record_success(equipment, run)
            return


def _worth_another_try(run: GraphRun, entry: TaskEntry, deadline: float) -> bool:
    death = entry.life.death
    in_time = asyncio.get_running_loop().time() < deadline
    return in_time and run.stop_cause is None and death is not None and death.worth_another_try


def _renew(equipment: Equipment, run: GraphRun) -> None:
    """Give every task a new id."""
    for entry in run.entries.values():
        equipment.gates.forget(entry.task.task_id)
    run.renew(run.graph.again())
    equipment.runs.index(run)


async def _record_success(equipment: Equipment, run: GraphRun) -> None:
    """Record that the graph is up; it waits for that, running, as long as it takes."""
    graph_id = run.graph.graph_id
    write = equipment.journal.record_phase
    await insist(math.inf, lambda: write(graph_id, GraphPhase.UP))
    _UP.reached()
    if run.stop_cause is not None:
        raise LaunchError(f"graph {graph_id}: {run.stop_cause}")
    run.phase = GraphPhase.UP


async def _launch_once(equipment: Equipment, run: GraphRun, deadline: float, priority: int) -> None:
    graph = run.graph
    _BEGUN.reached()
    await insist(deadline, lambda: equipment.journal.record_graph(graph), run)
    _RECORDED.reached()
    requests = {task.name: task.request for task in graph.logical.tasks}
    claim = await equipment.queue.place(
        graph.graph_id,
        requests,
        deadline=deadline,
        priority=priority,
        queue=run.queue,
        stay=stay(graph.logical.tasks),
    )
    await start_tasks(equipment, run, claim, list(run.entries.values()), deadline)
    await bring_up(equipment, run, run.entries)


async def _go_on(equipment: Equipment, run: GraphRun, deadline: float, priority: int) -> None:
    """Go on with a launch of a predecessor, from the records of its tasks.

    Tasks are recorded as launching, all of them, before the first ACCEPT. So if one is not yet, none runs and
    the graph is placed anew; if one ended or was told to, nothing of this attempt is of use. Whether the
    ACCEPTs were made reconciliation tells: what Mesos does not know is as good as dropped.

    Placed anew is under new ids: the journal may have lost its last writes, and what runs under the old ids is
    killed then.
    """
    states = {entry.life.state for entry in run.entries.values()}
    if states & _USELESS or any(map(_died, run.entries.values())):
        await unwind(equipment, run, "the launch begins anew after a change of controllers")
        if not run.dead:
            raise LaunchError(f"graph {run.graph.graph_id}: what was launched of it does not end")
        _renew(equipment, run)
        equipment.framework.reconcile()  # what was heard of the old ids before, meant nothing then
        await _launch_once(equipment, run, deadline, priority)
    else:
        await bring_up(equipment, run, run.entries)


_USELESS: Final = {TaskState.PLANNED, TaskState.PLACED, TaskState.STOPPING}
"""States of a task that keep the rest of a half-launched graph from being gone on with."""


async def bring_up(equipment: Equipment, run: GraphRun, names: Collection[str]) -> None:
    """Walk launched tasks front to back until all are ready; the first death ends the walk.

    Raises
    ------
    TaskDied
        If one of them died, or something that one of them needs.
    LaunchError
        If one was not ready in time, or the graph is taken down.
    """
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(run, names))
            async with asyncio.TaskGroup() as steps:
                breath = Breath()
                for name in names:
                    steps.create_task(_bring_up_task(equipment, run, run.entries[name]))
                    await breath.step()
            watch.cancel()
    except* (TaskDied, LaunchError) as several:
        raise _first(several) from None


def _first(several: BaseExceptionGroup[Exception]) -> Exception:
    """Return the failure that tells most: a death before a wait that it ended."""
    leaves: list[Exception] = []
    stack: list[BaseException] = [several]
    while stack:
        top = stack.pop()
        if isinstance(top, BaseExceptionGroup):
            stack.extend(top.exceptions)
        elif isinstance(top, Exception):
            leaves.append(top)
    return min(leaves, key=lambda leaf: not isinstance(leaf, TaskDied))


def _died(entry: TaskEntry) -> bool:
    """Whether a task ended that should not have: success is fine where success is what readiness means."""
    return entry.dead and not (entry.finished and entry.template.ready.kind is ReadyKind.EXIT)


async def _watch(run: GraphRun, names: Collection[str]) -> None:
    """Wait for the first death of a critical task."""
    critical = {
        entry: _dropped
        if run.edges.sources(entry.name, EdgeKind.FINISHED, EdgeKind.ENDED)
        else _died
        for entry in map(run.entries.__getitem__, names)
        if entry.template.critical
    }
    await run.until_any({entry: partial(fatal, entry) for entry, fatal in critical.items()})
    raise TaskDied(next(entry for entry, fatal in critical.items() if fatal(entry)))


def _dropped(entry: TaskEntry) -> bool:
    """Whether a task never ran: others wait for the end of its work, and this is none."""
    return entry.life.death is not None and entry.life.death.worth_another_try


def _ready(entry: TaskEntry) -> bool:
    if entry.template.ready.kind is ReadyKind.EXIT:
        return entry.finished
    return entry.life.state is TaskState.READY


async def _bring_up_task(equipment: Equipment, run: GraphRun, entry: TaskEntry) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    budget = entry.template.launch_timeout
    await _within(entry, budget, run.until(lambda: entry.life.running or entry.dead, entry))
    budget -= loop.time() - began
    needs = _Needs.of(run, entry)
    decided = partial(needs.decided, entry)
    await run.until(decided, entry, *needs.ready, *needs.finished, *needs.ended)
    if (dead := needs.missed) is not None:
        raise TaskDied(dead)
    if entry.life.state is TaskState.WAITING:
        if entry.token:
            await _let_through(equipment, run, entry)
        else:  # it asks nobody: a predecessor died before that was recorded
            await apply_recorded(equipment, entry, LetThrough())
    if entry.life.state is TaskState.STARTING:
        await _within(entry, max(budget, 0.01), until_ready(run, entry))
    if entry.life.state is TaskState.STARTING:
        await apply_recorded(equipment, entry, ReadyHeld())
        _TASK_READY.reached()
    await run.until(lambda: _ready(entry) or entry.dead, entry)  # somebody outside may be ending it


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a task waits for."""

    ready: tuple[TaskEntry, ...]
    finished: tuple[TaskEntry, ...]
    ended: tuple[TaskEntry, ...]

    @classmethod
    def of(cls, run: GraphRun, entry: TaskEntry) -> Self:
        """Look them up."""
        kinds = (EdgeKind.READY, EdgeKind.FINISHED, EdgeKind.ENDED)
        names = (run.edges.targets(entry.name, kind) for kind in kinds)
        return cls(*(tuple(run.entries[n] for n in group) for group in names))

    def decided(self, entry: TaskEntry) -> bool:
        """Whether a task need not wait for it any more."""
        return self.met or self.missed is not None or entry.dead

    @property
    def met(self) -> bool:
        """Whether all of it is there."""
        return (
            all(map(_ready, self.ready))
            and all(entry.finished for entry in self.finished)
            and all(entry.dead for entry in self.ended)
        )

    @property
    def missed(self) -> TaskEntry | None:
        """What will never be there any more."""
        failed = (entry for entry in self.finished if entry.dead and not entry.finished)
        return next(itertools.chain(filter(_died, self.ready), failed), None)


async def _let_through(equipment: Equipment, run: GraphRun, entry: TaskEntry) -> None:
    """Give a waiting task its go-ahead, which is recorded before."""
    values = await run.late_values(entry.name) if run.late_values is not None else {}
    if entry.life.state is not TaskState.WAITING:  # it did not live to see them
        return
    entry.late_values = dict(values)
    _BEFORE_GO_AHEAD.reached()
    await apply_recorded(equipment, entry, LetThrough())
    _GO_AHEAD_RECORDED.reached()
    equipment.gates.let_through(entry.task.task_id, values)
    _GO_AHEAD.reached()


async def _within(entry: TaskEntry, seconds: float, waiting: Any) -> None:
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        raise LaunchError(
            f"task {entry.name} on host {entry.assignment.host if entry.assignment else '?'} was not "
            f"ready within its {entry.template.launch_timeout:g} s: it is {entry.life.state.value}, "
            f"Mesos says {entry.life.mesos_state or 'nothing'}"
            + (f"; {entry.unready}" if entry.unready else "")
        ) from None


async def last_words(entry: TaskEntry) -> str:
    """Return what people should know of a task that died during the launch."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOG_SECONDS):
            await entry.log_done.wait()
    return obituary(entry)


def obituary(entry: TaskEntry) -> str:
    """Tell how a task died: name, host, cause, last log lines."""
    host = entry.assignment.host if entry.assignment else "?"
    lines = "".join(f"\n    {line}" for line in entry.log_tail)
    text = f"task {entry.name} on host {host} died: {entry.life.death}"
    return text + (f"; its last log lines:{lines}" if lines else "")
