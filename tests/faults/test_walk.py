"""A walk through the life of a whole graph: launched, restarted in part, stopped, with any faults in between.

Time is virtual, so hours pass in a second and every walk can be repeated. What must hold is checked when the
faults are over: what runs is what is known, nothing is booked that is not used, every request was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from scheduler.errors import SchedulerError
from scheduler.graph import PhysicalGraph, Restart
from scheduler.journal import GraphPhase, MemoryJournal
from scheduler.service import Scheduler
from scheduler.subscription import Timing
from scheduler.task import TaskState
from scheduler.views import LinkState
from tests.faults.virtual import Program, World, in_virtual_time, small_agent, until
from tests.scheduler.programs import needs, physical, server, shell

LOG = Path("unused")
LAUNCH_SECONDS = 120.0
REPEATED = 1300.0
"""Seconds after which agents have repeated all that was lost: they wait longer each time, at most 600 s."""
HOSTS = ("agent0", "agent1", "agent2")


def graph(number: int) -> PhysicalGraph:
    """Three that need each other, each of which may be restarted, and one by itself."""
    tasks = (
        server("a", LOG, restart=Restart.IN_PLACE),
        server("b", LOG, needs="a", restart=Restart.ANYWHERE),
        server("c", LOG, needs="b", restart=Restart.IN_PLACE, critical=False),
        shell("d", "x", restart=Restart.ANYWHERE),
    )
    return physical(f"g{number}", *tasks, edges=(*needs("b", "a"), *needs("c", "b")))


class Walk:
    """One walk: the world, the scheduler of the moment, and the requests that were made."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self.world, self.scheduler = world, scheduler
        self.requests: list[asyncio.Task[None]] = []
        self.launched = 0
        self.registry: Any = None
        self.losses = 0

    def ask(self, request: Awaitable[object]) -> None:
        """Make a request whose answer is looked at later."""

        async def answered() -> None:
            with contextlib.suppress(SchedulerError):
                await request

        self.requests.append(asyncio.create_task(answered()))

    async def step(self, what: str, number: int) -> None:
        """Let one thing happen; nothing, where it is impossible now."""
        world, scheduler, host = self.world, self.scheduler, HOSTS[number % 3]
        graphs = scheduler.graphs()
        match what:
            case "launch":
                self.ask(scheduler.launch(graph(self.launched), timeout=LAUNCH_SECONDS))
                self.launched += 1
            case "stop" if graphs:
                self.ask(scheduler.stop(graphs[number % len(graphs)]))
            case "restart" if graphs:
                graph_id = graphs[number % len(graphs)]
                self.ask(scheduler.restart_task(graph_id, "abcd"[number % 4], timeout=60))
            case "exit" if world.running():
                running = [world.running()[key] for key in sorted(world.running())]
                running[number % len(running)].exit(number % 3)
            case "slow":
                world.programs["abcd"[number % 4]] = Program(start=number, up=number, end=number)
            case "refused":
                world.programs["abcd"[number % 4]] = Program(refused="no image")
            case "well":
                world.programs.clear()
            case "freeze":
                world.agents.freeze(host)
            case "thaw":
                world.agents.thaw(host)
            case "reboot":
                world.agents.reboot(host)
                world.agents.start(small_agent(HOSTS.index(host)))
            case "cut":
                world.cut()
            case "lose master" if world.master_up:
                self.registry = await world.lose_master()
            case "new master" if not world.master_up and self.losses < 8:
                self.losses += 1
                await world.start_master(registry=self.registry if number % 2 else None)
            case "lose calls":
                self.lose(("lost", "dropped", "unanswered", "refused")[number % 4])
            case "lose updates":
                world.filter = lambda event: int(
                    "update" not in event or crc32(str(event).encode()) % 3 > 0
                )

    def lose(self, fate: str) -> None:
        """Lose every third call that asks for something."""
        count = 0

        def intercept(call: Mapping[str, Any]) -> str | None:
            nonlocal count
            count += 1
            return fate if count % 3 == 0 else None

        self.world.intercept = intercept

    async def heal(self) -> None:
        """Let all faults be over."""
        world = self.world
        world.intercept, world.filter = (lambda _: None), (lambda _: 1)
        world.programs.clear()
        for container in world.running().values():
            container.program = Program()
        if not world.master_up:
            await world.start_master(registry=self.registry)
        for host in HOSTS:
            world.agents.thaw(host)
        await until(lambda: self.scheduler.link().state is LinkState.CONNECTED)

    async def stop_all(self) -> None:
        """Stop every graph that there was, whatever has become of it."""
        async with asyncio.timeout(REPEATED):
            for number in range(self.launched):
                await self.scheduler.stop(f"g{number}")
        await asyncio.sleep(120)

    def check(self) -> None:
        """What is known and what runs are one."""
        views = [
            view
            for graph_id in self.scheduler.graphs()
            for view in self.scheduler.tasks(graph_id).values()
        ]
        alive = {view.task_id for view in views if view.state is not TaskState.DEAD}
        assert set(self.world.running()) == alive
        assert all(not view.doubtful for view in views)
        held = [view for view in views if view.state is TaskState.DEAD and view.resources]
        assert not held, "the dead hold nothing"


