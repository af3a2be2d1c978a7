"""Run-to-completion graphs: every node is placed by itself, once what it needs has been decided.

A FINISHED edge is critical: the node is skipped if what it needs did not finish. An ENDED edge is not: the
node is run in any case, unless its condition (:mod:`scheduler.conditions`) says otherwise. A node that fails is
tried again under a new id, up to a number of attempts, when that is permitted (:mod:`scheduler.permission`);
one that had to make room is run again without using one up. Each attempt may take no longer than the node's
``max_run_time``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from scheduler.claims import Claim
from scheduler.closures import stay
from scheduler.conditions import CONDITIONS
from scheduler.equipment import Equipment, insist
from scheduler.errors import GraphError, JournalError, LaunchError, NoFitError, SchedulerError
from scheduler.graph import EdgeKind, PhysicalGraph, ReadyKind
from scheduler.graphs import Graphs
from scheduler.journal import GraphPhase
from scheduler.launch import LOG_SECONDS
from scheduler.packing.shortage import listed
from scheduler.permission import Permission, granted
from scheduler.runs import GraphRun, TaskEntry
from scheduler.shutdown import kill_until_dead, reasonable
from scheduler.starting import give_back, start_tasks
from scheduler.task import TaskState
from scheduler.views import Attempt, BatchResult, NodeResult

logger = logging.getLogger(__name__)

MAX_HISTORY: Final = 20
"""Executions of a node that are told of."""
STANDSTILL: Final = 60.0
"""Seconds after which a node that waits sees whether the graph's clock goes on again."""
MAX_RACES: Final = 5
"""Attempts of a node that were lost before they ran and do not count; more of them do."""


def check(graph: PhysicalGraph) -> None:
    """Refuse a graph that is none of batch nodes.

    Raises
    ------
    GraphError
        Naming everything that batch nodes do not have.
    """
    wrong = [
        f"a {edge.kind.name} edge from {edge.source} to {edge.target}"
        for edge in graph.logical.edges
        if edge.kind not in (EdgeKind.FINISHED, EdgeKind.ENDED)
    ]
    wrong += [
        f"the readiness check {task.ready.kind.value!r} of {task.name}"
        for task in graph.logical.tasks
        if task.ready.kind not in (ReadyKind.RUNNING, ReadyKind.EXIT)
    ]
    wrong += [
        f"the condition {task.run_if!r} of {task.name}, which is none of {', '.join(CONDITIONS)}"
        for task in graph.logical.tasks
        if task.run_if is not None and task.run_if not in CONDITIONS
    ]
    if wrong:
        raise GraphError(
            f"graph {graph.graph_id} cannot run to completion: it has " + "; ".join(wrong)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms a graph is run."""

    attempts: int
    """How often a node is tried, at least once."""
    deadline: float
    """When everything ends, finished or not; time of the event loop's clock."""
    priority: int = 0
    retries: Permission = granted
    """When a node may be tried again. Waiting for that does not count as time of the graph."""


Concluded = Callable[[BatchResult], Awaitable[None]]
"""Is awaited with the result before the graph is forgotten."""


async def conduct(
    equipment: Equipment, graphs: Graphs, run: GraphRun, terms: Terms, concluded: Concluded | None
) -> BatchResult:
    """Run a graph that was admitted, and see to what is left of it; raises as :func:`run_to_completion`."""
    try:
        result = await run_to_completion(equipment, run, terms)
        if concluded is not None:
            await concluded(result)
    except BaseException:
        if not run.dead:
            graphs.abandon(run, "the batch was cut short")
        raise
    if run.dead:
        await graphs.bury(run, keep_views=True)
    else:  # something does not end: go on with it
        graphs.abandon(run, "its time is up")
    return result


async def run_to_completion(equipment: Equipment, run: GraphRun, terms: Terms) -> BatchResult:
    """Run every node of a graph until it has finished or cannot.

    Returns
    -------
    BatchResult
        How each node ended; a failure is no exception here.

    Raises
    ------
    JournalError
        If the intent could not be written before the deadline.
    LaunchError
        If it was taken down before that was written.
    """
    graph = run.graph
    await insist(terms.deadline, lambda: equipment.journal.record_graph(graph), run)
    write = equipment.journal.record_phase
    await insist(terms.deadline, lambda: write(graph.graph_id, GraphPhase.LAUNCHING), run)
    batch = _Batch(equipment, run, terms)
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(batch.run_node(name)) for name in graph.tasks}
    nodes = {name: task.result() for name, task in tasks.items()}
    failed = tuple(
        name
        for name, node in nodes.items()
        if not node.finished and not node.excused and graph.tasks[name].template.critical
    )
    return BatchResult(graph.graph_id, nodes, failed)


def _lost_a_race(entry: TaskEntry) -> bool:
    """Whether an attempt never ran, because the cluster changed meanwhile: that says nothing of the node."""
    return entry.life.death is not None and entry.life.death.worth_another_try


