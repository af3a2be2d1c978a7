"""Those that wait for their place, while victims do not die, agents go, masters change and stores are away."""

from __future__ import annotations

import asyncio
from pathlib import Path

from scheduler.errors import JournalError
from scheduler.graph import Edge, EdgeKind
from scheduler.journal import MemoryJournal, TaskRecord
from scheduler.placement import Placement
from scheduler.policy import Queue
from scheduler.requests import TaskRequest
from tests.faults.virtual import NEVER, Clockwork, Program, World, in_virtual_time, until
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
    """A journal that takes a second for a placement, the first one in vain."""

    tried = 0

    async def record_placement(self, graph_id: str, placement: Placement) -> None:
        await asyncio.sleep(1)
        self.tried += 1
        if self.tried == 1:
            raise JournalError("the store is away")
        await super().record_placement(graph_id, placement)


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
        assert (state.graphs, state.placements, state.tasks, state.phases) == ({}, {}, {}, {})
