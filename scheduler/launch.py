"""The multi-stage launch of one physical graph, and its ordered shutdown.

All tasks of a graph are launched together or not at all. Those that depend on others wait for their go-ahead
(:mod:`scheduler.goahead`), which they get once all that they depend on is ready. Whatever fails on the way
takes the whole graph down, leaf to root; only a race between the offers and the cluster is worth one more
try, under new ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from scheduler.errors import (
    FrameworkError,
    GraphError,
    JournalError,
    LaunchError,
    QuantityError,
    SchedulerError,
)
from scheduler.goahead import GoAhead, new_token, wrapped, wrapper_environment
from scheduler.graph import EdgeKind, ReadyKind
from scheduler.journal import Journal
from scheduler.offers import Ledger
from scheduler.placement import Placement
from scheduler.pymesos_driver import CallUncertain
from scheduler.queues import Claim, LaunchQueue
from scheduler.readiness import until_ready
from scheduler.runs import GraphRun, Runs, TaskEntry
from scheduler.task import (
    Accepted,
    KillAsked,
    LetThrough,
    Placed,
    ReadyHeld,
    StatusUpdate,
    TaskState,
)
from scheduler.taskinfo import WAITS_FOR, Bound, namespace, resolved, shares, task_info, waits

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 2
LOG_SECONDS: Final = 3.5
"""How long a failure waits for the dead task's last lines."""
JOURNAL_PAUSE: Final = 0.5

LateValues = Callable[[str], Awaitable[Mapping[str, str]]]
"""Given a task's name, returns what its go-ahead shall carry."""


