"""Tasks of the same graph that run already: what is left of tickets beside them, and where ties bind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.packing.arrays import ADMISSION, NO, NOWHERE, Cluster, Demand, Ints
from scheduler.packing.relations import Tickets, Ties
from scheduler.topology import AgentSnapshot


class Zones:
    """In which zones tasks run, in terms of the agents to pack on."""

    def __init__(
        self, agents: Sequence[AgentSnapshot], known: Sequence[AgentSnapshot], where: Sequence[str]
    ) -> None:
        """Look them up.

        Parameters
        ----------
        known
            Agents that can tell facts.
        where
            Mesos' id of the agent of each task.
        """
        self._agents = agents
        told = {agent.mesos_agent_id: agent for agent in known}
        self._tasks = [told.get(agent_id) for agent_id in where]

    def same(self, task: int, fact: str) -> list[bool]:
        """Tell for each agent to pack on whether it is in the task's zone."""
        agent = self._tasks[task]
        value = None if agent is None else agent.fact(fact)
        return [value is not None and other.fact(fact) == value for other in self._agents]


def take_tickets(
    cluster: Cluster, free: Ints, tickets: Tickets, where: Zones, first_ticket: int, n_tasks: int
) -> None:
    """Take out of `free` what running tasks have of the tickets of their zones.

    Parameters
    ----------
    first_ticket
        Column of the first ticket in `Cluster.volume_slot`.
    n_tasks
        Tasks to be placed: those with higher numbers run.
    """
    for number, shares in tickets.shares.items():
        if number < n_tasks:
            continue
        for ticket, amount in shares:
            slots = cluster.volume_slot[:, first_ticket + ticket]
            here = np.array(where.same(number - n_tasks, tickets.what[ticket]), np.bool_)
            for slot in np.unique(slots[here & (slots != NOWHERE)]):
                free[slot] = max(0, free[slot] - amount)


def rule_out(cluster: Cluster, demand: Demand, ties: Ties, where: Zones, n_tasks: int) -> None:
    """Admit tasks that must be in one zone with a running one nowhere else."""
    for tie, fact in enumerate(ties.facts):
        members = ties.members(tie)
        anew = [task for task in members if task < n_tasks]
        rows = np.unique(demand.task[anew, ADMISSION])
        for task in members:
            if task >= n_tasks:
                elsewhere = ~np.array(where.same(task - n_tasks, fact), np.bool_)
                cluster.admits[np.ix_(rows, elsewhere)] = NO
