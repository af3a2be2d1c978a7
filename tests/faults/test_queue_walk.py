"""A walk through the life of the queues: observations and batches that make room, hosts that are drained or go.

When the faults are over, nobody may have starved: every request is answered, what still waits finishes, and
whoever comes then gets the whole cluster at once. :mod:`tests.faults.test_walk` walks through single graphs.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.embedded import AgentSpec
from scheduler.embedded.operations import UnknownAgentError
from scheduler.embedded.pool import UNRESERVED
from scheduler.errors import JournalError, NeverFitsError, SchedulerError
from scheduler.graph import Edge, EdgeKind, PhysicalGraph, TaskTemplate
from scheduler.journal import MemoryJournal, TaskRecord
from scheduler.policy import Limits, Queue
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.service import Scheduler
from scheduler.views import LinkState
from tests.faults.test_maintenance import close
from tests.faults.test_walk import AS_FOUND, HOSTS
from tests.faults.virtual import NEVER, Program, World, in_virtual_time, small_agent, until
from tests.scheduler.programs import physical, shell


@dataclass(frozen=True)
class Setting:
    """What a walk goes through."""

    roles: tuple[str, ...]
    queues: tuple[Queue, ...]
    reserved: str = UNRESERVED
    """The role that all of the third agent is reserved for."""
    shared: bool = False
    """Whether the others have only one CPU that is anybody's, and one for each role."""

    def agent(self, host: str) -> AgentSpec:
        number = HOSTS.index(host)
        if host == HOSTS[2]:
            return replace(small_agent(number), default_role=self.reserved)
        if not self.shared:
            return small_agent(number)
        one = Resources({"cpus": 1000, "mem": 100_000})
        return replace(small_agent(number, cpus=1), reserved=dict.fromkeys(self.roles, one))

    @property
    def observing(self) -> tuple[str, ...]:
        """The queues of observations, in turn."""
        return tuple(queue.name for queue in self.queues if queue.preempts)


PREEMPTING = (
    Queue(name="realtime", priority=100, preempts=True),
    Queue(name="batch", preemptible=True),
)
LIMITED = (
    PREEMPTING[0],
    Queue(name="engineering", priority=50, preempts=True, roles=("a",)),
    Queue(name="batch", preemptible=True, roles=("b",), limits=Limits(tasks=3000, cpus=3000)),
)
SETTINGS = (
    Setting(("sdp",), PREEMPTING),
    Setting(("a", "b"), PREEMPTING),
    Setting(("a", "b"), LIMITED, reserved="a"),
    Setting(("a", "b"), PREEMPTING, shared=True),
)
ONE, TWO = (TaskRequest.of(cpus=cpus, mem_mib=16) for cpus in (1, 2))
RUNS = 40.0
"""Seconds that a batch node runs."""
LONG = 20_000.0
"""Seconds for which somebody waits who shall not be late."""
SHORT = 45.0


class Store(MemoryJournal):
    """A journal that can be away."""

    away = False

    async def record_task(self, record: TaskRecord) -> None:
        if self.away:
            raise JournalError("the store is away")
        await super().record_task(record)

    async def record_graph(self, graph: PhysicalGraph) -> None:
        if self.away:
            raise JournalError("the store is away")
        await super().record_graph(graph)


def nodes(number: int) -> tuple[TaskTemplate, ...]:
    """Return the nodes of a batch graph: narrow and wide ones, of which all may be late."""
    wide = (ONE, TWO)
    return tuple(
        shell(f"n{n}", "x", request=wide[(number + n) % 2], max_run_time=2 * RUNS)
        for n in range(1 + number % 4)
    )