def _what_is_left(entry: TaskEntry) -> str:
    """Say what became of an attempt that does not end; empty when it has ended."""
    if entry.dead:
        return ""
    host = entry.assignment.host if entry.assignment is not None else "?"
    said = entry.life.mesos_state or "nothing"
    return f"{entry.task.task_id} on host {host} does not end; Mesos says {said}"


class _Batch:
    """One run of a batch graph."""

    def __init__(self, equipment: Equipment, run: GraphRun, terms: Terms) -> None:
        self._equipment = equipment
        self._run = run
        self._attempts = max(1, terms.attempts)
        self._deadline = terms.deadline
        self._priority = terms.priority
        self._retries = terms.retries
        self._held: set[str] = set()
        """Names of the nodes that may not be tried again yet."""
        self._counted_at = 0.0
        """Up to when that has been added to the graph's time."""
        self._results: dict[str, NodeResult] = {}
        self._ran_at: dict[str, float] = {}
        self._placing = asyncio.Lock()
        """Graph and placement are written one node after the other."""

    async def run_node(self, name: str) -> NodeResult:
        """Wait for what the node needs, and run it."""
        result = await self._run_node(name)
        self._results[name] = result
        self._run.notify()
        return result

    async def _run_node(self, name: str) -> NodeResult:
        critical = self._run.edges.targets(name, EdgeKind.FINISHED)
        needs = (*critical, *self._run.edges.targets(name, EdgeKind.ENDED))
        with contextlib.suppress(LaunchError):  # taken down: seen below
            await self._run.until(lambda: self._decided(needs))
        if (skipped := self._skipped(name, critical, needs)) is not None:
            await self._end(self._run.entries[name], skipped.skipped)
            return skipped
        history: deque[Attempt] = deque(maxlen=MAX_HISTORY)
        counted, races, lost = self._run.entries[name].spent, 0, False
        while True:
            entry = self._run.entries[name]
            tried = await self._attempt(entry, lost=lost)
            history.append(self._told(entry))
            races += _lost_a_race(entry)
            excused = entry.preempted or (_lost_a_race(entry) and races <= MAX_RACES)
            counted += entry.finished or not excused
            if entry.finished or not tried or self._run.stop_cause is not None:
                break
            if counted >= self._attempts or not await self._renew(name):
                break
            lost = entry.life.death is not None and entry.life.death.with_its_agent
        return NodeResult(
            name=name,
            attempts=counted,
            death=entry.life.death,
            log_tail=entry.log_tail,
            history=tuple(history),
            left=_what_is_left(entry),
        )

    def _skipped(
        self, name: str, critical: Collection[str], needs: Collection[str]
    ) -> NodeResult | None:
        """Return the result of a node that shall not run; None if it shall."""
        if self._run.stop_cause is not None:
            return NodeResult(name=name, attempts=0, death=None, skipped=self._run.stop_cause)
        missing = [self._results[need] for need in critical if not self._results[need].finished]
        if missing:
            why = f"{listed([result.name for result in missing])} did not finish"
            excused = all(result.excused for result in missing)
            return NodeResult(name=name, attempts=0, death=None, skipped=why, excused=excused)
        condition = self._run.graph.tasks[name].template.run_if
        results = {need: self._results[need] for need in needs}
        if condition is None or CONDITIONS[condition](results):
            return None
        why = f"its condition '{condition}' does not hold"
        return NodeResult(name=name, attempts=0, death=None, skipped=why, excused=True)

    def _told(self, entry: TaskEntry) -> Attempt:
        """Tell of an attempt that has ended."""
        reached = {step.target: step.at for step in entry.life.history}
        return Attempt(
            task_id=entry.task.task_id,
            host=entry.assignment.host if entry.assignment is not None else "",
            placed_at=reached.get(TaskState.PLACED),
            ran_at=self._ran_at.get(entry.task.task_id),
            ended_at=reached.get(TaskState.DEAD, 0.0),
            death=entry.life.death,
            preempted=entry.preempted,
        )

    def _decided(self, needs: Collection[str]) -> bool:
        return all(need in self._results for need in needs)

    async def _renew(self, name: str) -> bool:
        """Give a node a new id; False when that cannot be recorded before the deadline."""
        async with self._placing:
            graph = self._run.graph.again((name,))
            try:
                write = self._equipment.journal.record_graph
                await insist(self._deadline, lambda: write(graph), self._run)
            except (JournalError, LaunchError) as exc:
                logger.warning("%s is not tried again: %s", name, exc)
                return False
            made_room = self._run.entries[name].preempted
            self._run.renew(graph)
            self._run.entries[name].made_room = made_room
            self._equipment.runs.index(self._run)
            return True

    async def _attempt(self, entry: TaskEntry, *, lost: bool) -> bool:
        """Run one attempt to its end; False when another one makes no sense.

        Parameters
        ----------
        lost
            Whether the attempt before it was lost with its agent.
        """
        try:
            if entry.task.attempt and entry.life.state is TaskState.PLANNED:
                await self._permitted(entry, lost=lost)
            await self._begin(entry)
            async with asyncio.timeout_at(self._deadline):
                await self._watch(entry)
        except TimeoutError:
            await self._end(entry, "the time of the whole graph is up")
            return False
        except SchedulerError as exc:
            await self._end(entry, str(exc))
            return isinstance(exc, LaunchError) or entry.preempted
        await self._log(entry)
        return True

    async def _permitted(self, entry: TaskEntry, *, lost: bool) -> None:
        """Wait until a node may be tried again; that takes nothing of the graph's time.

        It has its new id by then: whoever succeeds us sees that it is not tried for the first time.
        """
        asking = asyncio.ensure_future(
            self._retries(lost=lost, refused=lambda why: self._hold(entry, why))
        )
        asking.add_done_callback(lambda _: self._run.notify())
        with self._clock_stopped(entry.name):
            try:
                await self._run.until(asking.done)
                asking.result()
            finally:
                asking.cancel()
                self._hold(entry, "")

    @contextlib.contextmanager
    def _clock_stopped(self, name: str) -> Iterator[None]:
        """Let time pass that is none of the graph's."""
        loop = asyncio.get_running_loop()
        if not self._held:
            self._counted_at = loop.time()
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)
            now = loop.time()
            self._deadline += now - self._counted_at
            self._counted_at = now

    def _hold(self, entry: TaskEntry, why: str) -> None:
        """Show why a node is not tried again yet; empty when it is."""
        if entry.held != why:
            entry.held = why
            self._equipment.runs.announce(entry)

    async def _begin(self, entry: TaskEntry) -> None:
        """Start an attempt, unless a predecessor has."""
        if (
            entry.life.state is TaskState.PLACED
        ):  # of a predecessor, which did not live to launch it
            await self._end(entry, "its launch did not survive the controller")
        elif entry.life.state is TaskState.PLANNED:
            await self._start(entry)

    async def _start(self, entry: TaskEntry) -> None:
        claim = await self._place(entry)
        entry.ends_by = self._ends_by(entry)
        try:
            await self._placing.acquire()
        except BaseException:  # nobody will use it
            give_back(self._equipment, claim)
            raise
        try:
            await start_tasks(
                self._equipment, self._run, claim, [entry], self._deadline, gated=False
            )
        finally:
            self._placing.release()

    async def _place(self, entry: TaskEntry) -> Claim:
        """Wait for a place; for one that made room for others that takes nothing of the graph's time."""
        if entry.made_room:
            with self._clock_stopped(entry.name):
                return await self._wait_for_place(entry, inf)
        deadline = self._deadline
        while True:
            try:
                return await self._wait_for_place(entry, deadline)
            except NoFitError:  # of a graph whose clock stands still nobody is late
                if self._held:
                    deadline = asyncio.get_running_loop().time() + STANDSTILL
                elif self._deadline > deadline:
                    deadline = self._deadline
                else:
                    raise

    async def _wait_for_place(self, entry: TaskEntry, deadline: float) -> Claim:
        return await self._equipment.queue.place(
            self._run.graph.graph_id,
            {entry.name: entry.template.request},
            deadline=deadline,
            priority=self._priority,
            queue=self._run.queue,
            stay=stay((entry.template,)),
            holder=entry.task.task_id,
        )

    async def _watch(self, entry: TaskEntry) -> None:
        limit = entry.template.max_run_time
        timeout = entry.template.launch_timeout
        try:
            async with asyncio.timeout(timeout):
                await self._run.until(lambda: entry.life.running or entry.dead, entry)
        except TimeoutError:
            await self._end(entry, f"it did not run within {timeout:g} s")
        if entry.life.running:
            self._ran_at[entry.task.task_id] = asyncio.get_running_loop().time()
        entry.ends_by = self._ends_by(entry)
        try:
            async with asyncio.timeout(limit):
                await self._run.until(lambda: entry.dead, entry)
        except TimeoutError:
            await self._end(entry, f"it ran longer than {limit:g} s")

    def _ends_by(self, entry: TaskEntry) -> float:
        """Return when an attempt that begins now has ended at the latest."""
        limit = entry.template.max_run_time
        if limit is None:
            return self._deadline
        return min(asyncio.get_running_loop().time() + limit, self._deadline)

    async def _end(self, entry: TaskEntry, cause: str) -> None:
        """Kill an attempt until it is dead; when all is to end, for no longer than is reasonable."""
        grace = reasonable(self._equipment, self._run, (entry.name,))
        until = asyncio.get_running_loop().time() + grace
        if self._run.stop_cause is None:
            until = max(until, self._deadline)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await kill_until_dead(self._equipment, self._run, entry, cause)

    async def _log(self, entry: TaskEntry) -> None:
        try:
            async with asyncio.timeout(LOG_SECONDS):
                await entry.log_done.wait()
        except TimeoutError:
            logger.info("the log of %s could not be had in time", entry.task.task_id)
