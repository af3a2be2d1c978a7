"""A controller dies, in any phase of a graph; its successor resumes, goes on, or rolls back. Rows 18 and 25."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from scheduler.errors import GraphError
from scheduler.graph import PhysicalGraph, Restart
from scheduler.journal import GraphPhase, MemoryJournal, TaskRecord
from scheduler.subscription import Timing
from scheduler.task import TaskState
from tests.faults.virtual import Program, World, in_virtual_time, until
from tests.scheduler.programs import needs, physical, server, shell

LOG = Path("unused")
PATIENT = {"timing": Timing(adoption=60.0)}


def chain() -> PhysicalGraph:
    """Three that need each other, and one that needs nobody."""
    tasks = (server("a", LOG), server("b", LOG, needs="a"), server("c", LOG, needs="b"))
    return physical("g", *tasks, shell("d", "x"), edges=(*needs("b", "a"), *needs("c", "b")))


async def late(name: str) -> dict[str, str]:
    return {"for": name}


class Last(MemoryJournal):
    """A journal whose controller hangs for good once it has recorded a task in a state."""

    def __init__(self, name: str, state: TaskState) -> None:
        super().__init__()
        self._wanted: tuple[str, TaskState] | None = (name, state)
        self.reached = asyncio.Event()

    async def record_task(self, record: TaskRecord) -> None:
        await super().record_task(record)
        if (record.name, record.state) == self._wanted:
            self.reached.set()
            await asyncio.sleep(1e9)

    @property
    def graphs(self) -> Mapping[str, PhysicalGraph]:
        """What is recorded."""
        return self._state.graphs

    def go_on(self) -> None:
        """Serve the successor."""
        self._wanted = None


async def dies_at(world: World, journal: Last) -> None:
    """Launch the chain, and end the controller at that moment, without a word to anybody."""
    async with world.scheduler(journal) as scheduler, asyncio.timeout(60):
        launch = asyncio.create_task(scheduler.launch(chain(), timeout=60, late_values=late))
        await journal.reached.wait()
        await scheduler.close(teardown=False)
        launch.cancel()
        await asyncio.gather(launch, return_exceptions=True)
    journal.go_on()


MOMENTS = {
    "placed": ("a", TaskState.PLACED),
    "launching": ("c", TaskState.LAUNCHING),
    "first stage starting": ("a", TaskState.STARTING),
    "waiting": ("b", TaskState.WAITING),
    "between go-aheads": ("b", TaskState.STARTING),
    "last stage starting": ("c", TaskState.STARTING),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("resumed", [True, False])
def test_a_launch_is_resumed_where_it_was_or_rolled_back(
    tmp_path: Path, moment: str, resumed: bool
) -> None:
    @in_virtual_time
    async def story() -> None:
        journal = Last(*MOMENTS[moment])
        async with World(tmp_path) as world:
            await dies_at(world, journal)
            async with world.scheduler(journal, **PATIENT) as scheduler:
                assert scheduler.phase("g") is GraphPhase.LAUNCHING
                if not resumed:
                    await until(lambda: scheduler.graphs() == () and not journal.graphs)
                    assert world.running() == {}
                    return
                await scheduler.resume("g", timeout=60, late_values=late)
                tasks = scheduler.tasks("g")
                assert {view.state for view in tasks.values()} == {TaskState.READY}
                assert set(world.running()) == {view.task_id for view in tasks.values()}
                assert len(world.running()) == 4, "no copies"
                for name in "bc":
                    assert world.program(name).answers == [{"for": name}]
                if moment in ("waiting", "between go-aheads", "last stage starting"):
                    assert {v.task_id for v in tasks.values()} == {f"g.{n}.0" for n in "abcd"}
                assert (await journal.load()).phases == {"g": GraphPhase.UP}
                await scheduler.stop("g")
                assert world.running() == {}

    story()


@in_virtual_time
async def test_a_launch_that_waited_in_the_queue_goes_on_waiting(tmp_path: Path) -> None:
    journal = MemoryJournal()
    big = shell("t", "x", request=server("x", LOG).request)
    async with World(tmp_path, agents=1) as world:
        world.disconnect("agent0")
        async with world.scheduler(journal) as first:
            launch = asyncio.create_task(first.launch(physical("g", big), timeout=600))
            await asyncio.sleep(5)
            await first.close(teardown=False)
            launch.cancel()
            await asyncio.gather(launch, return_exceptions=True)
        async with world.scheduler(journal, **PATIENT) as second:
            launch = asyncio.create_task(second.resume("g", timeout=600))
            await asyncio.sleep(30)
            assert "agent0 (disconnected)" in second.explain("g")
            world.reconnect("agent0")
            await launch
            # Under another id: had the journal lost its last writes, the first could run already.
            assert second.tasks("g")["t"].task_id == "g.t.1"


@in_virtual_time
async def test_a_launch_is_resumed_once_and_in_time_only(tmp_path: Path) -> None:
    journal = Last(*MOMENTS["waiting"])
    async with World(tmp_path) as world:
        await dies_at(world, journal)
        async with world.scheduler(journal, **PATIENT) as scheduler:
            first = asyncio.create_task(scheduler.resume("g", timeout=60))
            await asyncio.sleep(0.01)
            with pytest.raises(GraphError, match="somebody has resumed it"):
                await scheduler.resume("g", timeout=60)
            await first
            with pytest.raises(GraphError, match="no graph h"):
                await scheduler.resume("h", timeout=60)
            await asyncio.sleep(120)
            assert scheduler.phase("g") is GraphPhase.UP, "it is not rolled back later"
    async with World(tmp_path / "again") as world:
        journal = Last(*MOMENTS["waiting"])
        await dies_at(world, journal)
        async with world.scheduler(journal, **PATIENT) as scheduler:
            await asyncio.sleep(60.05)
            with pytest.raises(GraphError, match="did not survive the controller"):
                await scheduler.resume("g", timeout=60)


@in_virtual_time
async def test_a_graph_that_was_up_is_watched_and_its_late_questions_answered_alike(
    tmp_path: Path,
) -> None:
    """A wrapper whose answer was lost asks the successor."""
    journal = MemoryJournal()
    async with World(tmp_path) as world:
        async with world.scheduler(journal) as first:
            await first.launch(chain(), timeout=60, late_values=late)
            before = first.tasks("g")
        async with world.scheduler(journal) as second:
            assert second.phase("g") is GraphPhase.UP
            await asyncio.sleep(30)
            after = second.tasks("g")
            assert {n: (v.task_id, v.state, v.ports) for n, v in after.items()} == {
                n: (v.task_id, v.state, v.ports) for n, v in before.items()
            }
            assert await world.program("b")._ask() == {"for": "b"}
            world.program("b").exit(4)
            await until(lambda: second.tasks("g")["b"].state is TaskState.DEAD)
            death = second.tasks("g")["b"].death
            assert death is not None and death.exit_status == 4


@in_virtual_time
async def test_an_end_goes_on_with_the_successor_even_between_two_kills(tmp_path: Path) -> None:
    """All that ran is recorded as ready or dead: only the recorded phase tells that it was to end."""
    journal = MemoryJournal()
    async with World(tmp_path) as world:
        async with world.scheduler(journal) as first:
            await first.launch(chain(), timeout=60)
            stop = asyncio.create_task(first.stop("g"))
            await until(lambda: first.tasks("g")["c"].state is TaskState.DEAD)
            await first.close(teardown=False)
            stop.cancel()
            await asyncio.gather(stop, return_exceptions=True)
        assert world.running()
        async with world.scheduler(journal) as second:
            assert second.phase("g") is GraphPhase.STOPPING
            await until(lambda: world.running() == {})
            await until(lambda: second.graphs() == ())
        assert (await journal.load()).graphs == {}


@in_virtual_time
async def test_a_restart_that_did_not_survive_is_undone_and_the_rest_runs_on(
    tmp_path: Path,
) -> None:
    journal = MemoryJournal()
    a = server("a", LOG, restart=Restart.IN_PLACE)
    async with World(tmp_path) as world:
        async with world.scheduler(journal) as first:
            await first.launch(physical("g", a, shell("b", "x")), timeout=60)
            world.programs["a"] = Program(up=100.0)
            restart = asyncio.create_task(first.restart_task("g", "a", timeout=60))
            await until(lambda: "g.a.1" in world.running())
            await first.close(teardown=False)
            restart.cancel()
            await asyncio.gather(restart, return_exceptions=True)
        world.programs.clear()
        async with world.scheduler(journal) as second:
            await until(lambda: set(world.running()) == {"g.b.0"})
            assert second.phase("g") is GraphPhase.UP
            second.adopt("g")
            await second.restart_task("g", "a", timeout=60)
            assert set(world.running()) == {"g.b.0", "g.a.2"}


class Precise(MemoryJournal):
    """A journal whose controller dies at its n-th write: nothing of that write, or all of it, is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 10**9
        self.kept = False
        self.dead = asyncio.Event()

    async def _write(self, write: Callable[[], object]) -> None:
        self.left -= 1
        if self.left > 0:
            await write()  # type: ignore[misc]  # a coroutine
            return
        if self.left == 0 and self.kept:
            await write()  # type: ignore[misc]
        self.dead.set()
        await asyncio.sleep(1e9)

    async def record_graph(self, graph: PhysicalGraph) -> None:
        await self._write(lambda: MemoryJournal.record_graph(self, graph))

    async def record_task(self, record: TaskRecord) -> None:
        await self._write(lambda: MemoryJournal.record_task(self, record))

    async def record_phase(self, graph_id: str, phase: GraphPhase) -> None:
        await self._write(lambda: MemoryJournal.record_phase(self, graph_id, phase))


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("number", range(1, 26))
def test_whichever_write_was_the_last_the_successor_finds_its_way(
    tmp_path: Path, number: int, kept: bool
) -> None:
    @in_virtual_time
    async def story() -> None:
        journal = Precise()
        async with World(tmp_path) as world:
            async with world.scheduler(journal) as first:
                journal.left, journal.kept = number, kept
                launch = asyncio.create_task(first.launch(chain(), timeout=60, late_values=late))
                dead = asyncio.create_task(journal.dead.wait())
                await asyncio.wait((dead, launch), return_when=asyncio.FIRST_COMPLETED)
                dead.cancel()
                await first.close(teardown=False)
                launch.cancel()
                await asyncio.gather(launch, return_exceptions=True)
            journal.left = 10**9
            async with world.scheduler(journal, **PATIENT) as second:
                if second.phase("g") is GraphPhase.LAUNCHING:
                    await second.resume("g", timeout=60, late_values=late)
                if second.phase("g") is not None:
                    tasks = second.tasks("g")
                    assert {view.state for view in tasks.values()} == {TaskState.READY}
                    assert set(world.running()) == {v.task_id for v in tasks.values()}
                await second.stop("g")
                await asyncio.sleep(60)
                assert world.running() == {}
                assert all(agent.free == agent.total for agent in second.agents())
            state = await journal.load()
            assert (state.graphs, state.tasks) == ({}, {})

    story()
