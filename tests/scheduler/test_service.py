"""The scheduler on a cluster: whole launches, whole ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scheduler.embedded import Cluster
from scheduler.errors import GraphError, JournalError, LaunchError, NeverFitsError, NoFitError
from scheduler.framework import Framework
from scheduler.graph import Edge, EdgeKind, PhysicalGraph, ReadyCheck, ReadyKind
from scheduler.journal import MemoryJournal, TaskRecord
from scheduler.packing import Explanation, Verdict
from scheduler.placement import Placement
from scheduler.pymesos_driver import CallUncertain
from scheduler.requests import TaskRequest
from scheduler.service import Scheduler
from scheduler.task import Outcome, TaskState
from scheduler.views import Change, LinkChanged, LinkState, TaskChanged
from tests.conftest import PATIENCE
from tests.scheduler.programs import eventually, needs, physical, scheduler_on, server, shell


def six(log: Path, graph_id: str = "six") -> PhysicalGraph:
    """Two chains that share a root, and a task that needs both ends."""
    return physical(
        graph_id,
        server("telstate", log),
        server("sim.0", log, needs="telstate"),
        server("ingest.0", log, needs="sim.0"),
        server("ingest.1", log, needs="sim.0"),
        server("writer", log, needs="ingest.1"),
        shell("watch", "sleep 1000"),
        edges=(
            *needs("sim.0", "telstate"),
            *needs("ingest.0", "sim.0"),
            *needs("ingest.1", "sim.0"),
            *needs("writer", "ingest.1"),
            *needs("writer", "ingest.0"),
            Edge("watch", "writer", EdgeKind.READY),
            Edge("watch", "telstate", EdgeKind.KILL),
        ),
    )


def events(log: Path, event: str) -> list[str]:
    lines = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    return [line["task"] for line in lines if line["event"] == event]


def before(order: list[str], *pairs: tuple[str, str]) -> bool:
    return all(order.index(a) < order.index(b) for a, b in pairs)


async def everything_is_free(scheduler: Scheduler) -> None:
    await eventually(
        lambda: bool(scheduler.agents()) and all(a.free == a.total for a in scheduler.agents())
    )


async def test_a_graph_comes_up_in_order_and_goes_down_in_order(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    changes: list[Change] = []
    scheduler.subscribe(changes.append)
    graph = six(log)
    await scheduler.launch(graph, timeout=PATIENCE)
    views = scheduler.tasks("six")
    assert {view.state for view in views.values()} == {TaskState.READY}
    assert before(
        events(log, "up"),
        ("telstate", "sim.0"),
        ("sim.0", "ingest.0"),
        ("sim.0", "ingest.1"),
        ("ingest.0", "writer"),
        ("ingest.1", "writer"),
    )
    host, port = views["writer"].ports["p"]
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    await writer.wait_closed()
    await scheduler.stop("six")
    assert before(
        events(log, "down"),
        ("writer", "ingest.0"),
        ("writer", "ingest.1"),
        ("ingest.0", "sim.0"),
        ("ingest.1", "sim.0"),
        ("sim.0", "telstate"),
    )
    assert scheduler.tasks("six") == {}
    last = {c.view.name: c.view for c in changes if isinstance(c, TaskChanged)}
    assert all(v.death and v.death.outcome is Outcome.KILLED for v in last.values())
    assert all(v.expected_death for v in last.values())
    await everything_is_free(scheduler)


async def test_all_or_nothing(scheduler: Scheduler, tmp_path: Path) -> None:
    """What fits only in part waits, says why, and leaves nothing behind at its deadline."""
    big = TaskRequest.of(cpus=1.5, mem_mib=16)
    graph = physical(
        "big", *(shell(f"t{n}", f"touch {tmp_path}/ran", request=big) for n in range(4))
    )
    launch = asyncio.create_task(scheduler.launch(graph, timeout=3))
    await eventually(lambda: "cpus" in scheduler.explain("big").lower() or launch.done())
    with pytest.raises(NoFitError, match=r"(?i)cpus"):
        await launch
    assert not (tmp_path / "ran").exists()
    await everything_is_free(scheduler)


async def test_a_graph_that_waits_is_launched_once_there_is_room(scheduler: Scheduler) -> None:
    big = TaskRequest.of(cpus=1.5, mem_mib=16)
    first = physical("first", *(shell(f"t{n}", "sleep 1000", request=big) for n in range(2)))
    await scheduler.launch(first, timeout=PATIENCE)
    second = physical("second", *(shell(f"t{n}", "sleep 1000", request=big) for n in range(2)))
    launch = asyncio.create_task(scheduler.launch(second, timeout=PATIENCE))
    await eventually(lambda: "cpus" in scheduler.explain("second").lower())
    await scheduler.stop("first")
    await launch


async def test_what_can_never_run_is_refused_at_once(scheduler: Scheduler) -> None:
    loop = asyncio.get_running_loop()
    graph = physical("huge", shell("t", "true", request=TaskRequest.of(cpus=3)))
    began = loop.time()
    with pytest.raises(NeverFitsError, match=r"(?i)cpus"):
        await scheduler.launch(graph, timeout=600)
    assert loop.time() - began < 300, "its deadline was not waited for"


async def test_a_dying_task_takes_its_siblings_along_and_is_named(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    graph = physical(
        "sad",
        server("a", tmp_path / "log"),
        shell("b", "sleep 1000"),
        shell(
            "c",
            "echo the disk is on fire >&2; exit 3",
            request=TaskRequest.of(cpus=0.1, mem_mib=16, ports=("p",)),
            ready=ReadyCheck(ReadyKind.PORTS, ("p",)),
        ),
        edges=(Edge("c", "a", EdgeKind.READY), Edge("b", "c", EdgeKind.READY)),
    )
    with pytest.raises(LaunchError) as caught:
        await scheduler.launch(graph, timeout=PATIENCE)
    text = str(caught.value)
    assert "task c on host agent" in text
    assert "exited with status 3" in text
    assert "the disk is on fire" in text
    views = scheduler.tasks("sad")
    assert {view.state for view in views.values()} == {TaskState.DEAD}
    assert views["c"].death is not None
    assert views["c"].death.exit_status == 3
    assert views["b"].expected_death
    assert not views["c"].expected_death
    await everything_is_free(scheduler)


async def test_a_task_that_is_not_ready_in_time_fails_the_launch(scheduler: Scheduler) -> None:
    request = TaskRequest.of(cpus=0.1, mem_mib=16, ports=("p",))
    ready = ReadyCheck(ReadyKind.PORTS, ("p",))
    late = shell("late", "sleep 1000", request=request, ready=ready, launch_timeout=1.0)
    told = r"late on host agent.* not ready within its 1 s.* port p \(127.* refuses connections"
    with pytest.raises(LaunchError, match=told):
        await scheduler.launch(physical("slow", late), timeout=PATIENCE)
    await everything_is_free(scheduler)


async def test_a_task_that_dies_later_is_reported_with_its_last_lines(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    changes: list[Change] = []
    scheduler.subscribe(changes.append)
    fuse = tmp_path / "fuse"
    script = f"until [ -e {fuse} ]; do sleep 0.05; done; echo boom >&2; exit 7"
    await scheduler.launch(
        physical("g", shell("a", script), shell("b", "sleep 1000")), timeout=PATIENCE
    )
    fuse.touch()

    def told() -> bool:
        return any(isinstance(c, TaskChanged) and c.view.log_tail == ("boom",) for c in changes)

    await eventually(told)
    view = scheduler.tasks("g")["a"]
    assert view.death is not None
    assert (view.death.outcome, view.death.exit_status) == (Outcome.FAILED, 7)
    assert not view.expected_death
    assert scheduler.tasks("g")["b"].state is TaskState.READY


async def test_a_launch_can_be_stopped_in_the_middle(scheduler: Scheduler, tmp_path: Path) -> None:
    request = TaskRequest.of(cpus=0.1, mem_mib=16, ports=("p",))
    ready = ReadyCheck(ReadyKind.PORTS, ("p",))
    never = shell("never", "sleep 1000", request=request, ready=ready)
    graph = physical(
        "g", never, shell("b", f"touch {tmp_path}/ran"), edges=(Edge("b", "never", EdgeKind.READY),)
    )
    launch = asyncio.create_task(scheduler.launch(graph, timeout=PATIENCE))
    await eventually(
        lambda: bool(scheduler.tasks("g")) and scheduler.tasks("g")["b"].state is TaskState.WAITING
    )
    await scheduler.stop("g")
    with pytest.raises(LaunchError):
        await launch
    assert not (tmp_path / "ran").exists()
    await everything_is_free(scheduler)


async def test_a_cancelled_launch_leaves_nothing(scheduler: Scheduler, tmp_path: Path) -> None:
    launch = asyncio.create_task(scheduler.launch(six(tmp_path / "log"), timeout=PATIENCE))
    await eventually(lambda: bool(events(tmp_path / "log", "up")))
    launch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launch
    await eventually(lambda: scheduler.graphs() == ())
    await everything_is_free(scheduler)


async def test_a_kill_that_is_not_obeyed_is_repeated_until_the_task_is_dead(
    scheduler: Scheduler,
) -> None:
    stubborn = shell("deaf", "trap '' TERM; while :; do sleep 0.1; done", kill_grace=1.0)
    await scheduler.launch(physical("g", stubborn), timeout=PATIENCE)
    await scheduler.stop("g")
    await everything_is_free(scheduler)


async def test_a_race_with_the_offers_is_tried_again_under_new_ids(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ACCEPT comes too late; the tasks of the others never get their go-ahead."""
    accept, tried = Framework.accept, []

    async def late(
        self: Framework, offer_ids: list[str], infos: list[dict[str, Any]], **more: Any
    ) -> None:
        tried.append(infos)
        if len(tried) == 1:
            offer_ids = [*offer_ids, "no-such-offer"]
        await accept(self, offer_ids, infos, **more)

    monkeypatch.setattr(Framework, "accept", late)
    big = TaskRequest.of(cpus=1.5, mem_mib=16)
    graph = physical(
        "g",
        shell("a", "sleep 1000", request=big),
        shell("b", f"touch {tmp_path}/$SDP_TASK_ID; sleep 1000", request=big),
        edges=(Edge("b", "a", EdgeKind.READY),),
    )
    await scheduler.launch(graph, timeout=PATIENCE)
    views = scheduler.tasks("g")
    assert {view.task_id for view in views.values()} == {"g.a.1", "g.b.1"}
    assert {view.state for view in views.values()} == {TaskState.READY}
    await eventually((tmp_path / "g.b.1").exists)
    assert not (tmp_path / "g.b.0").exists()
    await scheduler.stop("g")
    await everything_is_free(scheduler)


