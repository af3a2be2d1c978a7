"""Those that wait for their place, while victims do not die, agents go, masters change and stores are away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.embedded import AgentSpec
from scheduler.errors import GraphError, JournalError, LaunchError, NeverFitsError, NoFitError
from scheduler.graph import Edge, EdgeKind, PhysicalGraph
from scheduler.journal import MemoryJournal, TaskRecord
from scheduler.packing import Explanation, Verdict
from scheduler.placement import Placement
from scheduler.policy import Queue
from scheduler.quantities import Resources
from scheduler.requests import TaskRequest
from scheduler.subscription import Timing
from scheduler.views import MadeRoom
from tests.faults.virtual import (
    NEVER,
    Clockwork,
    Program,
    World,
    in_virtual_time,
    small_agent,
    until,
)
from tests.scheduler.programs import physical, shell

ONE, TWO = (TaskRequest.of(cpus=cpus, mem_mib=16) for cpus in (1, 2))
PREEMPTING = (
    Queue(name="realtime", priority=100, preempts=True),
    Queue(name="batch", preemptible=True),
)


async def end(request: asyncio.Task[object]) -> None:
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


async def full_of_batch(world: World, nodes: int) -> None:
    await until(lambda: len(world.running()) == nodes)
    await asyncio.sleep(2)


@in_virtual_time
async def test_a_victim_that_does_not_die_holds_nobody_up(tmp_path: Path) -> None:
    async with World(tmp_path, agents=2) as world, world.scheduler(queues=PREEMPTING) as scheduler:
        nodes = (shell(f"n{n}", "x", request=TWO) for n in range(2))
        batch = asyncio.create_task(scheduler.run_batch(physical("b", *nodes), timeout=5000))
        await full_of_batch(world, 2)
        world.program("n0").program = Program(end=NEVER)
        await scheduler.launch(physical("g", shell("t", "x", request=TWO)), timeout=60)
        assert world.program("t").agent == "agent1", "the other had to go instead"
        await end(batch)


@in_virtual_time
async def test_nobody_is_ended_on_an_agent_that_is_not_there(tmp_path: Path) -> None:
    async with World(tmp_path, agents=2) as world, world.scheduler(queues=PREEMPTING) as scheduler:
        nodes = (shell(f"n{n}", "x", request=TWO) for n in range(2))
        batch = asyncio.create_task(scheduler.run_batch(physical("b", *nodes), timeout=5000))
        await full_of_batch(world, 2)
        lost = world.program("n0").agent
        world.disconnect(lost)
        await asyncio.sleep(10)
        await scheduler.launch(physical("g", shell("t", "x", request=TWO)), timeout=60)
        assert {c.name for c in world.running().values()} == {"n0", "t"}
        assert len(world.called("KILL")) == 1
        await end(batch)


@in_virtual_time
async def test_a_change_of_masters_makes_nothing_impossible(tmp_path: Path) -> None:
    """A new master does not know an agent that is slow to come back; nor does it list one that is lost."""
    async with World(tmp_path, agents=2) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("now", shell("t", "x", request=ONE)), timeout=60)
        large = physical("g", *(shell(f"n{n}", "x", request=TWO) for n in range(2)))
        launch = asyncio.create_task(scheduler.launch(large, timeout=900))
        await asyncio.sleep(10)
        registry = await world.lose_master()
        world.agents.freeze("agent1")
        await world.start_master(registry=registry)
        await asyncio.sleep(60)
        assert not launch.done()
        assert "agent1 (not at the master any more" in scheduler.explain("g")
        world.agents.thaw("agent1")
        await scheduler.stop("now")
        await launch


@in_virtual_time
async def test_a_batch_that_made_room_is_not_late_and_has_lost_no_attempt(tmp_path: Path) -> None:
    """However long the observation takes; also the nodes that had not begun lose nothing."""
    heard: list[MadeRoom] = []
    async with World(tmp_path, agents=1) as world, world.scheduler(queues=PREEMPTING) as scheduler:
        scheduler.subscribe(lambda c: heard.append(c) if isinstance(c, MadeRoom) else None)
        world.programs |= {f"n{n}": Program(runs=50.0) for n in range(3)}
        nodes = (shell(f"n{n}", "x", request=TWO) for n in range(3))
        batch = asyncio.create_task(
            scheduler.run_batch(physical("b", *nodes), attempts=1, timeout=200)
        )
        await full_of_batch(world, 1)
        await scheduler.launch(physical("g", shell("t", "x", request=TWO)), timeout=60)
        await asyncio.sleep(1000)
        assert not batch.done()
        await scheduler.stop("g")
        result = await batch
    assert result.succeeded
    assert [node.attempts for node in result.nodes.values()] == [1, 1, 1]
    (told,) = heard
    assert str(told) == (
        f"{told.names[0]} made room for g (queue realtime), which did not fit: "
        "to be run again, and no attempt is used up"
    )


@in_virtual_time
async def test_what_made_room_and_what_failed_is_known_to_a_successor(tmp_path: Path) -> None:
    """The controller dies while a victim ends: it counts as little as before, and a failure as much."""
    journal = MemoryJournal()
    graph = physical("b", shell("n", "x", request=TWO))
    async with World(tmp_path, agents=1) as world:
        async with world.scheduler(journal, queues=PREEMPTING) as scheduler:
            world.programs["n"] = Program(runs=5.0, status=1)
            batch = asyncio.create_task(scheduler.run_batch(graph, attempts=2, timeout=5000))
            await until(lambda: any(c.task_id == "b.n.1" for c in world.containers))
            world.program("n").program = Program(end=20.0)
            await asyncio.sleep(2)
            launch = asyncio.create_task(
                scheduler.launch(physical("g", shell("t", "x", request=TWO)), timeout=60)
            )
            await until(lambda: bool(world.called("KILL")))
        await end(batch)
        await end(launch)
        patient = {"queues": PREEMPTING, "timing": Timing(adoption=60)}
        async with world.scheduler(journal, **patient) as successor:
            world.programs["n"] = Program(runs=5.0)
            result = await successor.run_batch(graph, attempts=2, timeout=5000)
            node = result.nodes["n"]
            assert node.finished, node
            assert node.attempts == 2
            assert [attempt.preempted for attempt in node.history] == [True, False]
        async with world.scheduler(MemoryJournal(), queues=PREEMPTING) as other:
            world.programs["n"] = Program(runs=5.0, status=1)
            (failed,) = (await other.run_batch(graph, attempts=2, timeout=500)).nodes.values()
            assert failed.attempts == 2


@in_virtual_time
async def test_a_graph_keeps_its_queue_under_a_successor(tmp_path: Path) -> None:
    queues = (*PREEMPTING, Queue(name="engineering", priority=50))
    journal = MemoryJournal()
    async with World(tmp_path, agents=1) as world:
        async with world.scheduler(journal, queues=queues) as scheduler:
            await scheduler.launch(physical("now", shell("t", "x", request=ONE)), timeout=60)
            graph = physical("g", shell("u", "x", request=TWO))
            launch = asyncio.create_task(scheduler.launch(graph, timeout=600, queue="engineering"))
            await until(lambda: bool(scheduler.waiting()))
            await asyncio.sleep(1)
        await end(launch)
        async with world.scheduler(journal, queues=queues, timing=Timing(adoption=60)) as successor:
            with pytest.raises(GraphError, match="no queue 'express'"):
                await successor.resume("g", timeout=60, queue="express")
            launch = asyncio.create_task(successor.resume("g", timeout=600, queue="engineering"))
            await until(lambda: "engineering" in successor.waiting())
            await successor.stop("now")
            await launch


@in_virtual_time
async def test_a_graph_that_is_launched_in_a_preemptible_queue_takes_nothing_that_it_could_not_give_back(
    tmp_path: Path,
) -> None:
    """Whole graphs are never ended for others: what is kept for one that preempts is not for them."""
    async with World(tmp_path, agents=1) as world, world.scheduler(queues=PREEMPTING) as scheduler:
        await scheduler.launch(physical("now", shell("t", "x", request=ONE)), timeout=60)
        large = physical("large", shell("u", "x", request=TWO))
        first = asyncio.create_task(scheduler.launch(large, timeout=600))
        await asyncio.sleep(5)
        small = physical("small", shell("v", "x", request=ONE))
        second = asyncio.create_task(scheduler.launch(small, timeout=600, queue="batch"))
        await asyncio.sleep(30)
        assert not second.done(), scheduler.explain("large")
        await scheduler.stop("now")
        await first
        await scheduler.stop("large")
        await second


@in_virtual_time
async def test_a_batch_that_found_no_place_says_why(tmp_path: Path) -> None:
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("now", shell("t", "x", request=ONE)), timeout=60)
        graph = physical("b", shell("n", "x", request=TWO))
        (node,) = (await scheduler.run_batch(graph, timeout=60)).nodes.values()
        assert node.death is not None
        assert "cpus" in node.death.cause
        assert "the end of now (on agent0)" in node.death.cause


@in_virtual_time
async def test_a_batch_ends_when_its_time_is_up_whatever_does_not(tmp_path: Path) -> None:
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        world.programs["n"] = Program(end=NEVER)
        graph = physical("b", shell("n", "x"))
        clock = Clockwork()
        result = await scheduler.run_batch(graph, timeout=60)
        assert clock.elapsed < 90
        assert (
            result.nodes["n"].left == "b.n.0 on host agent0 does not end; Mesos says TASK_KILLING"
        )
        assert result.failed == ("n",)
        assert scheduler.graphs() == ("b",), "what runs is known, and killed on"
        world.program("n").exit(1)
        await until(lambda: scheduler.graphs() == ())


class Away(MemoryJournal):
    """A journal that is away for records of one task."""

    name = "skipped"

    async def record_task(self, record: TaskRecord) -> None:
        if record.name == self.name:
            raise JournalError("the store is away")
        await super().record_task(record)


@in_virtual_time
async def test_a_journal_that_is_away_costs_a_batch_nothing(tmp_path: Path) -> None:
    """A node that is skipped meanwhile does not end the others, or leave them to themselves."""
    async with World(tmp_path, agents=1) as world, world.scheduler(Away()) as scheduler:
        world.programs["fails"] = Program(runs=5.0, status=1)
        world.programs["works"] = Program(runs=50.0)
        graph = physical(
            "b",
            *(shell(name, "x") for name in ("fails", "skipped", "works")),
            edges=(Edge("skipped", "fails", EdgeKind.FINISHED),),
        )
        result = await scheduler.run_batch(graph, attempts=1, timeout=100)
        assert result.nodes["works"].finished
        assert result.nodes["skipped"].skipped == "fails did not finish"
        assert scheduler.graphs() == ()


@in_virtual_time
async def test_what_is_lost_before_it_runs_uses_up_no_attempt(tmp_path: Path) -> None:
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        accepts = iter(["refused", "refused"])
        world.intercept = lambda call: next(accepts, None) if call["type"] == "ACCEPT" else None
        world.programs["n"] = Program(runs=5.0)
        result = await scheduler.run_batch(physical("b", shell("n", "x")), attempts=1, timeout=100)
        assert result.succeeded
        assert (result.nodes["n"].attempts, len(result.nodes["n"].history)) == (1, 3)


@in_virtual_time
async def test_what_ends_on_a_drained_host_is_no_remedy(tmp_path: Path) -> None:
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("now", shell("t", "x", request=TWO)), timeout=60)
        await scheduler.drain("agent0", "new fans")
        waiting = physical("g", shell("t", "x", request=TWO))
        launch = asyncio.create_task(scheduler.launch(waiting, timeout=600))
        await asyncio.sleep(30)
        assert "the end of now" not in scheduler.explain("g")
        await end(launch)


@in_virtual_time
async def test_offers_are_asked_for_again_where_none_come(tmp_path: Path) -> None:
    """A REVIVE that is answered and does nothing: as by a master that is about to go."""
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("first", shell("t", "x", request=ONE)), timeout=60)
        lost = iter(["dropped"])
        world.intercept = lambda call: next(lost, None) if call["type"] == "REVIVE" else None
        clock = Clockwork()
        await scheduler.launch(physical("g", shell("u", "x", request=ONE)), timeout=600)
        assert clock.elapsed < 90


@in_virtual_time
async def test_nothing_is_written_of_a_batch_that_was_taken_down_while_the_store_was_away(
    tmp_path: Path,
) -> None:
    class Refusing(MemoryJournal):
        away = True

        async def record_graph(self, graph: PhysicalGraph) -> None:
            if self.away:
                raise JournalError("the store is away")
            await super().record_graph(graph)

    journal = Refusing()
    async with World(tmp_path, agents=1) as world, world.scheduler(journal) as scheduler:
        graph = physical("b", shell("n", "x"))
        batch = asyncio.create_task(scheduler.run_batch(graph, timeout=5000))
        await asyncio.sleep(5)
        await scheduler.stop("b")
        with pytest.raises(LaunchError, match="it is taken down"):
            await batch
        journal.away = False
        await asyncio.sleep(60)
        state = await journal.load()
        assert (state.graphs, state.phases, state.tasks) == ({}, {}, {})


@in_virtual_time
async def test_what_only_another_role_is_offered_starves_nobody(tmp_path: Path) -> None:
    """Mesos offers what is unreserved to one role of ours at a time, and to one that has nothing first."""
    queues = (Queue(name="batch", roles=("b",)), Queue(name="early", roles=("a",)))
    async with (
        World(tmp_path, agents=2) as world,
        world.scheduler(queues=queues, roles=("a", "b")) as scheduler,
    ):
        both = (shell(f"n{n}", "x", request=TWO) for n in range(2))
        clock = Clockwork()
        await scheduler.launch(physical("b", *both), timeout=60, queue="batch")
        assert clock.elapsed < 10
        assert {"roles": ["a"]} in world.called("SUPPRESS")
        late = physical("a", shell("t", "x", request=TWO))
        launch = asyncio.create_task(scheduler.launch(late, timeout=600, queue="early"))
        await asyncio.sleep(1)
        assert world.called("SUPPRESS")[-1] == {"roles": ["b"]}
        await scheduler.stop("b")
        await launch


def shared_agent(cpus: int = 0, **reserved: int) -> AgentSpec:
    """Return an agent with so many CPUs that are anybody's, and so many that are reserved for roles."""
    return replace(
        small_agent(0, cpus=cpus),
        reserved={
            role: Resources({"cpus": 1000 * of_role, "mem": 100_000})
            for role, of_role in reserved.items()
        },
    )


