"""From a claim to tasks: a placed graph, or a part of one, becomes ``TaskInfo`` messages and ACCEPT calls.

Everything is recorded before the calls are made: every task with its place, then every task as launching. What
fails before the calls gives the offers back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from orjson import Fragment, JSONEncodeError

from scheduler.breath import Breath, together
from scheduler.claims import Claim, Place
from scheduler.crash_points import CrashPoint
from scheduler.equipment import Equipment, apply_recorded
from scheduler.errors import FrameworkError, GraphError, LaunchError, QuantityError
from scheduler.goahead import new_token, wrapped, wrapper_environment
from scheduler.offers import Ledger
from scheduler.pymesos_driver import CallUncertain, part
from scheduler.runs import GraphRun, TaskEntry
from scheduler.task import Accepted, LetThrough, Placed, StatusUpdate
from scheduler.taskinfo import (
    NAMES,
    Bound,
    own_fields,
    resolution_order,
    resolved,
    shared_fields,
    shared_variables,
    shares,
    task_info,
    waits,
)

logger = logging.getLogger(__name__)

Written: TypeAlias = dict[str, Fragment]
"""``TaskInfo`` messages, as they go into a call, by the ids of the tasks."""

_SHORT_STEPS: Final = 256
"""Of a hundredth of a millisecond and less, at a time: a turn of the loop costs more than some of them."""

_PLACED: Final = CrashPoint("launch.placed", "all tasks are recorded with their places")
_MARKED: Final = CrashPoint("launch.marked", "all tasks are recorded as launching, none is")
_ACCEPTED: Final = CrashPoint("launch.accepted", "offers of one more agent are accepted")
_ALL_ACCEPTED: Final = CrashPoint("launch.all-accepted", "offers of all agents are accepted")


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
        Until when the places must be in the journal; time of the event loop's clock.
    gated
        Whether tasks that depend on others wait for their go-ahead; not, when all that is past.

    Raises
    ------
    LaunchError
        If the tasks could not be written as Mesos wants them: a fault of the graph or of the packing.
    JournalError
        If the places could not be written before the deadline.
    """
    try:
        infos = await _prepare(equipment, run, claim, entries, deadline, gated=gated)
    except BaseException:
        give_back(equipment, claim)
        raise
    await together(_accept(equipment, run, claim, place, infos[place]) for place in infos)
    _ALL_ACCEPTED.reached()


def give_back(equipment: Equipment, claim: Claim) -> None:
    """Give the offers of a claim back that is not used."""
    equipment.framework.decline(claim.offer_ids, refuse_seconds=0.0)
    claim.settled()


async def _prepare(
    equipment: Equipment,
    run: GraphRun,
    claim: Claim,
    entries: Sequence[TaskEntry],
    deadline: float,
    *,
    gated: bool,
) -> dict[Place, Written]:
    """Do all that comes before the act, and return the ``TaskInfo`` of every task by its place."""
    bound = await _bind(run, claim, entries, gated=gated)
    claim.settled()
    infos = await _task_infos(equipment, run, claim, bound)
    for entry in entries:
        if entry.token:
            equipment.gates.open(entry.task.task_id, entry.token)
    await together(
        apply_recorded(equipment, entry, Placed(bound[entry.name].assignment.agent_id), deadline)
        for entry in entries
    )
    _PLACED.reached()
    if run.stop_cause is not None:
        raise LaunchError(f"graph {run.graph.graph_id}: {run.stop_cause}")
    await together(_mark(equipment, entry, deadline) for entry in entries)
    _MARKED.reached()
    return infos


async def _mark(equipment: Equipment, entry: TaskEntry, deadline: float) -> None:
    """Record a task as launching; of one that waits for nothing also that it may begin."""
    await apply_recorded(equipment, entry, Accepted(), deadline)
    if not entry.token:
        await apply_recorded(equipment, entry, LetThrough(), deadline)


