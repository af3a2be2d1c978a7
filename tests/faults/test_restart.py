"""One task is started anew; the others run on, but for those that the edges tie to it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.constraints import Apart
from scheduler.errors import LaunchError, NoFitError, RestartError
from scheduler.graph import Edge, EdgeIndex, EdgeKind, LogicalGraph, Restart
from scheduler.requests import TaskRequest
from scheduler.restart import plan_restart
from scheduler.task import TaskState
from scheduler.views import Change, TaskChanged
from tests.faults.virtual import Program, World, in_virtual_time, launched_on, until
from tests.scheduler.programs import needs, physical, server, shell

LOG = Path("unused")


@in_virtual_time
async def test_a_task_is_restarted_in_place_and_nobody_else_notices(tmp_path: Path) -> None:
    a = server("a", LOG, restart=Restart.IN_PLACE)
    b = server("b", LOG, needs="a")
    asked: list[str] = []

    async def late(name: str) -> dict[str, str]:
        asked.append(name)
        return {"for": name}

    async with World(tmp_path) as world, world.scheduler() as scheduler:
        graph = physical("g", a, b, shell("c", "x"), edges=(*needs("b", "a"), *needs("a", "c")))
        await scheduler.launch(graph, timeout=60, late_values=late)
        before = scheduler.tasks("g")
        world.program("a").exit(3)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        plan = await scheduler.restart_task("g", "a", timeout=60)
        assert plan.names == ("a",)
        after = scheduler.tasks("g")
        assert after["a"].task_id == "g.a.1"
        assert after["a"].state is TaskState.READY
        assert after["a"].ports == before["a"].ports
        assert after["b"] == before["b"], "it was told an endpoint that is the same"
        assert world.program("a").answers == [{"for": "a"}]
        assert asked.count("a") == 2
        await scheduler.stop("g")
        assert world.running() == {}


@in_virtual_time
async def test_a_living_task_takes_along_who_must_be_killed_before_it(tmp_path: Path) -> None:
    a = server("a", LOG, restart=Restart.IN_PLACE)
    b = server("b", LOG, needs="a", restart=Restart.IN_PLACE)
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        graph = physical("g", a, b, shell("c", "x"), edges=needs("b", "a"))
        await scheduler.launch(graph, timeout=60)
        plan = await scheduler.restart_task("g", "a", timeout=60)
        assert plan.names == ("a", "b")
        assert "must be dead before a is killed" in plan.because["b"]
        tasks = scheduler.tasks("g")
        assert {view.task_id for view in tasks.values()} == {"g.a.1", "g.b.1", "g.c.0"}
        assert {view.state for view in tasks.values()} == {TaskState.READY}
        order = [c.task_id for c in world.containers if c.task_id.endswith(".1")]
        ends = {c.task_id: c for c in world.containers}
        assert set(order) == {"g.a.1", "g.b.1"}
        assert not ends["g.a.0"].alive and not ends["g.b.0"].alive
        assert set(world.running()) == {"g.a.1", "g.b.1", "g.c.0"}


@in_virtual_time
async def test_who_was_told_where_a_task_is_follows_it_anywhere(tmp_path: Path) -> None:
    """Its old place is taken by another graph meanwhile."""
    request = server("a", LOG).request
    a = server("a", LOG, restart=Restart.ANYWHERE, request=replace(request, cpus=2000))
    b = server("b", LOG, needs="a", restart=Restart.IN_PLACE)
    port_only = (Edge("b", "a", EdgeKind.PORT), Edge("b", "a", EdgeKind.READY))
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a, b, edges=port_only), timeout=60)
        old = launched_on(scheduler, "g")["a"]
        world.program("a").exit(1)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        big = replace(request, ports=(), cpus=2000, host=old)
        await scheduler.launch(physical("thief", shell("t", "x", request=big)), timeout=60)
        plan = await scheduler.restart_task("g", "a", timeout=60)
        assert plan.names == ("b", "a")
        assert launched_on(scheduler, "g")["a"] != old
        host, port = scheduler.tasks("g")["a"].ports["p"]
        command = next(
            i["command"]["arguments"]
            for call in world.called("ACCEPT")
            for i in call["operations"][0]["launch"]["task_infos"]
            if i["task_id"]["value"] == "g.b.1"
        )
        assert f"{host}:{port}" in command


@in_virtual_time
async def test_one_whose_files_are_on_its_agent_stays_there_though_its_port_is_taken(
    tmp_path: Path,
) -> None:
    request = server("a", LOG).request
    a = server("a", LOG, restart=Restart.SAME_AGENT)
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a), timeout=60)
        old = scheduler.tasks("g")["a"].ports["p"]
        world.program("a").exit(1)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        thief = server("t", LOG, request=replace(request, host=launched_on(scheduler, "g")["a"]))
        await scheduler.launch(physical("thief", thief), timeout=60)
        assert scheduler.tasks("thief")["t"].ports["p"] == old
        await scheduler.restart_task("g", "a", timeout=60)
        (host, port) = scheduler.tasks("g")["a"].ports["p"]
        assert host == old[0] and port != old[1]


@in_virtual_time
async def test_a_place_that_is_taken_is_told_and_the_rest_runs_on(tmp_path: Path) -> None:
    request = server("a", LOG).request
    a = server("a", LOG, restart=Restart.IN_PLACE, request=replace(request, cpus=2000))
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a, shell("b", "x")), timeout=60)
        old = launched_on(scheduler, "g")["a"]
        world.program("a").exit(1)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        thief = replace(request, ports=(), cpus=1000, host=old)
        await scheduler.launch(physical("thief", shell("t", "x", request=thief)), timeout=60)
        said = f"what it had on {old} is not free: a lacks cpus:1 on {old}$"
        with pytest.raises(NoFitError, match=said):
            await scheduler.restart_task("g", "a", timeout=30)
        assert scheduler.tasks("g")["a"].state is TaskState.DEAD
        assert scheduler.tasks("g")["b"].state is TaskState.READY
        await scheduler.stop("thief")
        await scheduler.restart_task("g", "a", timeout=30)
        assert launched_on(scheduler, "g")["a"] == old
        assert scheduler.tasks("g")["a"].state is TaskState.READY


@in_virtual_time
async def test_a_place_on_an_agent_that_takes_nothing_is_told_with_the_reason(
    tmp_path: Path,
) -> None:
    """Nothing there is in the way: that it is «not free» would send people after the wrong thing."""
    a = server("a", LOG, restart=Restart.IN_PLACE)
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a, shell("b", "x")), timeout=60)
        host = launched_on(scheduler, "g")["a"]
        world.program("a").exit(1)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        await scheduler.drain(host, "new fans")
        restart = asyncio.create_task(scheduler.restart_task("g", "a", timeout=60))
        await asyncio.sleep(30)
        why = rf"what it had on {host} cannot be had again: {host} is drained \(new fans\)"
        assert re.search(why, scheduler.explain("g"))
        with pytest.raises(NoFitError, match=why):
            await restart
        await scheduler.undrain(host)
        world.operations.deactivate(world.agents[host].info.id)
        await asyncio.sleep(30)
        with pytest.raises(NoFitError, match=f"{host} is deactivated"):
            await scheduler.restart_task("g", "a", timeout=30)
        world.operations.reactivate(world.agents[host].info.id)
        await scheduler.restart_task("g", "a", timeout=60)
        assert launched_on(scheduler, "g")["a"] == host


@in_virtual_time
async def test_who_has_the_port_of_one_that_wants_it_back_is_told(tmp_path: Path) -> None:
    a = server("a", LOG, restart=Restart.IN_PLACE)
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a), timeout=60)
        host, port = scheduler.tasks("g")["a"].ports["p"]
        world.program("a").exit(1)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        old = launched_on(scheduler, "g")["a"]
        thief = server("t", LOG, request=replace(a.request, host=old))
        await scheduler.launch(physical("thief", thief), timeout=60)
        assert scheduler.tasks("thief")["t"].ports["p"] == (host, port)
        said = rf"a lacks ports:\[{port}-{port}\] on {old}, which t of thief has"
        with pytest.raises(NoFitError, match=said):
            await scheduler.restart_task("g", "a", timeout=30)


@in_virtual_time
async def test_a_restarted_task_that_dies_again_is_told_with_its_last_lines(tmp_path: Path) -> None:
    a = shell("a", "x", restart=Restart.IN_PLACE, critical=False)
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a, shell("b", "x")), timeout=60)
        world.programs["a"] = Program(refused="the image is gone")
        with pytest.raises(LaunchError, match="the image is gone"):
            await scheduler.restart_task("g", "a", timeout=30)
        assert scheduler.tasks("g")["b"].state is TaskState.READY
        assert set(world.running()) == {"g.b.0"}


@in_virtual_time
async def test_what_comes_to_light_of_an_earlier_attempt_is_no_news_of_this_one(
    tmp_path: Path,
) -> None:
    """The last lines of its log can come when the next one is up, which must not count as dead then."""
    a = server("a", LOG, restart=Restart.IN_PLACE)
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a), timeout=60)
        first = scheduler._runs.entry("g.a.0")
        assert first is not None
        world.program("a").exit(3)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        await scheduler.restart_task("g", "a", timeout=60)
        told: list[Change] = []
        scheduler.subscribe(told.append)
        scheduler._effects.task_changed(first)
        assert told == []
        scheduler._effects.task_changed(scheduler._runs.entry("g.a.1") or first)
        assert told == [TaskChanged(scheduler.tasks("g")["a"])]


@in_virtual_time
async def test_a_restart_that_is_cancelled_or_overtaken_leaves_nothing(tmp_path: Path) -> None:
    a = server("a", LOG, restart=Restart.IN_PLACE)
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a, shell("b", "x")), timeout=60)
        world.programs["a"] = Program(up=1000.0)
        first = asyncio.create_task(scheduler.restart_task("g", "a", timeout=30))
        await until(lambda: "g.a.1" in world.running())
        with pytest.raises(RestartError, match="is being restarted"):
            await scheduler.restart_task("g", "a", timeout=30)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await until(lambda: set(world.running()) == {"g.b.0"})
        assert not scheduler.tasks("g")["a"].expected_death, "the graph ought to have it"
        second = asyncio.create_task(scheduler.restart_task("g", "a", timeout=30))
        await until(lambda: "g.a.2" in world.running())
        await scheduler.stop("g")
        with pytest.raises(LaunchError, match="it is taken down"):
            await second
        assert world.running() == {}


@in_virtual_time
async def test_what_cannot_be_restarted_is_refused_with_the_reason(tmp_path: Path) -> None:
    a = server("a", LOG, restart=Restart.IN_PLACE)
    b = server("b", LOG, needs="a")
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        graph = physical("g", a, b, edges=needs("b", "a"))
        launch = asyncio.create_task(scheduler.launch(graph, timeout=60))
        await until(lambda: bool(world.running()))
        with pytest.raises(RestartError, match="the graph is launching"):
            await scheduler.restart_task("g", "a", timeout=30)
        await launch
        for graph_id, name, why in (
            ("h", "a", "no graph h"),
            ("g", "z", "no such task"),
            ("g", "b", "not made to be restarted"),
            ("g", "a", r"b would have to be restarted too, because it must be dead before a"),
        ):
            with pytest.raises(RestartError, match=why):
                await scheduler.restart_task(graph_id, name, timeout=30)
        assert set(world.running()) == {"g.a.0", "g.b.0"}


kinds = st.sampled_from(EdgeKind)
numbers = st.integers(0, 5)


@given(
    st.lists(st.tuples(numbers, numbers, kinds), max_size=15),
    st.lists(st.sampled_from(Restart), min_size=6, max_size=6),
    st.sets(numbers),
)
def test_a_plan_is_closed_and_nothing_in_it_is_forbidden(
    pairs: list[tuple[int, int, EdgeKind]], policies: list[Restart], alive: set[int]
) -> None:
    tasks = tuple(shell(f"t{n}", "x") for n in range(6))
    edges = tuple(Edge(f"t{a}", f"t{b}", kind) for a, b, kind in pairs)
    policy = {f"t{n}": p for n, p in enumerate(policies)}
    living = {f"t{n}" for n in alive}
    index = EdgeIndex(LogicalGraph("g", tasks, edges))
    try:
        plan = plan_restart("t0", index, policy, living)
    except RestartError:
        assert Restart.NEVER in policies
        return
    names = set(plan.names)
    assert "t0" in names and len(names) == len(plan.names)
    assert all(policy[name] is not Restart.NEVER for name in names)
    assert names - {"t0"} == set(plan.because) <= living
    for edge in edges:
        if edge.target not in names or edge.source not in living:
            continue
        told = edge.kind in (EdgeKind.PORT, EdgeKind.RESOURCES, EdgeKind.RESOLVED)
        if told and policy[edge.target] in (Restart.ANYWHERE, Restart.SAME_AGENT):
            assert edge.source in names
        if edge.kind is EdgeKind.KILL and edge.target in living:
            assert edge.source in names


@in_virtual_time
async def test_a_restarted_task_keeps_its_distance_to_those_that_run_on(tmp_path: Path) -> None:
    """What relates tasks of a graph holds to those that were never stopped."""
    small = TaskRequest.of(cpus=0.1, mem_mib=16, apart=(Apart("b"),))
    a = shell("a", "x", restart=Restart.ANYWHERE, request=small)
    b = shell("b", "x", request=TaskRequest.of(cpus=0.1, mem_mib=16))
    async with World(tmp_path, agents=2) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a, b), timeout=60)
        for _ in range(3):
            await scheduler.restart_task("g", "a", timeout=60)
            hosts = launched_on(scheduler, "g")
            assert hosts["a"] != hosts["b"]
        await scheduler.drain(hosts["a"])
        with pytest.raises(NoFitError):
            await scheduler.restart_task("g", "a", timeout=30)