def asking(name: str, cpus: float) -> PhysicalGraph:
    request = TaskRequest.of(cpus=cpus, mem_mib=16)
    return physical(name, shell(f"{name}.t", "x", request=request))


@in_virtual_time
async def test_what_only_two_roles_together_have_is_refused_and_not_planned(tmp_path: Path) -> None:
    """No task draws in two roles; and who needs what one has does not wait behind one who asks for both."""
    async with (
        World(tmp_path, agents=[shared_agent(a=4, b=4)]) as world,
        world.scheduler(roles=("a", "b")) as scheduler,
    ):
        await asyncio.sleep(6)
        await scheduler.plan(asking("x", 6))
        await asyncio.sleep(6)
        plan = await scheduler.plan(asking("x", 6))
        assert isinstance(plan, Explanation) and plan.verdict is Verdict.NEVER
        assert "the most free on one agent is 4 (agent agent0 in role a)" in str(plan)
        assert isinstance(await scheduler.plan(asking("y", 4)), Placement)
        clock = Clockwork()
        launch = asyncio.create_task(scheduler.launch(asking("x", 6), timeout=600))
        await asyncio.sleep(0)
        await scheduler.launch(asking("y", 4), timeout=600)
        await scheduler.launch(asking("z", 4), timeout=600)
        with pytest.raises(NeverFitsError, match="in role a"):
            await launch
        assert clock.elapsed < 15


