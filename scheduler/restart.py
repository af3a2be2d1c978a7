"""One task of a running graph is started anew, with those that cannot do without it.

Which those are follows from the edges: a task that must be dead before the restarted one is killed goes first
(KILL), and a task whose templates name what the restarted one was given must be told the new (PORT, RESOURCES,
RESOLVED), unless that stays the same. A task that only waited for it (READY) had its go-ahead, and runs on.

The others keep what they hold; the restarted ones are placed in what is free, under new ids.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from scheduler import shutdown
from scheduler.closures import stay
from scheduler.equipment import Equipment, insist
from scheduler.errors import LaunchError, RestartError, SchedulerError
from scheduler.graph import EdgeIndex, EdgeKind, Restart, TaskTemplate
from scheduler.journal import GraphPhase
from scheduler.launch import TaskDied, bring_up, last_words
from scheduler.placement import Assignment
from scheduler.requests import TaskRequest
from scheduler.runs import GraphRun
from scheduler.starting import start_tasks
from scheduler.taskinfo import NAMES

logger = logging.getLogger(__name__)

_PLACED_ANEW: Final = frozenset({Restart.SAME_AGENT, Restart.ANYWHERE})


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """What is started anew together."""

    in_place: tuple[str, ...]
    """Tasks that get what they had."""
    anywhere: tuple[str, ...]
    """Tasks that are placed anew."""
    because: Mapping[str, str]
    """For each task that was not asked for: why it comes along."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.in_place, *self.anywhere)


def plan_restart(
    name: str, edges: EdgeIndex, policies: Mapping[str, Restart], alive: Collection[str]
) -> RestartPlan:
    """Decide what must be started anew with a task.

    Parameters
    ----------
    policies
        Of all tasks of the graph, by name.
    alive
        Names of the tasks that run.

    Raises
    ------
    RestartError
        If one of them must not be; says which, and why it would have to be.
    """
    if policies[name] is Restart.NEVER:
        raise RestartError(f"{name} is not made to be restarted by itself")
    because: dict[str, str] = {}
    found = [name]
    for task in found:  # grows
        for other, why in _dependants(task, edges, policies[task], task in alive):
            if other in found or other not in alive:
                continue
            if policies[other] is Restart.NEVER:
                raise RestartError(
                    f"{name} cannot be restarted: {other} would have to be restarted too, because"
                    f" it {why}, and is not made for that"
                )
            because[other] = f"it {why}"
            found.append(other)
    in_place = tuple(task for task in found if policies[task] is Restart.IN_PLACE)
    anywhere = tuple(task for task in found if policies[task] in _PLACED_ANEW)
    return RestartPlan(in_place, anywhere, because)


def _dependants(
    task: str, edges: EdgeIndex, policy: Restart, is_alive: bool
) -> list[tuple[str, str]]:
    """Return whom the restart of a task concerns, and why."""
    found: list[tuple[str, str]] = []
    if is_alive:
        why = f"must be dead before {task} is killed"
        found += ((source, why) for source in edges.sources(task, EdgeKind.KILL))
    if policy in _PLACED_ANEW:
        why = f"was told what {task} was given"
        found += ((source, why) for source in edges.sources(task, *NAMES))
    return found


async def restart(
    equipment: Equipment,
    run: GraphRun,
    name: str,
    *,
    timeout: float,
    abandon: Callable[[Collection[str], str], None],
) -> RestartPlan:
    """Start a task anew: returns when it, and all that had to come along, is ready again.

    Parameters
    ----------
    timeout
        Seconds within which what was killed must be dead and what is started must have found its place.
    abandon
        Is called with the names of what must end now, and the reason; it goes on with that by itself.

    Raises
    ------
    RestartError
        If that is not possible; nothing has happened then.
    NoFitError, LaunchError, JournalError
        If it went wrong. The tasks of the plan are dead then, or told to end; the others run on.
    """
    if (refusal := _refusal(run, name)) is not None:
        raise RestartError(f"graph {run.graph.graph_id}: {name} cannot be restarted: {refusal}")
    alive = {n for n, entry in run.entries.items() if not entry.dead}
    policies = {n: entry.template.restart for n, entry in run.entries.items()}
    plan = plan_restart(name, run.edges, policies, alive)
    if busy := run.restarting & set(plan.names):
        raise RestartError(f"{name} cannot be restarted: {', '.join(busy)} is being restarted")
    logger.info("graph %s: restart of %s", run.graph.graph_id, ", ".join(plan.names))
    run.restarting |= set(plan.names)
    try:
        deadline = asyncio.get_running_loop().time() + timeout
        await _restart(equipment, run, plan, deadline)
    except asyncio.CancelledError:
        abandon(plan.names, "its restart was cancelled")
        raise
    except SchedulerError:
        abandon(plan.names, "its restart failed")
        await shutdown.until_dead(equipment, run, plan.names)
        raise
    except TaskDied as died:
        abandon(plan.names, f"{died.entry.name} died while it was restarted")
        await shutdown.until_dead(equipment, run, plan.names)
        raise LaunchError(await last_words(died.entry)) from None
    finally:
        run.restarting -= set(plan.names)
    return plan


def _refusal(run: GraphRun, name: str) -> str | None:
    entry = run.entries.get(name)
    if entry is None:
        return "there is no such task"
    if run.stop_cause is not None:
        return run.stop_cause
    if run.phase is not GraphPhase.UP:
        return f"the graph is {run.phase.value}"
    return None if name in run.placed else "it was never placed"


async def _restart(equipment: Equipment, run: GraphRun, plan: RestartPlan, deadline: float) -> None:
    placed = dict(run.placed)
    had = {name: placed[name] for name in plan.in_place if name in placed}
    await _end(equipment, run, plan, deadline)
    graph = run.graph.again(plan.names)
    await insist(deadline, lambda: equipment.journal.record_graph(graph))
    if run.stop_cause is not None:
        raise LaunchError(f"graph {graph.graph_id}: {run.stop_cause}")
    run.renew(graph)
    equipment.runs.index(run)
    requests = {name: _request(run.entries[name].template, placed) for name in plan.names}
    claim = await equipment.queue.place(
        graph.graph_id,
        requests,
        deadline=deadline,
        queue=replace(run.queue, limits=None),  # an observation that runs is not held up by a limit
        fixed=had,
        stay=stay(run.entries[name].template for name in plan.names),
    )
    entries = [run.entries[name] for name in plan.names]
    await start_tasks(equipment, run, claim, entries, deadline)
    await bring_up(equipment, run, plan.names)
    if dead := next((entry for entry in entries if entry.dead and not entry.finished), None):
        raise TaskDied(dead)


def _request(template: TaskTemplate, placed: Mapping[str, Assignment]) -> TaskRequest:
    """Return what a task asks for when it is started anew."""
    if template.restart is Restart.SAME_AGENT and template.name in placed:
        return replace(template.request, host=placed[template.name].host)
    return template.request


async def _end(equipment: Equipment, run: GraphRun, plan: RestartPlan, deadline: float) -> None:
    """Kill what is to be started anew, in the order of the KILL edges."""
    try:
        async with asyncio.timeout_at(deadline):
            await shutdown.take_down(equipment, run, "it is restarted", plan.names)
    except TimeoutError:
        left = [name for name in plan.names if not run.entries[name].dead]
        raise LaunchError(
            f"the restart ended before it began: {', '.join(left)} could not be killed in time"
        ) from None
    for name in plan.names:
        equipment.gates.forget(run.entries[name].task.task_id)
