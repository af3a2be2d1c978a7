"""The graphs in our care, from their admission to the moment when nothing of them is left."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection
from typing import Final

from scheduler import shutdown
from scheduler.background import Background
from scheduler.crash_points import CrashPoint
from scheduler.equipment import Equipment, insist
from scheduler.errors import GraphError, JournalError, LaunchError
from scheduler.graph import PhysicalGraph
from scheduler.journal import GraphPhase
from scheduler.runs import GraphRun, TaskEntry
from scheduler.task import TaskState
from scheduler.threads import compute

logger = logging.getLogger(__name__)

_DEAD: Final = CrashPoint("stop.dead", "all tasks of a graph are dead, its records exist")


class Graphs:
    """Admits graphs, takes them down, forgets them.

    Parameters
    ----------
    equipment
        What taking down works with.
    background
        Where a graph ends that nobody waits for.
    """

    def __init__(self, equipment: Equipment, background: Background) -> None:
        self._equipment = equipment
        self._runs = equipment.runs
        self._background = background

    async def admit(self, graph: PhysicalGraph) -> GraphRun:
        """Take up a new graph, checked and made ready off the event loop.

        Raises
        ------
        GraphError
            If it cannot be run, or one of that id is not dead.
        """
        await compute(graph.logical.validate, graph.values.keys())
        run = await compute(GraphRun, graph)
        old = self._runs.get(graph.graph_id)
        if old is not None and not old.dead:
            raise GraphError(f"there is a graph {graph.graph_id} already")
        if old is not None:
            self._runs.forget(graph.graph_id)
        self._runs.add(run)
        return run

    async def admit_batch(self, graph: PhysicalGraph) -> GraphRun:
        """Take up a batch graph: a new one, or one that a predecessor began; raises as :meth:`admit`."""
        known = self._runs.get(graph.graph_id)
        if known is not None and known.phase is GraphPhase.LAUNCHING and not known.resumed:
            return self.resume(graph.graph_id)
        run = await self.admit(graph)
        run.resumed = True
        return run

    async def stop(self, run: GraphRun, cause: str) -> None:
        """Take a graph down in the order of its KILL edges; returns when all of it is dead."""
        graph_id = run.graph.graph_id
        run.ask_to_stop(cause)
        self._equipment.queue.withdraw(graph_id, LaunchError(f"graph {graph_id}: {cause}"))
        await shutdown.give_up(self._equipment, run)
        await shutdown.take_down(self._equipment, run, cause)
        await self.bury(run, keep_views=False)

    def abandon(self, run: GraphRun, cause: str) -> None:
        """Take a graph down in the background."""
        if not self._background.closed:
            run.ask_to_stop(cause)
            self._background.spawn(self.stop(run, cause))

    def end_tasks(self, run: GraphRun, names: Collection[str], cause: str) -> None:
        """Take some tasks down in the background, of a graph that is up: it ought to have them."""
        ending = shutdown.take_down(self._equipment, run, cause, names, intended=False)
        self._background.spawn(ending)

    async def bury(self, run: GraphRun, *, keep_views: bool) -> None:
        """Forget a graph whose tasks are all dead; with `keep_views`, it can still be looked at."""
        for entry in run.entries.values():
            self._equipment.gates.forget(entry.task.task_id)
        graph_id = run.graph.graph_id
        if self._runs.get(graph_id) is not run:  # somebody was faster
            return
        run.buried = True
        if not keep_views:
            self._runs.forget(graph_id)
        _DEAD.reached()
        try:
            await self._equipment.journal.forget_graph(graph_id)
        except JournalError as exc:  # nobody need wait for it
            logger.warning("the end of graph %s is not recorded yet: %s", graph_id, exc)
            self._background.spawn(self._forget(run))

    async def _forget(self, run: GraphRun) -> None:
        """Remove the records of a dead graph, however long the journal is away."""

        async def forget() -> None:
            if self._runs.get(run.graph.graph_id) in (None, run):  # its name is not used again
                await self._equipment.journal.forget_graph(run.graph.graph_id)

        await insist(math.inf, forget)

    def take_up(self, run: GraphRun, patience: float) -> None:
        """Go on with a graph of a predecessor, wherever it was.

        One that was up is watched; a restart of single tasks that was under way is undone. One that was being
        taken down is taken down. One whose launch was under way waits for :meth:`resume`, and is taken down
        when nobody asks for that.

        Parameters
        ----------
        patience
            Seconds for which a launch waits.
        """
        self._runs.add(run)
        for entry in run.entries.values():
            self._open_gate(run, entry)
        if run.dead and run.phase is not GraphPhase.LAUNCHING:
            self._background.spawn(self.bury(run, keep_views=True))
        elif run.phase is GraphPhase.STOPPING:
            self.abandon(run, "its end did not survive the controller")
        elif run.phase is GraphPhase.UP:
            self._undo_restarts(run)
        elif patience <= 0:
            self.abandon(run, _NOT_SURVIVED)
        else:
            self._background.spawn(self._roll_back_later(run, patience))

    def resume(self, graph_id: str) -> GraphRun:
        """Return a graph whose launch a predecessor began, and keep it from being taken down.

        Raises
        ------
        GraphError
            If there is none, or it is past that.
        """
        run = self._runs.get(graph_id)
        if run is None:
            raise GraphError(f"there is no graph {graph_id} to go on with")
        if run.resumed or run.stop_cause is not None or run.phase is not GraphPhase.LAUNCHING:
            raise GraphError(
                f"the launch of graph {graph_id} cannot be resumed: "
                + (run.stop_cause or f"it is {run.phase.value}, or somebody has resumed it")
            )
        run.resumed = True
        return run

    def _open_gate(self, run: GraphRun, entry: TaskEntry) -> None:
        """Answer the questions of a task as the predecessor did, or would have done."""
        if not entry.token or entry.dead:
            return
        gates, task_id = self._equipment.gates, entry.task.task_id
        gates.open(task_id, entry.token)
        if entry.life.state is TaskState.STOPPING:
            gates.close(task_id)
        elif entry.life.state in (TaskState.STARTING, TaskState.READY):
            gates.let_through(task_id, entry.late_values)

    def _undo_restarts(self, run: GraphRun) -> None:
        """End tasks of a graph that were on their way up again, or being ended for that."""
        names = [name for name, entry in run.entries.items() if not _at_rest(entry)]
        self.end_tasks(run, names, "its restart did not survive the controller")

    async def _roll_back_later(self, run: GraphRun, patience: float) -> None:
        await asyncio.sleep(patience)
        if not run.resumed and run.stop_cause is None:
            self.abandon(run, _NOT_SURVIVED)


_NOT_SURVIVED: Final = "its launch did not survive the controller"


def _at_rest(entry: TaskEntry) -> bool:
    return entry.life.state in (TaskState.READY, TaskState.DEAD)