@in_virtual_time
async def test_what_is_unreserved_comes_in_the_role_in_which_it_is_needed(tmp_path: Path) -> None:
    """It is offered in the other role, which has less: there it is refused for a while."""
    async with (
        World(tmp_path, agents=[shared_agent(4, b=4)]) as world,
        world.scheduler(roles=("a", "b")) as scheduler,
    ):
        clock = Clockwork()
        await scheduler.launch(asking("x", 6), timeout=600)
        assert clock.elapsed < 15
        view = scheduler.task("x", "x.t")
        assert view is not None and view.assignment is not None and view.assignment.role == "b"
        plan = await scheduler.plan(asking("y", 2))
        assert isinstance(plan, Placement), "in role b, or what is left of it in role a"
        assert isinstance(await scheduler.plan(asking("y", 3)), Explanation)


@in_virtual_time
async def test_what_is_reserved_for_other_roles_is_told_where_it_would_have_done(
    tmp_path: Path,
) -> None:
    """Else a graph is refused beside an agent that everybody sees to have what it asks for."""
    queue = Queue(name="early", roles=("a",))
    agents = [shared_agent(others=4), replace(small_agent(1), default_role="b")]
    async with (
        World(tmp_path, agents=agents) as world,
        world.scheduler(queues=(queue,), roles=("a", "b")) as scheduler,
    ):
        with pytest.raises(NeverFitsError) as caught:
            await scheduler.launch(asking("x", 2), timeout=60, queue="early")
        told = (
            "agent0 (a part is reserved for role others)",
            "agent1 (a part is reserved for role b)",
        )
        assert all(line in str(caught.value) for line in told)
        plan = str(await scheduler.plan(asking("x", 2), queue="early"))
        assert all(line in plan for line in told)
        assert isinstance(await scheduler.plan(asking("x", 2)), Placement)


