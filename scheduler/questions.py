"""What can be asked of the scheduler: nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from scheduler import sandbox_log
from scheduler.agents import Agents
from scheduler.closures import stay
from scheduler.errors import GraphError
from scheduler.graph import PhysicalGraph
from scheduler.journal import GraphPhase
from scheduler.listeners import Listeners
from scheduler.occupancy import Occupancy
from scheduler.packing import Circumstances, Explanation, Idle, pack_or_explain
from scheduler.placement import Placement, Running
from scheduler.places import Agents as Places
from scheduler.places import ceilings, reserved_for_others, ways
from scheduler.policy import Queue
from scheduler.queues import LaunchQueue
from scheduler.requests import TaskRequest
from scheduler.reservations import State, narrowed, seen_from
from scheduler.runs import Runs, TaskEntry
from scheduler.scene import Scene
from scheduler.subscription import Subscription
from scheduler.task import TaskState
from scheduler.topology import AgentSnapshot
from scheduler.views import AgentView, Change, LinkChanged, LinkState, TaskView

_AT_REST: Final = (TaskState.READY, TaskState.DEAD)


class Questions:
    """The half of :class:`scheduler.service.Scheduler` that only tells."""

    def __init__(
        self,
        *,
        runs: Runs,
        queue: LaunchQueue,
        agents: Agents,
        occupancy: Occupancy,
        queues: Iterable[Queue],
        listeners: Listeners,
    ) -> None:
        self._runs = runs
        self._queue = queue
        self._agents = agents
        self._occupancy = occupancy
        self._queues = {queue.name: queue for queue in queues}
        self._listeners = listeners
        self._subscription: Subscription | None = None

    def queues(self) -> tuple[Queue, ...]:
        """Return the queues in which graphs can wait."""
        return tuple(self._queues.values())

    def _queue_named(self, name: str) -> Queue:
        if name not in self._queues:
            raise GraphError(f"there is no queue {name!r}, only {', '.join(self._queues)}")
        return self._queues[name]

    def waiting(self) -> Mapping[str, Sequence[float]]:
        """Return for how long the graphs in each queue that is not empty wait, seconds."""
        return self._queue.waiting()

    @property
    def offers_held(self) -> int:
        """How many offers are held at the moment."""
        return len(self._queue.pool)

    def graphs(self) -> tuple[str, ...]:
        """Return the ids of the graphs that are not dead."""
        return tuple(run.graph.graph_id for run in self._runs if not run.dead)

    def phase(self, graph_id: str) -> GraphPhase | None:
        """Return what is being done with a graph; None, if it is not known."""
        run = self._runs.get(graph_id)
        return None if run is None else run.phase

    def tasks(self, graph_id: str) -> Mapping[str, TaskView]:
        """Return the tasks of a graph by name; none, if it is not known."""
        views = self._runs.views(graph_id)
        ids = {view.agent_id for view in views.values() if view.agent_id}
        troubles = {i: trouble for i in ids if (trouble := self._agents.trouble(i))}
        if not troubles:
            return views
        return {
            name: replace(view, agent_trouble=troubles.get(view.agent_id, ""))
            for name, view in views.items()
        }

    def task(self, graph_id: str, name: str) -> TaskView | None:
        """Return one task of a graph; None, if it is not known."""
        run = self._runs.get(graph_id)
        entry = run.entries.get(name) if run is not None else None
        if entry is None:
            return None
        view = entry.view()
        return replace(view, agent_trouble=self._agents.trouble(view.agent_id))

    async def task_log(self, task_id: str) -> tuple[str, ...]:
        """Return the last lines that a task has written, from its sandbox; none where they cannot be had."""
        entry = self._runs.entry(task_id)
        link = self._subscription
        if entry is None or link is None or link.framework_id is None:
            return ()
        return await sandbox_log.last_lines(
            entry.agent_url, link.framework_id, task_id, tls=link.tls
        )

    def agents(self) -> tuple[AgentView, ...]:
        """Return all agents, by host, as the master last told."""
        return self._agents.views()

    def awaited_hosts(self) -> frozenset[str] | None:
        """Return the hosts of agents that a new master knows of and that have not come to it yet.

        None while it has not told of any: then :meth:`agents` are those of its predecessor.
        """
        return self._agents.awaited()

    def link(self) -> LinkChanged:
        """Return the state of the link to the master."""
        if self._subscription is None:
            return LinkChanged(LinkState.DISCONNECTED, "", "not started")
        return self._subscription.link

    @property
    def framework_id(self) -> str | None:
        """The id under which Mesos knows us, once it does."""
        return self._subscription.framework_id if self._subscription is not None else None

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back on every change, on the event loop; it must not block.

        The returned function ends it. An exception in a callback is logged, and harms nobody else.
        """
        return self._listeners.add(callback)

    async def plan(self, graph: PhysicalGraph, *, queue: str = "") -> Placement | Explanation:
        """Say where a graph would go now, or why it would not and what would help, without launching anything.

        It looks at what no task uses on active agents, as the master last told. What of ours would have to end
        for it is among the remedies, and in :attr:`~scheduler.packing.Explanation.displaces`.

        Parameters
        ----------
        queue
            In which it would wait; in one that is limited to no roles, if none is named.

        Raises
        ------
        GraphError
            If there is no such queue.
        """
        limit = self._queue_named(queue).roles if queue else ()
        roles = limit or self._agents.roles
        requests = {task.name: task.request for task in graph.logical.tasks}
        if self._subscription is not None:
            await self._subscription.look_at_agents()
        stays = stay(graph.logical.tasks)
        agents = self._agents.free(stays, roles)
        totals = self._agents.totals()
        state = State(
            waiting=(),
            agents=[],
            capacity=None if totals is None else totals[1],
            fenced=self._agents.fenced(),
            roles=self._agents.roles,
        )
        idle = self._agents.idle({agent.agent_id for agent in agents}, stays)
        idle += reserved_for_others(state.capacity or agents, state.fenced, limit)
        running = [task for _, task in self._occupancy.running()]
        return await asyncio.to_thread(
            _planned,
            requests,
            ways(agents, self._agents.unused(), roles),
            Scene(state, self._occupancy.holders(), ()),
            limit,
            idle,
            running,
        )

    async def homeless(self, graph: PhysicalGraph) -> Mapping[str, Explanation] | None:
        """Say which tasks of a batch graph no agent could run, even if nothing else ran, and why.

        Returns
        -------
        dict, optional
            By name; tasks that ask for the same have the same explanation. None while the agents are not known
            for certain.
        """
        if self._subscription is not None:
            await self._subscription.look_at_agents()
        totals = self._agents.totals()
        if totals is None:
            return None
        every = ceilings(totals[1], self._agents.fenced(), self._agents.roles)
        return await asyncio.to_thread(_homeless, every, graph)

    def explanation(self, graph_id: str) -> Explanation | None:
        """Say as data why a graph waits for its place; None when it does not, or it is not known yet."""
        return self._queue.explanation(graph_id)

    def explain(self, graph_id: str) -> str:
        """Say what a graph waits for, for people; empty when it waits for nothing."""
        run = self._runs.get(graph_id)
        if run is None:
            return ""
        if self._subscription is not None and (why := self._subscription.absence):
            return why
        why = self._queue.explain(graph_id)
        waiting = [e for e in run.entries.values() if e.life.state not in _AT_REST]
        doing = ", ".join(_doing(e) for e in waiting[:20] if e.held or not why)
        return "; ".join(filter(None, (why, doing)))


