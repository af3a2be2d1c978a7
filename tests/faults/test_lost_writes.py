"""Row 21: the store has lost its last writes, as when a machine fails; a successor goes on with the rest.

What Mesos and the labels of tasks tell is set against the records: what is missing in them is put back, and
runs on; what cannot be is killed, and told. `test_lost_seconds.py` does that with a real database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import labels
from scheduler.errors import SchedulerError
from scheduler.goahead import digest
from scheduler.graph import PhysicalGraph, Restart
from scheduler.journal import GraphPhase, JournalState, MemoryJournal
from scheduler.placement import Assignment
from scheduler.rebuilding import why_not
from scheduler.runs import GraphRun
from scheduler.service import Scheduler
from scheduler.subscription import Timing
from scheduler.task import TaskState
from scheduler.views import Change, GraphEnds, StrangerKilled, TasksPutBack
from tests.faults.test_succession import chain, late
from tests.faults.virtual import Clockwork, Program, World, in_virtual_time, until
from tests.scheduler.programs import needs, physical, server, shell

LOG: Final = Path("unused")
REPORTS: Final = (TasksPutBack, StrangerKilled, GraphEnds)


class Forgetful(MemoryJournal):
    """A journal that can lose its last writes."""

    def __init__(self) -> None:
        self._past: list[JournalState] = []
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_state":
            self._past.append(value)
        super().__setattr__(name, value)

    @property
    def writes(self) -> int:
        """How many there were."""
        return len(self._past)

    def lose(self, count: int) -> None:
        """Be as before the last writes; the framework's id was written long ago."""
        framework_id = self._state.framework_id
        self._state = replace(self._past[-1 - count], framework_id=framework_id)

    def be_as_after(self, writes: int) -> None:
        """Be as after so many writes."""
        self.lose(self.writes - writes)


@contextlib.asynccontextmanager
async def successor(
    world: World, journal: Forgetful, reports: list[Change]
) -> AsyncIterator[Scheduler]:
    async with (
        world.scheduler(journal, timing=Timing(adoption=5.0)) as scheduler,
        asyncio.timeout(1000),
    ):
        scheduler.subscribe(lambda c: reports.append(c) if isinstance(c, REPORTS) else None)
        yield scheduler


def known(scheduler: Scheduler) -> set[str]:
    """Ids of the tasks that live, as far as it knows."""
    return {
        view.task_id
        for graph_id in scheduler.graphs()
        for view in scheduler.tasks(graph_id).values()
        if view.state is not TaskState.DEAD
    }


