"""A cluster that is started again: which agents and tasks it takes up, and in which order.

Everything is taken up before the master listens: a framework that subscribes again finds its tasks, and then
the updates that it has not acknowledged.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Mapping, Sequence

from scheduler.embedded.agent import Agent
from scheduler.embedded.agents import Agents
from scheduler.embedded.checkpoint import Checkpoint, SavedRun
from scheduler.embedded.executors import Container, Executor
from scheduler.embedded.model import AgentSpec, TaskState
from scheduler.embedded.pool import Pool
from scheduler.embedded.runs import Phase, Run
from scheduler.errors import ClusterError

logger = logging.getLogger(__name__)


class Recover(enum.StrEnum):
    """What becomes of tasks that an earlier run of the cluster has left: ``mesos-agent --recover``."""

    RECONNECT = "reconnect"
    """They are taken up, and live on."""
    CLEANUP = "cleanup"
    """They are killed."""


async def recover(
    checkpoint: Checkpoint,
    specs: Sequence[AgentSpec],
    agents: Agents,
    executor: Executor,
    how: Recover,
) -> None:
    """Take up, or end, what an earlier run of the cluster has left.

    Parameters
    ----------
    checkpoint
        What it has written down.
    specs
        The agents that there are now; tasks of others end.
    agents
        Where agents with an id of before are entered; they have not registered yet.
    executor
        What runs tasks.
    how
        Whether tasks live on.

    Raises
    ------
    ClusterError
        If an agent has less now than its tasks use.
    """
    ids = await asyncio.to_thread(checkpoint.agent_ids)
    if how is Recover.CLEANUP:
        await executor.recover(())
        await asyncio.to_thread(checkpoint.clear)
        saved: list[SavedRun] = []
    else:
        saved = await asyncio.to_thread(checkpoint.load)
    known = {ids[spec.hostname]: spec for spec in specs if spec.hostname in ids}
    entered = {agent_id: agents.enter(spec, agent_id) for agent_id, spec in known.items()}
    wanted = [entry for entry in saved if entry.agent_id in entered]
    _check_size(known, wanted)
    if how is Recover.CLEANUP:
        return
    launches = [
        entered[entry.agent_id].launch_of(entry.run)
        for entry in wanted
        if _phase(entry) is not Phase.ENDED
    ]
    containers = await executor.recover(launches)
    for entry in saved:
        if entry.agent_id in entered:
            _take_up(entered[entry.agent_id], entry, containers)
        else:
            await asyncio.to_thread(checkpoint.forget, entry.run)
    if wanted:
        logger.info("took up %d tasks of an earlier run", len(wanted))


def _check_size(specs: Mapping[str, AgentSpec], saved: Sequence[SavedRun]) -> None:
    """Refuse agents that have less than their tasks use."""
    for agent_id, spec in specs.items():
        runs = [e.run for e in saved if e.agent_id == agent_id and _phase(e) is not Phase.ENDED]
        used = Pool()
        for pool in (*(run.task.pool for run in runs), *_executor_pools(runs)):
            used += pool
        if not spec.pool.contains(used):
            raise ClusterError(
                f"agent {spec.hostname} has less now than the tasks use that an earlier run has left. "
                "Give it back what it had, or start with --recover=cleanup, which kills them"
            )


def _executor_pools(runs: Sequence[Run]) -> list[Pool]:
    groups = {id(run.group): run.group for run in runs if run.group is not None}
    return [group.pool for group in groups.values()]


def _phase(saved: SavedRun) -> Phase:
    """Return how far a run had come."""
    states = {update.state for update in saved.updates}
    if any(state.is_terminal for state in states):
        return Phase.ENDED
    if TaskState.RUNNING in states:
        return Phase.RUNNING
    return Phase.STARTING if states else Phase.LAUNCHING


def _take_up(agent: Agent, saved: SavedRun, containers: Mapping[str, Container]) -> None:
    run = saved.run
    run.phase = _phase(saved)
    run.since = next(
        (u.status["timestamp"] for u in saved.updates if u.state is TaskState.STARTING), 0.0
    )
    agent.restore(run, saved.updates, saved.acknowledged)
    if run.phase is not Phase.ENDED:
        agent.resume(run, containers.get(run.container_id))