class Walk:
    """One walk: the world, the scheduler, and the requests that were made."""

    def __init__(self, world: World, scheduler: Scheduler, store: Store, setting: Setting) -> None:
        self.world, self.scheduler, self.store = world, scheduler, store
        self.setting = setting
        self.requests: list[asyncio.Task[object]] = []
        self.made = 0
        self.patient: list[asyncio.Task[object]] = []
        """Requests that have time enough."""

    def ask(self, request: Awaitable[object], *, patient: bool = False) -> None:
        """Make a request whose answer is looked at later."""

        async def answered() -> object:
            try:
                return await request
            except SchedulerError as exc:
                return exc

        task = asyncio.create_task(answered())
        self.requests.append(task)
        if patient:
            self.patient.append(task)

    def batch(self, number: int) -> None:
        timeout = SHORT if number % 5 == 0 else LONG
        templates = nodes(number)
        edges = [Edge("n1", "n0", EdgeKind.FINISHED)] if len(templates) > 2 else []
        graph = physical(f"b{self.made}", *templates, edges=tuple(edges))
        running = self.scheduler.run_batch(graph, attempts=100, timeout=timeout, priority=number)
        self.ask(running, patient=timeout == LONG)
        self.made += 1

    def observe(self, number: int) -> None:
        timeout = SHORT if number % 2 else LONG
        tasks = (shell(f"t{n}", "x", request=TWO) for n in range(1 + number % 3))
        queues = self.setting.observing
        queue = queues[number % len(queues)]
        graph = physical(f"g{self.made}", *tasks)
        self.ask(self.scheduler.launch(graph, timeout=timeout, queue=queue))
        self.made += 1

    async def step(self, what: str, number: int) -> None:
        """Let one thing happen; nothing, where it is impossible now."""
        world, scheduler, host = self.world, self.scheduler, HOSTS[number % 3]
        graphs = scheduler.graphs()
        match what:
            case "batch":
                self.batch(number)
            case "observe":
                self.observe(number)
            case "stop" if graphs:
                force = number % 4 == 0
                self.ask(scheduler.stop(graphs[number % len(graphs)], force=force))
            case "cancel" if open_ := [r for r in self.requests if not r.done()]:
                open_[number % len(open_)].cancel()
            case "stubborn":
                world.programs[f"n{number % 3}"] = Program(runs=RUNS, end=NEVER)
            case "fails":
                world.programs[f"n{number % 3}"] = Program(runs=3.0, status=1)
            case "well":
                self.well()
            case "drain":
                await scheduler.drain(host, "new fans")
            case "undrain":
                await scheduler.undrain(host)
            case "maintenance":
                close(world, host, in_seconds=-10.0)
            case "rescind":
                desk = world.master.desk
                for offer in list(desk.offers.values())[: 1 + number % 3]:
                    desk.withdraw([offer], rescind=True)
            case "cut":
                world.cut()
            case "store away":
                self.store.away = True
            case "store back":
                self.store.away = False
            case "lose calls":
                self.lose(("lost", "dropped", "unanswered", "refused")[number % 4])
            case _:
                with contextlib.suppress(UnknownAgentError, KeyError):
                    self.agent(what, host)

    def check(self) -> None:
        """No queue holds more than it may, or what is reserved for roles that are not its own."""
        batch = next(queue for queue in self.setting.queues if queue.name == "batch")
        views = [
            view
            for graph_id in self.scheduler.graphs()
            if graph_id.startswith("b")
            for view in self.scheduler.tasks(graph_id).values()
            if view.resources
        ]
        if batch.limits is not None:
            assert sum(view.resources.scalars["cpus"] for view in views) <= 3000
        if batch.roles:
            assert HOSTS[2] not in {view.host for view in views}

    def agent(self, what: str, host: str) -> None:
        """Let something happen to an agent."""
        world, operations = self.world, self.world.operations
        agent_id = world.agents[host].info.id
        match what:
            case "deactivate":
                operations.deactivate(agent_id)
            case "mesos drains":
                operations.drain(agent_id, None, mark_gone=False)
            case "reactivate":
                operations.reactivate(agent_id)
            case "freeze":
                world.agents.freeze(host)
            case "thaw":
                world.agents.thaw(host)
            case "reboot":
                world.agents.reboot(host)
                world.agents.start(self.setting.agent(host))

    def lose(self, fate: str) -> None:
        """Lose every third call."""
        count = 0

        def intercept(call: Mapping[str, Any]) -> str | None:
            nonlocal count
            count += 1
            return fate if count % 3 == 0 else None

        self.world.intercept = intercept

    def well(self) -> None:
        """Let programs be as they should be."""
        self.world.programs = {f"n{n}": Program(runs=RUNS) for n in range(4)}

    async def heal(self) -> None:
        """Let all faults be over, and all observations."""
        world, scheduler = self.world, self.scheduler
        world.intercept = lambda _: None
        self.store.away = False
        self.well()
        for container in world.running().values():
            if container.program.end == NEVER:
                container.exit(1)
        close(world)
        for host in HOSTS:
            await scheduler.undrain(host)
            world.agents.thaw(host)
        await until(lambda: scheduler.link().state is LinkState.CONNECTED)
        await asyncio.sleep(60)
        self.reactivate()

    def reactivate(self) -> None:
        """Let Mesos offer all agents again, but for those that it still empties."""
        for host in HOSTS:
            with contextlib.suppress(UnknownAgentError):
                self.world.operations.reactivate(self.world.agents[host].info.id)


