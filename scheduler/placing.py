"""How graphs that wait are tried: on which agents, beside whom, and with how much effort."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from scheduler.begun import Begun
from scheduler.claims import Choice, beside_fixed
from scheduler.closures import Closures
from scheduler.figures import Figures
from scheduler.packing import (
    FIRST_STEPS,
    MORE_STEPS,
    Explanation,
    Idle,
    Occupant,
    Shortage,
    diagnose,
    pack,
    place,
)
from scheduler.placement import Placement, Running
from scheduler.places import Agents
from scheduler.quantities import Resources
from scheduler.reservations import State, Waiting, narrowed, seen_from
from scheduler.scene import Scene
from scheduler.topology import AgentSnapshot
from scheduler.turns import Place, Start, Turn, decide

QUICK: Final = 2000
"""Steps of the search for a reservation, and for whose end would make room."""


Effort: TypeAlias = tuple[int, Shortage | None]
"""How often a graph was searched for while nothing changed, and what was short then."""


@dataclass(frozen=True, slots=True)
class Placing:
    """Tries graphs, in a thread of its own, as things stand when it is made.

    Parameters
    ----------
    running
        Every task that holds something, with the id of its graph.
    away
        Ids of agents that take no tasks now, whatever ends there.
    closures
        Agents that take no tasks for a while.
    figures
        Is told of what is tried.
    """

    running: Sequence[tuple[str, Running]]
    away: Collection[str]
    closures: Closures
    figures: Figures

    def decided(self, scene: Scene, efforts: Mapping[int, Effort]) -> tuple[Turn, Begun | None]:
        """Decide what to do now.

        Parameters
        ----------
        efforts
            What each that waits is worth now, by serial.

        Returns
        -------
        turn, begun
            With all that is to be known of whoever starts, if somebody does.
        """
        state = scene.state()
        turn = decide(state, self._in_turn(state, efforts), self.quick, self.shut)
        if not isinstance(start := turn.act, Start):
            return turn, None
        choice = Choice.of(start.placement, start.agents, start.waiting.requests)
        return turn, Begun(start.waiting, choice)

    def explained(
        self,
        scene: Scene,
        waiting: Waiting,
        agents: Agents,
        shortage: Shortage,
        idle: Sequence[Idle],
    ) -> Explanation:
        """Say why a graph does not fit.

        Parameters
        ----------
        agents
            Those on which it was tried; none, if nothing was offered: then nothing is free.
        idle
            Those that cannot be had.
        """
        state = narrowed(scene.state(), waiting.queue.roles)
        movable = self._movable(state, waiting)
        if not agents:
            agents = [
                replace(a, free=Resources())
                for a in state.ceilings or ()
                if not self.shut(waiting, a)
            ]
            found = pack(agents, waiting.requests, iterations=1, capacity=state.ceilings)
            shortage = found if isinstance(found, Shortage) else shortage
        seen, around = seen_from(state, self.open(agents, waiting), movable)
        around = replace(around, idle=idle, running=self.beside(waiting))
        return diagnose(seen, waiting.requests, shortage, around)

    def _movable(self, state: State, waiting: Waiting) -> list[Occupant]:
        """Return those whose end can make room for somebody: that of the others is no remedy."""
        agents = (*(state.capacity or ()), *state.agents)
        closed = {agent.mesos_agent_id for agent in agents if self.shut(waiting, agent)}
        return [o for o in state.occupants if not o.stuck and not closed.issuperset(o.holds)]

    def _in_turn(self, state: State, efforts: Mapping[int, Effort]) -> Place:
        """Return how graphs are placed in this turn: with the effort that each is worth now."""

        def placing(waiting: Waiting, agents: Agents) -> Placement | Shortage | None:
            """Place one graph, beginning with what its last try had placed; tell the figures how that went."""
            level, before = efforts[waiting.serial]
            begun = time.monotonic()
            packing = partial(
                pack,
                seed=level,
                iterations=MORE_STEPS << level - 1 if level else FIRST_STEPS,
                capacity=narrowed(state, waiting.queue.roles).ceilings,
                start=None if before is None else before.partial,
                running=self.beside(waiting),
            )
            found = beside_fixed(
                self.open(agents, waiting), waiting.requests, waiting.fixed, packing
            )
            self.figures.packed(_outcome(found), time.monotonic() - begun)
            return found

        return placing

    def quick(self, waiting: Waiting, agents: Agents) -> Placement | None:
        """Place a graph with little effort."""
        return place(
            self.open(agents, waiting),
            waiting.requests,
            iterations=QUICK,
            running=self.beside(waiting),
        )

    def shut(self, waiting: Waiting, agent: AgentSnapshot) -> bool:
        """Tell whether a graph gets nothing on an agent, whatever ends there."""
        if agent.mesos_agent_id in self.away:
            return True
        return bool(self.closures.why_not(agent, waiting.stay, time.time()))

    def open(self, agents: Agents, waiting: Waiting) -> Agents:
        """Return the agents that a graph may use."""
        return self.closures.open(agents, waiting.stay, time.time())

    def beside(self, waiting: Waiting) -> list[Running]:
        """Return what a graph is placed beside: all that runs, its own tasks as its siblings."""
        kept = (Running(waiting.requests[n], a, sibling=True) for n, a in waiting.fixed.items())
        return [
            *kept,
            *(
                replace(task, sibling=True) if graph_id == waiting.graph_id else task
                for graph_id, task in self.running
            ),
        ]


def _outcome(found: Placement | Shortage | None) -> str:
    if isinstance(found, Placement):
        return "placed"
    return "never" if found is not None and found.never else "no_fit"
