"""The graphs in our care, from their admission to the moment when nothing of them is left."""

from __future__ import annotations

import logging

from scheduler import shutdown
from scheduler.background import Background
from scheduler.equipment import Equipment
from scheduler.errors import GraphError, JournalError, LaunchError
from scheduler.graph import PhysicalGraph
from scheduler.runs import GraphRun

logger = logging.getLogger(__name__)


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

    def admit(self, graph: PhysicalGraph) -> GraphRun:
        """Take up a new graph.

        Raises
        ------
        GraphError
            If it cannot be run, or one of that id is not dead.
        """
        graph.logical.validate(graph.values.keys())
        old = self._runs.get(graph.graph_id)
        if old is not None and not old.dead:
            raise GraphError(f"there is a graph {graph.graph_id} already")
        if old is not None:
            self._runs.forget(graph.graph_id)
        run = GraphRun(graph)
        self._runs.add(run)
        return run

    async def stop(self, run: GraphRun, cause: str) -> None:
        """Take a graph down in the order of its KILL edges; returns when all of it is dead."""
        graph_id = run.graph.graph_id
        run.ask_to_stop(cause)
        self._equipment.queue.withdraw(graph_id, LaunchError(f"graph {graph_id}: {cause}"))
        await shutdown.take_down(self._equipment, run, cause)
        await self.bury(run, keep_views=False)

    def abandon(self, run: GraphRun, cause: str) -> None:
        """Take a graph down in the background."""
        if not self._background.closed:
            run.ask_to_stop(cause)
            self._background.spawn(self.stop(run, cause))

    async def bury(self, run: GraphRun, *, keep_views: bool) -> None:
        """Forget a graph whose tasks are all dead; with `keep_views`, it can still be looked at."""
        for entry in run.entries.values():
            self._equipment.gates.forget(entry.task.task_id)
        graph_id = run.graph.graph_id
        if self._runs.get(graph_id) is not run:  # somebody was faster
            return
        if not keep_views:
            self._runs.forget(graph_id)
        try:
            await self._equipment.journal.forget_graph(graph_id)
        except JournalError as exc:  # a successor will find it dead
            logger.warning("the end of graph %s was not recorded: %s", graph_id, exc)

    def take_up(self, run: GraphRun) -> None:
        """Go on with a graph of a predecessor: watch a whole one, take down one that never was."""
        self._runs.add(run)
        for entry in run.entries.values():
            if entry.token and not entry.dead:
                self._equipment.gates.open(entry.task.task_id, entry.token)
                if run.launched:
                    self._equipment.gates.let_through(entry.task.task_id)
        if run.dead:
            self._background.spawn(self.bury(run, keep_views=True))
        elif not run.launched:
            self.abandon(run, "its launch did not survive the controller")