@in_virtual_time
async def test_where_nothing_is_offered_it_is_told_what_would_have_to_end(tmp_path: Path) -> None:
    """Everything of every agent is in use: then no offers come, and that alone helps nobody."""
    everything = TaskRequest.of(cpus=2, mem_mib=1024)
    async with World(tmp_path, agents=2) as world, world.scheduler() as scheduler:
        await scheduler.launch(
            physical("g", *(shell(f"t{n}", "x", request=everything) for n in range(2))), timeout=60
        )
        launch = asyncio.create_task(scheduler.launch(asking("x", 1), timeout=30))
        await until(lambda: "With any one of these" in scheduler.explain("x"))
        told = scheduler.explain("x")
        assert "cpus: x.t asks for 1, the most free on one agent is 0" in told
        assert "they can once enough has ended" in told and "the end of g" in told
        with pytest.raises(NoFitError, match="the end of g"):
            await launch
        for host in ("agent0", "agent1"):
            world.operations.deactivate(world.agents[host].info.id)
        await asyncio.sleep(10)
        with pytest.raises(NoFitError, match=r"Not counted: agent0 \(deactivated\)"):
            await scheduler.launch(asking("y", 1), timeout=30)


@in_virtual_time
async def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    """Nothing is ever later than NaN: it waited for ever."""
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await asyncio.sleep(5)
        nan = float("nan")
        for request in (
            scheduler.launch(asking("x", 9), timeout=nan),
            scheduler.run_batch(asking("x", 9), timeout=nan),
            scheduler.restart_task("x", "x.t", timeout=nan),
        ):
            with pytest.raises(GraphError, match="not a number of seconds"):
                await request
        assert scheduler.graphs() == ()