def _planned(
    requests: Mapping[str, TaskRequest],
    alternatives: Sequence[Places],
    scene: Scene,
    limit: Sequence[str],
    idle: Sequence[Idle],
    running: Sequence[Running],
) -> Placement | Explanation:
    """Place tasks in one of several ways of giving what agents have to roles; else explain the first."""
    state = narrowed(scene.state(), limit)
    answers: list[Placement | Explanation] = []
    for way in alternatives:
        agents, around = seen_from(state, way, state.occupants)
        around = replace(around, idle=idle, running=running)
        answers.append(pack_or_explain(agents, requests, around))
        if isinstance(answers[-1], Placement):
            return answers[-1]
    return answers[0]


def _homeless(agents: Sequence[AgentSnapshot], graph: PhysicalGraph) -> Mapping[str, Explanation]:
    answers: dict[TaskRequest, Placement | Explanation] = {}
    found = {}
    for task in graph.logical.tasks:
        if task.request not in answers:
            alone = {task.name: task.request}
            around = Circumstances(capacity=agents)
            answers[task.request] = pack_or_explain(agents, alone, around)
        if isinstance(answer := answers[task.request], Explanation):
            found[task.name] = answer
    return found


def _doing(entry: TaskEntry) -> str:
    """Say what a task does that is not where it should be."""
    if entry.held:
        return f"{entry.name} waits: {entry.held}"
    return f"{entry.name} is {entry.life.state.value}" + (
        " (in doubt)" if entry.life.doubt_since else ""
    )