async def test_an_accept_that_never_arrives_is_found_out_and_tried_again_under_new_ids(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master fails between ACCEPT and the agent: asking leads out of it, and no two copies run."""
    accept, lost = Framework.accept, []

    async def uncertain(self: Framework, *args: Any, **more: Any) -> None:
        if not lost:
            lost.append(args)
            raise CallUncertain("no answer")
        await accept(self, *args, **more)

    monkeypatch.setattr(Framework, "accept", uncertain)
    big = TaskRequest.of(cpus=1.5, mem_mib=16)
    graph = physical("g", *(shell(name, "sleep 1000", request=big) for name in "ab"))
    await scheduler.launch(graph, timeout=PATIENCE)
    views = scheduler.tasks("g")
    assert {view.task_id for view in views.values()} == {"g.a.1", "g.b.1"}
    assert {view.state for view in views.values()} == {TaskState.READY}
    await scheduler.stop("g")
    await everything_is_free(scheduler)


async def test_a_launch_waits_for_the_journal(
    cluster: Cluster, journal: MemoryJournal, tmp_path: Path
) -> None:
    """Nothing is launched that is not recorded; it goes on by itself."""

    class Moody(MemoryJournal):
        broken = True

        async def record_task(self, record: TaskRecord) -> None:
            if self.broken:
                raise JournalError("the store is away")
            await super().record_task(record)

    moody = Moody()
    async with scheduler_on(cluster, moody, teardown=True) as scheduler:
        with pytest.raises(JournalError):
            await scheduler.launch(physical("one", shell("a", f"touch {tmp_path}/one")), timeout=2)
        assert not (tmp_path / "one").exists()
        launch = asyncio.create_task(
            scheduler.launch(physical("two", shell("a", "sleep 1000")), timeout=PATIENCE)
        )
        await eventually(lambda: bool(scheduler.tasks("two")))
        moody.broken = False
        await launch


async def test_one_id_runs_once(scheduler: Scheduler) -> None:
    graph = physical("g", shell("a", "sleep 1000"))
    await scheduler.launch(graph, timeout=PATIENCE)
    with pytest.raises(GraphError, match="already"):
        await scheduler.launch(graph, timeout=PATIENCE)
    await scheduler.stop("g")
    await scheduler.stop("g")


async def test_templates_environment_and_late_values_reach_the_program(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    graph = physical(
        "g",
        shell("a", "sleep 1000"),
        shell(
            "b",
            f"env > {out}; sleep 1000",
            env={"CB": "{capture_block}", "ME": "{task.id}", "BRACES": "{{}}"},
        ),
        edges=(Edge("b", "a", EdgeKind.READY),),
        capture_block="1234",
    )

    async def late_values(name: str) -> dict[str, str]:
        return {"for": name}

    await scheduler.launch(graph, timeout=PATIENCE, late_values=late_values)
    await eventually(lambda: out.exists() and "SDP_MEM_MIB" in out.read_text())
    lines = dict(line.split("=", 1) for line in out.read_text().splitlines() if "=" in line)
    assert (lines["CB"], lines["ME"], lines["BRACES"]) == ("1234", "g.b.0", "{}")
    assert (lines["SDP_CPUS"], lines["SDP_TASK_NAME"]) == ("0.1", "b")
    assert json.loads(lines["SDP_GO_AHEAD"])["values"] == {"for": "b"}
    assert not [name for name in lines if "TOKEN" in name]


async def test_plan_says_what_launch_would_do(scheduler: Scheduler, tmp_path: Path) -> None:
    await eventually(lambda: len(scheduler.agents()) == 3)
    assert isinstance(await scheduler.plan(six(tmp_path / "log")), Placement)
    huge = physical("huge", shell("t", "true", request=TaskRequest.of(cpus=3)))
    answer = await scheduler.plan(huge)
    assert isinstance(answer, Explanation)
    assert answer.remedies
    assert scheduler.graphs() == ()


async def test_plan_says_what_would_have_to_end(scheduler: Scheduler) -> None:
    await eventually(lambda: len(scheduler.agents()) == 3)
    big = TaskRequest.of(cpus=1.5, mem_mib=16)
    running = physical("running", *(shell(f"t{n}", "sleep 1000", request=big) for n in range(3)))
    await scheduler.launch(running, timeout=PATIENCE)
    await eventually(lambda: all(a.free != a.total for a in scheduler.agents()))
    wanted = physical("wanted", shell("t", "true", request=big))
    answer = await scheduler.plan(wanted)
    assert isinstance(answer, Explanation)
    assert answer.verdict in (Verdict.NOT_NOW, Verdict.NOT_FOUND)
    assert answer.displaces == ("running",)
    assert scheduler.graphs() == ("running",)


# ---------------------------------------------------------------------- batch


async def test_a_batch_runs_in_order_tries_again_and_gives_up(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    finished = EdgeKind.FINISHED
    count = tmp_path / "count"
    graph = physical(
        "batch",
        shell("first", f"echo first >> {count}"),
        shell("flaky", f"echo flaky >> {count}; [ $(grep -c flaky {count}) -ge 2 ]"),
        shell("broken", "echo hopeless >&2; exit 5"),
        shell("after", f"echo after >> {count}"),
        shell("never", f"echo never >> {count}"),
        shell("slow", "sleep 1000", max_run_time=0.5, critical=False),
        edges=(
            Edge("flaky", "first", finished),
            Edge("after", "flaky", finished),
            Edge("never", "broken", finished),
        ),
    )
    result = await scheduler.run_batch(graph, attempts=2, timeout=PATIENCE)
    assert count.read_text().split() == ["first", "flaky", "flaky", "after"]
    attempts = {name: node.attempts for name, node in result.nodes.items()}
    assert attempts == {
        "first": 1,
        "flaky": 2,
        "broken": 2,
        "after": 1,
        "never": 0,
        "slow": 2,
    }
    assert result.nodes["broken"].death is not None
    assert result.nodes["broken"].death.exit_status == 5
    assert result.nodes["broken"].log_tail == ("hopeless",)
    assert set(result.failed) == {"broken", "never"}
    assert not result.succeeded
    await everything_is_free(scheduler)


async def test_a_batch_ends_with_its_time(scheduler: Scheduler) -> None:
    result = await scheduler.run_batch(physical("b", shell("t", "sleep 1000")), timeout=2)
    assert result.failed == ("t",)
    await everything_is_free(scheduler)


# ---------------------------------------------------------------------- the link and the journal


async def test_tasks_outlive_the_scheduler_and_a_successor_goes_on(
    cluster: Cluster, journal: MemoryJournal, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with scheduler_on(cluster, journal) as first:
        await first.launch(six(log), timeout=PATIENCE)
        framework_id = first.framework_id
    async with scheduler_on(cluster, journal, teardown=True) as second:
        assert second.graphs() == ("six",)
        await eventually(lambda: second.link().state is LinkState.CONNECTED)
        assert second.framework_id == framework_id
        views = second.tasks("six")
        assert {view.state for view in views.values()} == {TaskState.READY}
        assert events(log, "down") == []
        host, port = views["writer"].ports["p"]
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await second.stop("six")
        assert before(events(log, "down"), ("writer", "telstate"))
        await everything_is_free(second)
    assert (await journal.load()).graphs == {}


async def test_a_launch_that_its_scheduler_did_not_survive_is_rolled_back(
    cluster: Cluster, journal: MemoryJournal, tmp_path: Path
) -> None:
    request = TaskRequest.of(cpus=0.1, mem_mib=16, ports=("p",))
    ready = ReadyCheck(ReadyKind.PORTS, ("p",))
    never = shell("never", "sleep 1000", request=request, ready=ready)
    after = shell("b", f"touch {tmp_path}/ran")
    graph = physical("g", never, after, edges=(Edge("b", "never", EdgeKind.READY),))
    async with scheduler_on(cluster, journal) as first:
        launch = asyncio.create_task(first.launch(graph, timeout=PATIENCE))
        await eventually(
            lambda: bool(first.tasks("g")) and first.tasks("g")["b"].state is TaskState.WAITING
        )
        await first.close(teardown=False)
        launch.cancel()
    async with scheduler_on(cluster, journal, teardown=True) as second:
        await eventually(lambda: second.graphs() == ())
        await everything_is_free(second)
    assert not (tmp_path / "ran").exists()
    assert (await journal.load()).graphs == {}


async def test_tasks_without_a_record_are_killed(
    cluster: Cluster, journal: MemoryJournal, tmp_path: Path
) -> None:
    async with scheduler_on(cluster, journal) as first:
        await first.launch(physical("g", shell("a", "sleep 1000")), timeout=PATIENCE)
    await journal.forget_graph("g")
    async with scheduler_on(cluster, journal, teardown=True) as second:
        await everything_is_free(second)


async def test_a_cut_link_touches_no_task(
    scheduler: Scheduler, cluster: Cluster, tmp_path: Path
) -> None:
    changes: list[Change] = []
    scheduler.subscribe(changes.append)
    await scheduler.launch(six(tmp_path / "log"), timeout=PATIENCE)
    cut(cluster)
    await eventually(
        lambda: (
            [c.state for c in changes if isinstance(c, LinkChanged)][-2:]
            == [LinkState.DISCONNECTED, LinkState.CONNECTED]
        )
    )
    assert {v.state for v in scheduler.tasks("six").values()} == {TaskState.READY}
    await scheduler.stop("six")
    await everything_is_free(scheduler)


def cut(cluster: Cluster) -> None:
    """Cut every connection of the cluster's HTTP server."""
    runner = cluster._runner
    assert runner is not None
    assert runner.server is not None
    for connection in list(runner.server.connections):
        connection.transport.abort()


async def test_what_no_agent_could_ever_run_is_known_without_running_anything(
    scheduler: Scheduler,
) -> None:
    """One by one: together they may be more than the cluster, or busy agents may have no room now."""
    fits, huge = TaskRequest.of(cpus=1.5, mem_mib=16), TaskRequest.of(cpus=2.5, mem_mib=16)
    many = [shell(f"fits.{n}", "true", request=fits) for n in range(20)]
    graph = physical(
        "g", *many, shell("huge.0", "x", request=huge), shell("huge.1", "x", request=huge)
    )
    found: Mapping[str, Explanation] | None = None
    while found is None:
        found = await scheduler.homeless(graph)
        await asyncio.sleep(0.1)
    assert set(found) == {"huge.0", "huge.1"}
    assert found["huge.0"] is found["huge.1"]
    assert "cpus: huge.0 asks for 2.5" in str(found["huge.0"])
    assert scheduler.graphs() == ()