@in_virtual_time
async def test_what_others_have_reserved_is_not_missed_twice(tmp_path: Path) -> None:
    """A queue that is limited to a role, on an agent of which a part is another framework's."""
    queue = Queue(name="early", roles=("a",))
    async with (
        World(tmp_path, agents=[shared_agent(4, others=4)]) as world,
        world.scheduler(queues=(queue,), roles=("a", "b")) as scheduler,
    ):
        await scheduler.launch(asking("x", 3), timeout=60, queue="early")
        assert isinstance(await scheduler.plan(asking("y", 1), queue="early"), Placement)
        await asyncio.sleep(6)
        late = asyncio.create_task(scheduler.launch(asking("y", 3), timeout=60, queue="early"))
        await asyncio.sleep(20)
        await scheduler.stop("x")
        await late


@in_virtual_time
async def test_offers_are_wanted_while_somebody_waits_and_only_then(tmp_path: Path) -> None:
    """Also by a subscription that follows another: Mesos remembers nothing of what was suppressed."""
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:

        def wanted() -> str:
            return next(c["type"] for c in world.calls[::-1] if c["type"] in ("REVIVE", "SUPPRESS"))

        await asyncio.sleep(5)
        assert wanted() == "SUPPRESS"
        await scheduler.launch(physical("now", shell("t", "x", request=ONE)), timeout=60)
        assert wanted() == "SUPPRESS"
        launch = asyncio.create_task(
            scheduler.launch(physical("g", shell("t", "x", request=TWO)), timeout=600)
        )
        await asyncio.sleep(45)
        assert wanted() == "REVIVE"
        refused = [call["filters"]["refuse_seconds"] for call in world.called("DECLINE")]
        assert refused[-2:] == [1.0, 1.0], "while somebody waits, offers come back at once"
        await end(launch)
        await asyncio.sleep(5)
        for _ in range(2):
            assert wanted() == "SUPPRESS"
            assert scheduler.offers_held == 0
            calls = len(world.calls)
            await asyncio.sleep(300)
            assert {call["type"] for call in world.calls[calls:]} <= {"RECONCILE"}
            world.cut()
            calls = len(world.calls)
            await asyncio.sleep(20)
            assert "SUPPRESS" in {call["type"] for call in world.calls[calls:]}