class Offers(Protocol):
    """The calls to Mesos that dispose of offers; see :class:`scheduler.framework.Framework`."""

    async def accept(
        self,
        offer_ids: Sequence[str],
        task_infos: Sequence[Mapping[str, Any]],
        *,
        refuse_seconds: float = 0.0,
    ) -> None:
        """Launch tasks on offers of one agent."""

    def decline(self, offer_ids: Sequence[str], *, refuse_seconds: float) -> None:
        """Give offers back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What a launch works with."""

    framework: Offers
    gates: GoAhead
    journal: Journal
    queue: LaunchQueue
    runs: Runs
    controllers: Sequence[str]
    """Base URLs at which waiting tasks may ask."""
    goahead_deadline: float
    """Seconds for which they ask."""
    kill_interval: float
    """Seconds between two kills of a task that does not end."""


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
    late_values: LateValues | None = None,
) -> None:
    """Bring a graph up: returns when every task is ready.

    Parameters
    ----------
    deadline
        Until when the graph must have found its place; time of the event loop's clock.

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
    for attempt in range(ATTEMPTS):
        try:
            await _launch_once(equipment, run, deadline, priority, late_values)
        except SchedulerError:
            await _unwind(equipment, run, "the launch failed")
            raise
        except TaskDied as died:
            last = attempt + 1 == ATTEMPTS or asyncio.get_running_loop().time() >= deadline
            await _unwind(equipment, run, f"{died.entry.name} died during the launch")
            last = last or not run.dead or run.stop_cause is not None
            death = died.entry.life.death
            if last or death is None or not death.worth_another_try:
                raise LaunchError(await _obituary(died.entry)) from None
            logger.warning("graph %s is tried again: %s", run.graph.graph_id, death)
            for entry in run.entries.values():
                equipment.gates.forget(entry.task.task_id)
            run.renew(run.graph.again())
            equipment.runs.index(run)
        else:
            run.launched = True
            return


async def _launch_once(
    equipment: Equipment,
    run: GraphRun,
    deadline: float,
    priority: int,
    late_values: LateValues | None,
) -> None:
    graph = run.graph
    await insist(deadline, lambda: equipment.journal.record_graph(graph))
    requests = {task.name: task.request for task in graph.logical.tasks}
    claim = await equipment.queue.place(
        graph.graph_id, requests, deadline=deadline, priority=priority
    )
    await start_tasks(equipment, run, claim, list(run.entries.values()), deadline)
    await _bring_up(equipment, run, late_values)


async def insist(deadline: float, write: Callable[[], Any]) -> None:
    """Repeat a write of the journal until it is safe or the deadline has passed.

    Raises
    ------
    JournalError
        If the deadline has passed.
    """
    while True:
        try:
            await write()
        except JournalError as exc:
            if asyncio.get_running_loop().time() + JOURNAL_PAUSE > deadline:
                raise
            logger.warning("a launch waits for the journal: %s", exc)
            await asyncio.sleep(JOURNAL_PAUSE)
        else:
            return


# ---------------------------------------------------------------------- from a claim to tasks


async def start_tasks(
    equipment: Equipment,
    run: GraphRun,
    claim: Claim,
    entries: Sequence[TaskEntry],
    deadline: float,
    *,
    gated: bool = True,
) -> None:
    """Launch placed tasks, on all agents together; those with nothing to wait for are let through.

    Parameters
    ----------
    deadline
        Until when the placement must be in the journal; time of the event loop's clock.
    gated
        Whether tasks that depend on others wait for their go-ahead; not, when all that is past.

    Raises
    ------
    LaunchError
        If the tasks could not be written as Mesos wants them: a fault of the graph or of the packing.
    JournalError
        If the placement could not be written before the deadline.
    """
    for entry in entries:
        if gated and waits(run.graph, entry.name):
            entry.token = entry.token or new_token()
    try:
        infos = await _prepare(equipment, run, claim, entries, deadline)
    except BaseException:
        ids = [offer["id"]["value"] for offers in claim.offers.values() for offer in offers]
        equipment.framework.decline(ids, refuse_seconds=0.0)
        raise
    calls = (_accept(equipment, run, claim, agent_id, infos[agent_id]) for agent_id in infos)
    await asyncio.gather(*calls)


async def _prepare(
    equipment: Equipment,
    run: GraphRun,
    claim: Claim,
    entries: Sequence[TaskEntry],
    deadline: float,
) -> dict[str, list[dict[str, Any]]]:
    """Do all that comes before the act, and return the ``TaskInfo`` of every task by agent id."""
    known = run.placement.assignments if run.placement is not None else {}
    placement = Placement({**known, **claim.placement.assignments})
    await insist(
        deadline, lambda: equipment.journal.record_placement(run.graph.graph_id, placement)
    )
    run.placement = placement
    bound = _bind(run, claim, entries)
    infos = _task_infos(equipment, run, claim, bound)
    for entry in entries:
        if entry.token:
            equipment.gates.open(entry.task.task_id, entry.token)
        await equipment.runs.apply(entry, Placed(bound[entry.name].agent.agent_id))
    if run.stop_cause is not None:
        raise LaunchError(f"graph {run.graph.graph_id}: {run.stop_cause}")
    for entry in entries:
        await equipment.runs.apply(entry, Accepted())
        if not entry.token:
            await equipment.runs.apply(entry, LetThrough())
    return infos


def _bind(run: GraphRun, claim: Claim, entries: Iterable[TaskEntry]) -> dict[str, Bound]:
    bound: dict[str, Bound] = {}
    for entry in entries:
        assignment = claim.placement.assignments[entry.name]
        agent = claim.agents[assignment.agent_id]
        bound[entry.name] = Bound(entry.task, assignment, agent)
        entry.assignment = assignment
        entry.address, entry.agent_url = agent.address, agent.url
    return bound


def _task_infos(
    equipment: Equipment, run: GraphRun, claim: Claim, bound: Mapping[str, Bound]
) -> dict[str, list[dict[str, Any]]]:
    """Return the ``TaskInfo`` of every task, by agent id."""
    ledgers = {agent_id: Ledger(offers) for agent_id, offers in claim.offers.items()}
    infos: dict[str, list[dict[str, Any]]] = {}
    try:
        for name, place in bound.items():
            values = namespace(run.graph, name, bound)
            command, environment = resolved(place.task.template, values)
            environment = {**shares(place), **environment}
            if token := run.entries[name].token:
                command = wrapped(command)
                environment |= wrapper_environment(
                    place.task.task_id, token, equipment.controllers, equipment.goahead_deadline
                )
            agent_id = place.agent.agent_id
            info = task_info(run.graph, place, ledgers[agent_id], command, environment)
            infos.setdefault(agent_id, []).append(info)
    except (GraphError, QuantityError) as exc:
        raise LaunchError(f"graph {run.graph.graph_id} cannot be launched: {exc}") from exc
    return infos


async def _accept(
    equipment: Equipment,
    run: GraphRun,
    claim: Claim,
    agent_id: str,
    infos: Sequence[Mapping[str, Any]],
) -> None:
    offer_ids = [offer["id"]["value"] for offer in claim.offers[agent_id]]
    try:
        await equipment.framework.accept(offer_ids, infos)
    except FrameworkError as exc:
        # The offers must not stay ours. Should the ACCEPT arrive after all, it comes before this and holds, or
        # after it and is dropped by Mesos.
        equipment.framework.decline(offer_ids, refuse_seconds=0.0)
        if isinstance(exc, CallUncertain):  # the tasks may run: updates or reconciliation will tell
            logger.warning("graph %s: %s", run.graph.graph_id, exc)
            return
        for info in infos:  # they do not run: what Mesos itself would call dropped
            task_id = info["task_id"]["value"]
            dropped = StatusUpdate(task_id, "TASK_DROPPED", message=f"ACCEPT failed: {exc}")
            if (entry := equipment.runs.entry(task_id)) is not None:
                await equipment.runs.apply(entry, dropped)


# ---------------------------------------------------------------------- from tasks to a graph


async def _bring_up(equipment: Equipment, run: GraphRun, late_values: LateValues | None) -> None:
    """Walk the graph front to back; the first death ends the walk."""
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(run))
            async with asyncio.TaskGroup() as steps:
                for entry in run.entries.values():
                    steps.create_task(_bring_up_task(equipment, run, entry, late_values))
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


async def _watch(run: GraphRun) -> None:
    critical = [entry for entry in run.entries.values() if entry.template.critical]
    await run.until(lambda: any(map(_died, critical)))
    raise TaskDied(next(filter(_died, critical)))


def _ready(entry: TaskEntry) -> bool:
    if entry.template.ready.kind is ReadyKind.EXIT:
        return entry.finished
    return entry.life.state is TaskState.READY


async def _bring_up_task(
    equipment: Equipment, run: GraphRun, entry: TaskEntry, late_values: LateValues | None
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    budget = entry.template.launch_timeout
    await _within(entry, budget, run.until(lambda: entry.life.running or entry.dead))
    budget -= loop.time() - began
    targets = run.graph.logical.targets(entry.name, *WAITS_FOR)
    needed = [run.entries[target] for target in targets]
    await run.until(lambda: all(_ready(e) or _died(e) for e in needed) or entry.dead)
    if dead := next(filter(_died, needed), None):
        raise TaskDied(dead)
    if entry.token and not entry.dead:
        await let_through(equipment, entry, late_values)
    if not _died(entry):
        await _within(entry, max(budget, 0.01), until_ready(run, entry))
    if entry.life.state is TaskState.STARTING:
        await equipment.runs.apply(entry, ReadyHeld())


async def let_through(
    equipment: Equipment, entry: TaskEntry, late_values: LateValues | None
) -> None:
    """Give a waiting task its go-ahead, which is recorded before."""
    values = await late_values(entry.name) if late_values is not None else {}
    if entry.life.state is not TaskState.WAITING:  # it did not live to see them
        return
    await equipment.runs.apply(entry, LetThrough())
    equipment.gates.let_through(entry.task.task_id, values)


async def _within(entry: TaskEntry, seconds: float, waiting: Any) -> None:
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        raise LaunchError(
            f"task {entry.name} on host {entry.assignment.host if entry.assignment else '?'} was not "
            f"ready within its {entry.template.launch_timeout:g} s: it is {entry.life.state.value}, "
            f"Mesos says {entry.life.mesos_state or 'nothing'}"
        ) from None


async def _obituary(entry: TaskEntry) -> str:
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


# ---------------------------------------------------------------------- the way down


async def _unwind(equipment: Equipment, run: GraphRun, cause: str) -> None:
    """Take a failed launch down; do not wait for what does not end in any reasonable time."""
    grace = max(entry.template.kill_grace for entry in run.entries.values())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace + 2 * equipment.kill_interval):
            await take_down(equipment, run, cause)


async def take_down(equipment: Equipment, run: GraphRun, cause: str) -> None:
    """Kill every task of a graph, each after those that need it by KILL edges are dead.

    Returns when all are dead, however long that takes: what is not known to be dead holds its resources.
    """
    async with asyncio.TaskGroup() as group:
        for entry in run.entries.values():
            group.create_task(_kill(equipment, run, entry, cause))


async def _kill(equipment: Equipment, run: GraphRun, entry: TaskEntry, cause: str) -> None:
    first = [run.entries[n] for n in run.graph.logical.sources(entry.name, EdgeKind.KILL)]
    await run.until(lambda: all(e.dead for e in first) or entry.dead, though_stopping=True)
    await kill_until_dead(equipment, run, entry, cause)


async def kill_until_dead(
    equipment: Equipment, run: GraphRun, entry: TaskEntry, cause: str
) -> None:
    """Kill one task, again and again until it is dead."""
    while not entry.dead:
        try:
            await equipment.runs.apply(entry, KillAsked(cause))
        except JournalError as exc:  # killing needs no permission
            logger.warning("the end of %s was not recorded: %s", entry.task.task_id, exc)
        try:
            async with asyncio.timeout(equipment.kill_interval):
                await run.until(lambda: entry.dead, though_stopping=True)
        except TimeoutError:
            logger.warning(
                "%s is still %s: killed again", entry.task.task_id, entry.life.state.value
            )