STEPS = (
    *(
        "batch",
        "batch",
        "batch",
        "observe",
        "observe",
        "stop",
        "cancel",
        "stubborn",
        "fails",
        "well",
    ),
    *(
        "drain",
        "undrain",
        "maintenance",
        "rescind",
        "cut",
        "store away",
        "store back",
        "lose calls",
    ),
    *("deactivate", "mesos drains", "reactivate", "freeze", "thaw", "reboot"),
)
later = st.tuples(st.sampled_from(STEPS), st.integers(0, 11), st.sampled_from((0, 1, 5, 30, 120)))
walks = st.lists(later, min_size=3, max_size=14).map(
    lambda walk: [("batch", 3, 0), ("batch", 6, 5), *walk]
)


@settings(max_examples=8, deadline=None, phases=AS_FOUND)
@given(walks, st.sampled_from(SETTINGS))
def test_nobody_starves_and_nothing_is_kept_for_nobody(
    walk: list[tuple[str, int, int]], setting: Setting
) -> None:
    async def story() -> None:
        store = Store()
        with tempfile.TemporaryDirectory() as folder:
            async with (
                World(Path(folder), map(setting.agent, HOSTS)) as world,
                world.scheduler(store, queues=setting.queues, roles=setting.roles) as scheduler,
            ):
                walker = Walk(world, scheduler, store, setting)
                walker.well()
                for what, number, pause in walk:
                    await walker.step(what, number)
                    await asyncio.sleep(pause)
                    walker.check()
                await walker.heal()
                await settled(walker)
                walker.reactivate()
                await whole_cluster(scheduler)
        state = await store.load()
        assert (state.graphs, state.tasks, state.placements, state.phases) == ({}, {}, {}, {})

    in_virtual_time(story, debug=False)()


async def settled(walker: Walk) -> None:
    """Stop what observes; wait for what computes."""
    scheduler = walker.scheduler
    async with asyncio.timeout(2000):
        for number in range(walker.made):
            await scheduler.stop(f"g{number}")  # also what is dead, and is kept to be looked at
    walker.reactivate()
    if walker.requests:
        _, open_ = await asyncio.wait(walker.requests, timeout=6000)
        assert not open_, f"starved: {[scheduler.explain(g) for g in scheduler.graphs()]}"
    for request in walker.requests:
        assert request.cancelled() or not isinstance(request.result(), NeverFitsError)
    await until(lambda: not scheduler.graphs(), 2000)
    assert walker.world.running() == {}


async def whole_cluster(scheduler: Scheduler) -> None:
    """Nothing is kept back: the whole cluster can be had at once."""
    graph = physical("last", *(shell(f"t{n}", "x", request=TWO) for n in range(len(HOSTS))))
    await scheduler.launch(graph, timeout=60)
    await scheduler.stop("last")
    assert scheduler.offers_held == 0
    await until(lambda: all(agent.free == agent.total for agent in scheduler.agents()), 60)