@in_virtual_time
async def test_everything_is_reconciled_every_ten_minutes(tmp_path: Path) -> None:
    """First by name, with the agents, then whatever Mesos knows."""
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("now", shell("t", "x")), timeout=60)
        await asyncio.sleep(60)
        before = len(world.called("RECONCILE"))
        await asyncio.sleep(1800)
        asked = [call["tasks"] for call in world.called("RECONCILE")[before:]]
        agent = world.agents["agent0"].info.id
        named = [{"task_id": {"value": "now.t.0"}, "agent_id": {"value": agent}}]
        assert asked in ([named, []] * 2, [named, []] * 3)


class Slow(MemoryJournal):
    """A journal that takes a second for a task, the first time in vain."""

    tried = 0

    async def record_task(self, record: TaskRecord) -> None:
        await asyncio.sleep(1)
        self.tried += 1
        if self.tried == 1:
            raise JournalError("the store is away")
        await super().record_task(record)


@in_virtual_time
async def test_nothing_is_left_of_a_graph_that_is_stopped_while_it_is_recorded(
    tmp_path: Path,
) -> None:
    journal = Slow()
    async with World(tmp_path, agents=1) as world, world.scheduler(journal) as scheduler:
        graph = physical("g", shell("t", "x", request=TWO))
        launch = asyncio.create_task(scheduler.launch(graph, timeout=600))
        await until(lambda: journal.tried == 1)
        await scheduler.stop("g")
        await asyncio.gather(launch, return_exceptions=True)
        state = await journal.load()
        assert (state.graphs, state.tasks, state.phases) == ({}, {}, {})