STEPS = (
    "launch",
    "launch",
    "stop",
    "restart",
    "restart",
    "exit",
    "slow",
    "refused",
    "well",
    "freeze",
    "thaw",
    "reboot",
    "cut",
    "lose master",
    "new master",
    "lose calls",
    "lose updates",
)
AS_FOUND = (Phase.explicit, Phase.reuse, Phase.generate)
"""A walk that fails is told as it was found: to make it shorter would take minutes."""
later = st.tuples(st.sampled_from(STEPS), st.integers(0, 11), st.integers(0, 120))
steps = st.lists(later, min_size=2, max_size=12).map(lambda walk: [("launch", 0, 10), *walk])


@settings(max_examples=15, deadline=None, phases=AS_FOUND)
@given(steps)
def test_whatever_happens_to_a_graph_all_is_true_and_free_in_the_end(
    walk: list[tuple[str, int, int]],
) -> None:
    async def story() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with World(Path(folder)) as world, world.scheduler() as scheduler:
                walker = Walk(world, scheduler)
                for what, number, pause in walk:
                    await walker.step(what, number)
                    await asyncio.sleep(pause)
                await walker.heal()
                if walker.requests:
                    _, open_ = await asyncio.wait(walker.requests, timeout=600)
                    assert not open_, "every request was answered"
                    await asyncio.gather(*walker.requests)
                await asyncio.sleep(REPEATED)
                walker.check()
                await walker.stop_all()
                assert world.running() == {}
                assert scheduler.graphs() == ()
                assert all(agent.free == agent.total for agent in scheduler.agents())

    in_virtual_time(story, debug=False)()


@settings(max_examples=10, deadline=None, phases=AS_FOUND)
@given(steps, st.integers(0, 12), st.booleans())
def test_a_successor_in_the_middle_of_it_all_makes_it_true_as_well(
    walk: list[tuple[str, int, int]], when: int, resumed: bool
) -> None:
    async def story() -> None:
        journal = MemoryJournal()
        with tempfile.TemporaryDirectory() as folder:
            async with World(Path(folder)) as world:
                async with world.scheduler(journal) as first:
                    walker = Walk(world, first)
                    for what, number, pause in walk[:when]:
                        await walker.step(what, number)
                        await asyncio.sleep(pause)
                    await first.close(teardown=False)
                    for request in walker.requests:
                        request.cancel()
                    await asyncio.gather(*walker.requests, return_exceptions=True)
                timing = Timing(adoption=30.0)
                async with world.scheduler(journal, timing=timing) as second:
                    walker, before = Walk(world, second), walker
                    walker.launched, walker.losses = before.launched, before.losses
                    walker.registry = before.registry
                    for graph_id in second.graphs() if resumed else ():
                        if second.phase(graph_id) is GraphPhase.LAUNCHING:
                            walker.ask(second.resume(graph_id, timeout=LAUNCH_SECONDS))
                    for what, number, pause in walk[when:]:
                        await walker.step(what, number)
                        await asyncio.sleep(pause)
                    await walker.heal()
                    if walker.requests:
                        _, open_ = await asyncio.wait(walker.requests, timeout=600)
                        assert not open_, "every request was answered"
                    await asyncio.sleep(REPEATED)
                    walker.check()
                    await walker.stop_all()
                    assert world.running() == {}
        state = await journal.load()
        assert (state.graphs, state.tasks, state.placements, state.phases) == ({}, {}, {}, {})

    in_virtual_time(story, debug=False)()


@in_virtual_time
async def test_somebody_outside_ends_a_task_while_its_graph_comes_up(tmp_path: Path) -> None:
    """The graph does not count as up with a task that is about to end."""
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        world.programs["d"] = Program(end=5.0)
        world.programs["a"] = Program(up=5.0)
        launch = asyncio.create_task(scheduler.launch(graph(0), timeout=60))
        await until(lambda: len(world.running()) == 4)
        host = world.program("d").agent
        world.agents[host].kill(scheduler.framework_id or "", "g0.d.0")
        with pytest.raises(SchedulerError, match="task d on host"):
            await launch
        assert world.running() == {}