@pytest.mark.parametrize("lost", [1, 5, 10, 13, 16, 18, 19, 20, 21])
def test_a_launch_goes_on_whatever_of_its_writes_is_lost(
    tmp_path: Path, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    """But for all of them: nothing says what the graph consists of then."""
    caplog.set_level(logging.INFO)

    @in_virtual_time
    async def story() -> None:
        journal, reports = Forgetful(), list[Change]()
        async with World(tmp_path) as world:
            async with world.scheduler(journal) as scheduler:
                await scheduler.launch(chain(), timeout=60, late_values=late)
            before = set(world.running())
            journal.lose(lost)
            recorded = bool((await journal.load()).graphs)
            async with successor(world, journal, reports) as scheduler:
                if recorded and scheduler.phase("g") is GraphPhase.LAUNCHING:
                    await scheduler.resume("g", timeout=60, late_values=late)
                await asyncio.sleep(200)
                assert set(world.running()) == known(scheduler) == (before if recorded else set())
                assert recorded == (lost < 21)
                state = await journal.load()
                assert {t.state for t in state.tasks.values()} <= {TaskState.READY}
                if not recorded:
                    assert {r.task_id for r in reports if isinstance(r, StrangerKilled)} == before
                    assert all(task_id in caplog.text for task_id in before), "that is told"
                if 15 < lost < 21:
                    assert reports and isinstance(reports[0], TasksPutBack)
                await scheduler.stop("g")
                assert world.running() == {}

    story()


@pytest.mark.parametrize("kept", [3, 5, 9, 15, 19])
def test_a_launch_that_fails_fails_in_time_whatever_of_its_writes_is_lost(
    tmp_path: Path, kept: int
) -> None:
    """The task that never comes up is put back, too: whoever goes on with the launch finds that out."""

    @in_virtual_time
    async def story() -> None:
        journal, reports = Forgetful(), list[Change]()
        async with World(tmp_path) as world:
            world.programs["c"] = Program(up=1e9)
            async with world.scheduler(journal) as scheduler:
                launch = asyncio.create_task(
                    scheduler.launch(chain(), timeout=60, late_values=late)
                )
                await until(lambda: len(world.running()) == 4)
                await asyncio.sleep(3.0)
                await scheduler.close(teardown=False)
                launch.cancel()
                await asyncio.gather(launch, return_exceptions=True)
            assert kept < journal.writes
            journal.be_as_after(kept)
            clock = Clockwork()
            async with successor(world, journal, reports) as scheduler:
                with pytest.raises(SchedulerError, match=r"c on host .* not ready within"):
                    await scheduler.resume("g", timeout=60, late_values=late)
                assert clock.elapsed < 70
                assert world.running() == {} and known(scheduler) == set()
                if kept == 3:
                    (report,) = reports
                    assert isinstance(report, TasksPutBack) and set(report.names) == set("abcd")
                assert (await journal.load()).graphs == {}

    story()


@in_virtual_time
async def test_a_launch_that_is_taken_down_while_nothing_is_known_is_not_gone_on_with(
    tmp_path: Path,
) -> None:
    journal, reports = Forgetful(), list[Change]()
    async with World(tmp_path) as world:
        async with world.scheduler(journal) as scheduler:
            await scheduler.launch(chain(), timeout=60, late_values=late)
        journal.lose(19)
        registry = await world.lose_master()
        async with successor(world, journal, reports) as scheduler:
            resuming = asyncio.create_task(scheduler.resume("g", timeout=60, late_values=late))
            await asyncio.sleep(1)
            stopping = asyncio.create_task(scheduler.stop("g"))
            await asyncio.sleep(1)
            await world.start_master(registry=registry)
            with pytest.raises(SchedulerError, match="taken down"):
                await resuming
            await stopping
            await until(lambda: world.running() == {})
            assert scheduler.graphs() == ()


def pair() -> PhysicalGraph:
    """One that can be started again, and one that needs it and cannot."""
    a = server("a", LOG, restart=Restart.IN_PLACE, critical=False)
    b = server("b", LOG, needs="a")
    return physical("g", a, b, shell("c", "x"), edges=(*needs("b", "a"), *needs("a", "c")))


@pytest.mark.parametrize("up", [0.5, 8.0])
@pytest.mark.parametrize("kept", [0, 2])
def test_a_task_that_was_started_again_stays(tmp_path: Path, up: float, kept: int) -> None:
    """Also one that waits for its go-ahead still, of whose secret nothing is left but a digest."""

    @in_virtual_time
    async def story() -> None:
        journal, reports = Forgetful(), list[Change]()
        async with World(tmp_path) as world:
            async with world.scheduler(journal) as scheduler:
                await scheduler.launch(pair(), timeout=60, late_values=late)
                world.program("a").exit(3)
                await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
                before = journal.writes
                world.programs["a"] = Program(up=up, start=0.2 if up < 1 else 5.0)
                restart = asyncio.create_task(scheduler.restart_task("g", "a", timeout=60))
                await until(lambda: "g.a.1" in world.running())
                await asyncio.sleep(2.0)
                await scheduler.close(teardown=False)
                restart.cancel()
                await asyncio.gather(restart, return_exceptions=True)
            journal.be_as_after(before - kept)
            async with successor(world, journal, reports) as scheduler:
                scheduler.adopt("g", late_values=late)
                await until(lambda: scheduler.tasks("g")["a"].state is TaskState.READY)
                await asyncio.sleep(50)
                assert set(world.running()) == {"g.a.1", "g.b.0", "g.c.0"} == known(scheduler)
                assert reports == [TasksPutBack("g", ("a",))]
                state = await journal.load()
                assert state.graphs["g"].tasks["a"].task_id == "g.a.1"
                assert state.tasks["g.a.1"].state is TaskState.READY
                view = scheduler.tasks("g")["a"]
                assert view.ports and view.host and view.resources
                world.program("a").exit(3)
                await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
                plan = await scheduler.restart_task("g", "a", timeout=60)
                assert plan.names == ("a",) and "g.a.2" in world.running()

    story()


@pytest.mark.parametrize("moment", ["just told", "under way", "done"])
def test_a_graph_that_was_being_taken_down_is_taken_down(tmp_path: Path, moment: str) -> None:
    @in_virtual_time
    async def story() -> None:
        journal, reports = Forgetful(), list[Change]()
        async with World(tmp_path) as world:
            world.programs["b"] = Program(end=5.0)
            async with world.scheduler(journal) as scheduler:
                await scheduler.launch(pair(), timeout=60, late_values=late)
                before = journal.writes
                stop = asyncio.create_task(scheduler.stop("g"))
                await asyncio.sleep({"just told": 0.5, "under way": 5.2, "done": 60}[moment])
                await scheduler.close(teardown=False)
                stop.cancel()
                await asyncio.gather(stop, return_exceptions=True)
            journal.be_as_after(before)
            async with successor(world, journal, reports) as scheduler:
                await until(lambda: scheduler.graphs() == ())
                assert world.running() == {}
                assert [type(report) for report in reports] == [GraphEnds]
                assert (await journal.load()).graphs == {}

    story()


@in_virtual_time
async def test_a_task_that_died_by_itself_takes_no_graph_down(tmp_path: Path) -> None:
    journal, reports = Forgetful(), list[Change]()
    async with World(tmp_path) as world:
        async with world.scheduler(journal) as scheduler:
            await scheduler.launch(pair(), timeout=60, late_values=late)
        world.program("b").exit(3)
        await asyncio.sleep(5)
        async with successor(world, journal, reports) as scheduler:
            await until(lambda: scheduler.tasks("g")["b"].state is TaskState.DEAD)
            await asyncio.sleep(50)
            assert set(world.running()) == {"g.a.0", "g.c.0"} and reports == []


# Labels


def found(task_id: str, graph: PhysicalGraph, **changes: Any) -> labels.Found:
    """What Mesos knows of a task that was launched."""
    task = graph.tasks[task_id.split(".")[1]]
    count = len(task.template.request.ports)
    place = Assignment(task.name, "S0", "agent0", ports=tuple(range(20000, 20000 + count)))
    told = labels.written(task.template, "g", place, "10.0.0.1", "http://10.0.0.1:5051", "secret")
    return labels.Found(task_id, "TASK_RUNNING", "S0", {**told, **changes})


@given(
    attempt=st.integers(0, 3),
    recorded=st.integers(0, 3),
    state=st.sampled_from([TaskState.PLANNED, TaskState.PLACED, TaskState.READY, TaskState.DEAD]),
    phase=st.sampled_from(GraphPhase),
    name=st.sampled_from("ab"),
    walked=st.booleans(),
    latest=st.integers(0, 3),
)
def test_only_what_is_the_newest_of_its_name_and_allowed_is_put_back(
    attempt: int,
    recorded: int,
    state: TaskState,
    phase: GraphPhase,
    name: str,
    walked: bool,
    latest: int,
) -> None:
    graph = pair()
    run = GraphRun(graph.with_id(name, f"g.{name}.{recorded}"))
    run.phase, run.walked = phase, walked
    run.entries[name].life = replace(run.entries[name].life, state=state)
    task = found(f"g.{name}.{attempt}", graph)
    if not why_not(task, run, {("g", name): max(latest, attempt)}):
        assert attempt >= latest
        assert attempt > recorded or (attempt == recorded and state.value in ("planned", "placed"))
        assert phase is not GraphPhase.STOPPING
        assert phase is not GraphPhase.UP or name == "a"
        assert phase is not GraphPhase.LAUNCHING or not walked


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({labels.PROGRAM: "0" * 16}, "not the program"),
        ({labels.PLACE: "{}"}, "do not tell where"),
        ({labels.PLACE: "[" * 5000}, "do not tell where"),
        ({labels.GRAPH: "h"}, "no such task"),
        ({labels.PLACE: '{"host":"h","address":"a","url":"u"}'}, "ports"),
    ],
)
def test_labels_that_do_not_fit_are_no_evidence(change: Mapping[str, str], why: str) -> None:
    graph = pair()
    assert why in why_not(found("g.a.1", graph, **change), GraphRun(graph), {})
    assert why_not(found("g.a.1", graph), None, {})