async def _bind(
    run: GraphRun, claim: Claim, entries: Iterable[TaskEntry], *, gated: bool
) -> dict[str, Bound]:
    """Note what each task got, and give a secret to those that wait for their go-ahead."""
    bound: dict[str, Bound] = {}
    breath = Breath(_SHORT_STEPS)
    for entry in entries:
        if gated and waits(run.edges, entry.name):
            entry.token = entry.token or new_token()
        assignment = claim.placement.assignments[entry.name]
        agent = claim.agents[assignment.agent_id, assignment.role]
        drawn = claim.drawn[entry.name]
        bound[entry.name] = Bound(entry.task, assignment, agent, drawn)
        entry.assignment, entry.drawn = assignment, (assignment, drawn)
        run.placed[entry.name] = assignment
        entry.address, entry.agent_url = agent.address, agent.url
        await breath.step()
    return bound


async def _task_infos(
    equipment: Equipment, run: GraphRun, claim: Claim, bound: Mapping[str, Bound]
) -> dict[Place, Written]:
    """Return the ``TaskInfo`` of every task, by its place; the loop goes on in between."""
    ledgers: dict[Place, Ledger] = {}
    infos: dict[Place, Written] = {}
    breath = Breath(16)  # to write a task is a step of a tenth of a millisecond and more
    short = Breath(_SHORT_STEPS)
    try:
        for name, task in bound.items():
            run.entries[name].shared = shared_fields(run.graph, run.edges, task)
            await short.step()
        for name in resolution_order(run.graph, bound.keys()):
            task = bound[name]
            place = task.assignment.agent_id, task.assignment.role
            if (ledger := ledgers.get(place)) is None:
                ledger = ledgers[place] = Ledger(claim.offers[place])
            written = infos.setdefault(place, {})
            written[task.task.task_id] = _written(equipment, run, task, ledger)
            await breath.step()
    except (GraphError, QuantityError, JSONEncodeError) as exc:
        raise LaunchError(f"graph {run.graph.graph_id} cannot be launched: {exc}") from exc
    for place in list(ledgers):  # all at once, those of 500 agents take 15 ms to be freed
        del ledgers[place], claim.offers[place]
        await breath.step()
    return infos


def _written(equipment: Equipment, run: GraphRun, bound: Bound, ledger: Ledger) -> Fragment:
    """Return the ``TaskInfo`` of a task, and keep what others may name of its environment."""
    entry = run.entries[bound.task.name]
    values = own_fields(run.graph, bound)
    for target in run.edges.targets(entry.name, *NAMES):
        values.update(run.entries[target].shared)
    command, environment = resolved(bound.task.template, values)
    if named := shared_variables(run.edges, entry.name, environment):
        entry.shared = {**entry.shared, **named}
    environment = {**shares(bound), **environment}
    wait = 0.0
    if entry.token:
        wait = equipment.goahead_deadline
        command = wrapped(command)
        environment |= wrapper_environment(
            bound.task.task_id, entry.token, equipment.controllers, wait, equipment.goahead_tls
        )
    info = task_info(
        run.graph, bound, ledger, command, environment, waits_seconds=wait, token=entry.token
    )
    return part(info)


async def _accept(
    equipment: Equipment,
    run: GraphRun,
    claim: Claim,
    place: Place,
    infos: Written,
) -> None:
    offer_ids = claim.agents[place].offer_ids
    try:
        await equipment.framework.accept(offer_ids, list(infos.values()))
        _ACCEPTED.reached()
    except FrameworkError as exc:
        # The offers must not stay ours. Should the ACCEPT arrive after all, it comes before this and holds, or
        # after it and is dropped by Mesos.
        equipment.framework.decline(offer_ids, refuse_seconds=0.0)
        if isinstance(exc, CallUncertain):  # the tasks may run: updates or reconciliation will tell
            logger.warning("graph %s: %s", run.graph.graph_id, exc)
            return
        for task_id in infos:  # they do not run: what Mesos itself would call dropped
            dropped = StatusUpdate(task_id, "TASK_DROPPED", message=f"ACCEPT failed: {exc}")
            if (entry := equipment.runs.entry(task_id)) is not None:
                await equipment.runs.apply(entry, dropped)