pages = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tasks", "id", "framework_id", "slave_id", "state", "labels", "key"]),
            inner,
            max_size=6,
        )
    ),
)


@given(pages)
def test_a_page_may_be_anything(page: object) -> None:
    read = labels.read_page(page, "F")
    assert read is None or all(isinstance(task, labels.Found) for task in read[0])


numbers = st.lists(st.integers(0, 99), max_size=3).map(tuple)


@given(numbers, numbers, st.none() | st.integers(0, 3), st.text(max_size=20))
def test_labels_tell_the_place_and_keep_the_secret(
    cores: Sequence[int], ports: Sequence[int], numa: int | None, host: str
) -> None:
    template = pair().tasks["a"].template
    place = Assignment(
        "a", "S0", host, numa=numa, cores=tuple(cores), ports=tuple(ports), role="sdp"
    )
    secret = "Ysecret-of-the-go-ahead"  # noqa: S105 - of a test
    told = labels.written(template, "g", place, "10.0.0.1", "http://u", secret)
    assert secret not in str(told) and told[labels.GATE] == digest(secret)
    assert labels.place_of(labels.Found("g.a.7", "TASK_RUNNING", "S0", told)) == labels.Place(
        place, "10.0.0.1", "http://u"
    )
    assert labels.GATE not in labels.written(template, "g", place, "10.0.0.1", "http://u", "")
