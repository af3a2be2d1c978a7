"""The table of faults, row by row, as far as the scheduler is concerned; see docs/faults.md."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler import removal
from scheduler.embedded.reconfiguration import ReconfigurationPolicy
from scheduler.errors import (
    FrameworkError,
    GraphError,
    JournalError,
    LaunchError,
    NeverFitsError,
    NoFitError,
)
from scheduler.graph import Edge, EdgeKind, LogicalGraph, PhysicalGraph, Restart, instantiate
from scheduler.journal import MemoryJournal, TaskRecord
from scheduler.permission import Refused
from scheduler.requests import TaskRequest
from scheduler.service import Scheduler
from scheduler.subscription import Timing
from scheduler.task import Outcome, TaskState
from scheduler.views import Change, LinkState, TaskChanged
from tests.conftest import PATIENCE
from tests.faults.virtual import NEVER, Program, World, in_virtual_time, small_agent, until
from tests.scheduler.programs import needs, physical, server, shell

LOG = Path("unused")
BIG = TaskRequest.of(cpus=1.5, mem_mib=16)


def pair(graph_id: str = "g") -> PhysicalGraph:
    """A server and one that needs it."""
    tasks = server("a", LOG), server("b", LOG, needs="a")
    return physical(graph_id, *tasks, edges=needs("b", "a"))


def ready(scheduler: Scheduler, graph_id: str = "g") -> bool:
    views = scheduler.tasks(graph_id).values()
    return bool(views) and {view.state for view in views} == {TaskState.READY}


def ids(scheduler: Scheduler, graph_id: str = "g") -> set[str]:
    return {view.task_id for view in scheduler.tasks(graph_id).values()}


def connected(scheduler: Scheduler) -> bool:
    return scheduler.link().state is LinkState.CONNECTED


async def everything_is_free(scheduler: Scheduler) -> None:
    await until(lambda: all(agent.free == agent.total for agent in scheduler.agents()))


# ---------------------------------------------------------------------- the master: rows 1 to 5


@pytest.mark.parametrize("kept", [True, False])
def test_row_1_another_master_leads_and_nothing_is_touched(tmp_path: Path, kept: bool) -> None:
    """With the registry of the first one, and without."""

    @in_virtual_time
    async def story() -> None:
        async with World(tmp_path) as world, world.scheduler() as scheduler:
            changes: list[Change] = []
            await scheduler.launch(pair(), timeout=60)
            framework_id, running = scheduler.framework_id, set(world.running())
            scheduler.subscribe(changes.append)
            registry = await world.lose_master()
            await until(lambda: not connected(scheduler), 5)
            await asyncio.sleep(10)
            world.calls.clear()
            await world.start_master(registry=registry if kept else None)
            began = asyncio.get_running_loop().time()
            await until(lambda: connected(scheduler))
            assert asyncio.get_running_loop().time() - began <= 15
            assert scheduler.framework_id == framework_id
            await asyncio.sleep(120)
            asked = [entry for call in world.called("RECONCILE") for entry in call["tasks"]]
            assert {entry["task_id"]["value"] for entry in asked} == running
            assert {"tasks": []} in world.called("RECONCILE")
            assert set(world.running()) == running
            assert ready(scheduler)
            assert world.called("KILL") == []
            assert not [c for c in changes if isinstance(c, TaskChanged) and c.view.death]

    story()


@in_virtual_time
async def test_row_1_offers_of_the_old_master_are_not_used(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        huge = physical("w", *(shell(f"t{n}", "x", request=BIG) for n in range(4)))
        waiting = asyncio.create_task(scheduler.launch(huge, timeout=300))
        await until(lambda: "cpus" in scheduler.explain("w").lower())
        registry = await world.lose_master()
        await until(lambda: not connected(scheduler))
        assert "no Mesos master since" in scheduler.explain("w")
        world.calls.clear()
        await world.start_master(registry=registry)
        await scheduler.launch(pair(), timeout=60)
        assert not [c for c in world.containers if c.task_id.endswith(".1")], "no try was in vain"
        await scheduler.stop("w")
        with pytest.raises(LaunchError):
            await waiting


@in_virtual_time
async def test_row_1_a_master_is_asked_again_after_growing_pauses_until_it_has_answered(
    tmp_path: Path,
) -> None:
    """It says nothing of tasks whose agents have not come back to it."""
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        now, asked = asyncio.get_running_loop().time, list[float]()

        def note(call: Mapping[str, Any]) -> None:
            if call.get("reconcile", {}).get("tasks"):
                asked.append(now())

        def silent(event: Mapping[str, Any]) -> int:
            return int("uuid" in event.get("update", {}).get("status", {"uuid": ""}))

        await world.lose_master()
        await until(lambda: not connected(scheduler))
        world.intercept, world.filter = note, silent
        await world.start_master()
        await asyncio.sleep(200)
        pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
        assert len(pauses) >= 3
        assert pauses == sorted(pauses) and pauses[-1] >= 4 * pauses[0]
        world.filter = lambda event: 1
        await asyncio.sleep(200)
        times = len(asked)
        await asyncio.sleep(200)
        assert len(asked) == times, "it has answered"
        assert ready(scheduler)


@pytest.mark.parametrize("fate", ["dropped", "lost", "unanswered", "refused"])
@pytest.mark.parametrize("times", [1, 2])
def test_row_2_a_launch_that_is_lost_on_its_way_leads_to_no_second_copy(
    tmp_path: Path, fate: str, times: int
) -> None:
    """Once: the graph comes up after all. Twice: it fails whole, in time, and nothing is left."""

    @in_virtual_time
    async def story() -> None:
        async with World(tmp_path) as world, world.scheduler() as scheduler:
            left = times

            def intercept(call: Mapping[str, Any]) -> str | None:
                nonlocal left
                if call["type"] != "ACCEPT" or left == 0:
                    return None
                left -= 1
                return fate

            world.intercept = intercept
            graph = physical("g", *(shell(n, "x", request=BIG) for n in "ab"))
            began = asyncio.get_running_loop().time()
            launch = asyncio.create_task(scheduler.launch(graph, timeout=60))
            await asyncio.wait((launch,), timeout=200)
            assert launch.done()
            assert asyncio.get_running_loop().time() - began < 130
            if launch.exception() is None:
                assert ready(scheduler)
                assert set(world.running()) == ids(scheduler)
                await scheduler.stop("g")
            else:
                assert isinstance(launch.exception(), LaunchError | NoFitError)
            await asyncio.sleep(60)
            assert world.running() == {}
            await everything_is_free(scheduler)
            names = [c.name for c in world.containers if c.alive]
            assert len(names) == len(set(names))

    story()


@in_virtual_time
async def test_row_3_no_master_for_ten_minutes(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        running = set(world.running())
        registry = await world.lose_master()
        await asyncio.sleep(300)
        began = asyncio.get_running_loop().time()
        with pytest.raises(FrameworkError, match=r"no Mesos master since \d{4}-\d\d-\d\d .* UTC"):
            await scheduler.launch(physical("h", shell("t", "x")), timeout=60)
        assert asyncio.get_running_loop().time() == began, "answered at once"
        await asyncio.sleep(300)
        assert ready(scheduler)
        world.calls.clear()
        await world.start_master(registry=registry)
        await until(lambda: connected(scheduler))
        await asyncio.sleep(60)
        assert set(world.running()) == running
        assert world.called("KILL") == []
        await scheduler.launch(physical("h", shell("t", "x")), timeout=60)


@in_virtual_time
async def test_row_5_a_removed_framework_stops_and_never_takes_another_id(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with World(tmp_path) as world:
        async with world.scheduler(journal) as scheduler:
            await scheduler.launch(pair(), timeout=60)
            huge = physical("w", *(shell(f"t{n}", "x", request=BIG) for n in range(4)))
            waiting = asyncio.create_task(scheduler.launch(huge, timeout=300))
            await until(lambda: "cpus" in scheduler.explain("w").lower())
            framework_id = scheduler.framework_id
            (framework,) = world.master.frameworks.values()
            world.master.remove_framework(framework)
            await until(lambda: scheduler.link().state is LinkState.LOST)
            with pytest.raises(FrameworkError, match="Framework has been removed"):
                await waiting
            with pytest.raises(FrameworkError, match="an operator must act"):
                await scheduler.launch(physical("h", shell("t", "x")), timeout=60)
            await asyncio.sleep(600)
            assert scheduler.link().state is LinkState.LOST
        async with world.scheduler(journal) as successor:
            await until(lambda: successor.link().state is LinkState.LOST)
            assert successor.link().reason == "Framework has been removed"
            await asyncio.sleep(600)
        assert (await journal.load()).framework_id == framework_id
        assert list(world.master.frameworks) == []


@in_virtual_time
async def test_row_5_an_operator_gives_the_id_up_and_the_next_scheduler_registers_anew(
    tmp_path: Path,
) -> None:
    journal = MemoryJournal()
    async with World(tmp_path) as world:
        async with world.scheduler(journal) as scheduler:
            await scheduler.launch(pair(), timeout=60)
            await scheduler.launch(physical("other", shell("t", "x")), timeout=60)
            old = scheduler.framework_id
            (framework,) = world.master.frameworks.values()
            world.master.remove_framework(framework)
            await until(lambda: scheduler.link().state is LinkState.LOST)
        lost = await removal.give_up(journal)
        assert {record.name for record in lost} == {"a", "b", "t"}
        assert await removal.give_up(journal) == [], "done once is done"
        async with world.scheduler(journal) as successor:
            await until(lambda: successor.link().state is LinkState.CONNECTED)
            assert successor.framework_id not in (None, old)
            deaths = {name: task.death for name, task in successor.tasks("g").items()}
            assert {str(death) for death in deaths.values()} == {f"lost: {removal.CAUSE}"}
            assert not world.running()
            await successor.launch(physical("h", shell("t", "x")), timeout=60)
            assert len(world.running()) == 1
            await successor.stop("h")
            assert {graph.graph_id for graph in successor.graphs()} <= {"g", "other"}
        assert not (await journal.load()).tasks


# ---------------------------------------------------------------------- agents: rows 6 to 9, 17, 32


@in_virtual_time
async def test_row_6_an_agent_restarts_and_its_tasks_live_on(tmp_path: Path) -> None:
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        running = set(world.running())
        world.agents.kill("agent0")
        await asyncio.sleep(30)
        world.agents.start(small_agent(0))
        await asyncio.sleep(60)
        assert set(world.running()) == running
        assert ready(scheduler)
        world.program("b").exit(3)  # and they are heard again
        await until(lambda: scheduler.tasks("g")["b"].state is TaskState.DEAD)


@in_virtual_time
async def test_row_7_a_dead_host_keeps_its_resources_until_mesos_says_gone(tmp_path: Path) -> None:
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        world.agents.freeze("agent0")
        await asyncio.sleep(200)
        views = scheduler.tasks("g")
        assert all(view.doubtful for view in views.values())
        assert {view.mesos_state for view in views.values()} == {"TASK_UNREACHABLE"}
        assert all(view.resources for view in views.values()), "nothing of it is given away"
        await asyncio.sleep(3600)
        assert ready(scheduler), "unreachable is not dead, however long"
        world.operations.mark_gone(world.agents["agent0"].info.id)
        await until(lambda: all(v.death is not None for v in scheduler.tasks("g").values()))
        deaths = {v.death.mesos_state for v in scheduler.tasks("g").values() if v.death}
        assert deaths == {"TASK_GONE_BY_OPERATOR"}


@in_virtual_time
async def test_row_7_a_host_that_dies_while_its_tasks_are_killed(tmp_path: Path) -> None:
    """It comes back without them: Mesos says so only to who asks and names the agent."""
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        spec = world.agents["agent0"].info.spec
        world.agents.reboot("agent0")
        stop = asyncio.create_task(scheduler.stop("g"))
        await asyncio.sleep(200)
        assert not stop.done(), "it may still run"
        world.agents.start(spec)
        async with asyncio.timeout(60):
            await stop
        assert world.running() == {}


@in_virtual_time
async def test_row_8_what_may_still_run_is_not_replaced(tmp_path: Path) -> None:
    a = shell("a", "x", restart=Restart.ANYWHERE, request=BIG)
    async with World(tmp_path, agents=2) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a), timeout=60)
        (container,) = world.running().values()
        world.agents.freeze(container.agent)
        await asyncio.sleep(200)
        assert scheduler.tasks("g")["a"].doubtful
        with pytest.raises(LaunchError, match="a could not be killed in time"):
            await scheduler.restart_task("g", "a", timeout=120)
        assert [c.task_id for c in world.containers] == ["g.a.0"]
        world.agents.thaw(container.agent)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        await scheduler.restart_task("g", "a", timeout=120)
        assert set(world.running()) == {"g.a.1"}


@in_virtual_time
async def test_row_9_of_a_task_and_its_replacement_exactly_one_survives(tmp_path: Path) -> None:
    """The old one was given up, because a master without a registry has never heard of it."""
    a = shell("a", "x", restart=Restart.ANYWHERE, request=BIG)
    async with World(tmp_path, agents=2) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", a), timeout=60)
        (old,) = world.running().values()
        world.agents.freeze(old.agent)
        await world.lose_master()
        await world.start_master()
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        death = scheduler.tasks("g")["a"].death
        assert death is not None and death.outcome is Outcome.LOST
        await scheduler.restart_task("g", "a", timeout=120)
        assert set(world.running()) == {"g.a.0", "g.a.1"}, "both run, and we know of one"
        world.agents.thaw(old.agent)
        await until(lambda: set(world.running()) == {"g.a.1"})
        assert ready(scheduler)


@in_virtual_time
async def test_row_17_an_agent_with_facts_that_do_not_parse_is_left_alone(tmp_path: Path) -> None:
    facts = {"sdp.schema": "1", "sdp.numa.0.cores": "nonsense"}
    specs = [replace(small_agent(0), attributes=facts), small_agent(1)]
    async with World(tmp_path, agents=specs) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        assert {c.agent for c in world.running().values()} == {"agent1"}
        await until(lambda: len(scheduler.agents()) == 2)
        bad, good = scheduler.agents()
        assert "nonsense" in bad.quarantine
        assert good.quarantine == ""


@in_virtual_time
async def test_row_17_what_runs_on_an_agent_that_cannot_be_read_any_more_says_so(
    tmp_path: Path,
) -> None:
    """It came back with facts that contradict each other; its tasks run on."""
    spec = replace(small_agent(0), attributes={"rack": "r1"})
    async with World(tmp_path, agents=[spec]) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        world.agents.kill("agent0")
        worse = replace(spec, attributes={**spec.attributes, "sdp.numa.0.cores": "nonsense"})
        world.agents.start(worse, ReconfigurationPolicy.ADDITIVE)
        await until(lambda: bool(scheduler.tasks("g")["a"].agent_trouble))
        assert "sdp.schema is missing" in scheduler.tasks("g")["a"].agent_trouble
        assert ready(scheduler)
        with pytest.raises(NoFitError, match=r"quarantined: .*sdp\.schema is missing"):
            await scheduler.launch(pair("h"), timeout=30)


@in_virtual_time
async def test_row_17_an_agent_that_returns_with_less_shows_it(tmp_path: Path) -> None:
    async with World(tmp_path, agents=2) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        world.agents.reboot("agent0")
        world.agents.start(small_agent(0, cpus=1), fresh=True)
        huge = physical("w", *(shell(f"t{n}", "x", request=BIG) for n in range(2)))
        with pytest.raises(NoFitError):
            await scheduler.launch(huge, timeout=60)
        totals = {a.host: a.total.scalars["cpus"] for a in scheduler.agents() if a.active}
        assert totals == {"agent0": 1000, "agent1": 2000}


# ---------------------------------------------------------------------- updates: rows 10 to 14


def only(state: str, times: int) -> Any:
    """Return a filter by which the updates of a state arrive so often: 0 only the first time."""
    seen: dict[str, int] = {}

    def arrives(event: Mapping[str, Any]) -> int:
        status = event.get("update", {}).get("status", {})
        if status.get("state") != state or "uuid" not in status:
            return 1
        seen[status["uuid"]] = seen.get(status["uuid"], 0) + 1
        return times if times or seen[status["uuid"]] == 1 else 1

    return arrives


@pytest.mark.parametrize("state", ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"])
@pytest.mark.parametrize("times", [0, 2, 5])
def test_rows_10_and_11_an_update_that_is_lost_or_comes_often(
    tmp_path: Path, state: str, times: int
) -> None:
    @in_virtual_time
    async def story() -> None:
        async with World(tmp_path) as world, world.scheduler() as scheduler:
            world.filter = only(state, times)
            changes: list[Change] = []
            scheduler.subscribe(changes.append)
            await scheduler.launch(pair(), timeout=60)
            await scheduler.stop("g")
            assert world.running() == {}
            states = [c.view.state for c in changes if isinstance(c, TaskChanged)]
            assert states.count(TaskState.DEAD) == 2
            uuids = [call["uuid"] for call in world.called("ACKNOWLEDGE")]
            assert all(uuids.count(uuid) == max(1, times) or uuid for uuid in uuids)
            await everything_is_free(scheduler)

    story()


@in_virtual_time
async def test_row_12_what_comes_after_a_terminal_update_changes_nothing(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(pair(), timeout=60)
        world.program("b").exit(3)
        await until(lambda: scheduler.tasks("g")["b"].state is TaskState.DEAD)
        death = scheduler.tasks("g")["b"].death
        (driver,) = world.drivers
        agent_id = scheduler.tasks("g")["b"].agent_id
        for state in ("TASK_RUNNING", "TASK_FINISHED", "TASK_LOST", "TASK_GONE", "TASK_UNKNOWN"):
            status = {
                "task_id": {"value": "g.b.0"},
                "agent_id": {"value": agent_id},
                "state": state,
            }
            driver._take({"type": "UPDATE", "update": {"status": status}})
        await asyncio.sleep(60)
        assert scheduler.tasks("g")["b"].death == death
        assert scheduler.tasks("g")["a"].state is TaskState.READY


@in_virtual_time
async def test_row_13_an_unknown_task_is_killed_once_the_records_are_loaded(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with World(tmp_path) as world:
        async with world.scheduler(journal) as first:
            await first.launch(pair("known"), timeout=60)
            await first.launch(pair("unknown"), timeout=60)
        await journal.forget_graph("unknown")
        async with world.scheduler(journal) as second:
            await until(lambda: set(world.running()) == {"known.a.0", "known.b.0"})
            await asyncio.sleep(60)
            assert ready(second, "known")
            killed = {call["task_id"]["value"] for call in world.called("KILL")}
            assert killed == {"unknown.a.0", "unknown.b.0"}


@in_virtual_time
async def test_row_14_acknowledgements_come_after_the_record_and_in_order(tmp_path: Path) -> None:
    """A slow journal slows the acknowledgements; nothing overtakes, and nothing is taken twice."""
    told: list[str] = []

    class Slow(MemoryJournal):
        async def record_task(self, record: TaskRecord) -> None:
            await asyncio.sleep(3)
            await super().record_task(record)
            told.append(f"recorded {record.task_id} {record.state.value}")

    async with World(tmp_path) as world, world.scheduler(Slow()) as scheduler:

        def intercept(call: Mapping[str, Any]) -> None:
            if call["type"] == "ACKNOWLEDGE":
                told.append(f"acknowledged {call['acknowledge']['task_id']['value']}")

        world.intercept = intercept
        await scheduler.launch(physical("g", shell("a", "x")), timeout=120)
        world.program("a").exit(3)
        await until(lambda: scheduler.tasks("g")["a"].state is TaskState.DEAD)
        await asyncio.sleep(30)
        assert told[-2:] == ["recorded g.a.0 dead", "acknowledged g.a.0"]
        assert len([line for line in told if line.startswith("recorded")]) == 5


@in_virtual_time
async def test_an_update_is_not_acknowledged_while_the_journal_is_away(tmp_path: Path) -> None:
    class Moody(MemoryJournal):
        away = False

        async def record_task(self, record: TaskRecord) -> None:
            if self.away:
                raise JournalError("the store is away")
            await super().record_task(record)

    journal = Moody()
    async with World(tmp_path) as world, world.scheduler(journal) as scheduler:
        await scheduler.launch(physical("g", shell("a", "x")), timeout=60)
        journal.away = True
        count = len(world.called("ACKNOWLEDGE"))
        world.program("a").exit(3)
        await asyncio.sleep(45)
        assert len(world.called("ACKNOWLEDGE")) == count
        journal.away = False
        await asyncio.sleep(60)
        assert len(world.called("ACKNOWLEDGE")) > count
        record = (await journal.load()).tasks["g.a.0"]
        assert record.death is not None and record.death.exit_status == 3


# ---------------------------------------------------------------------- offers: rows 15, 16, 28


@in_virtual_time
async def test_row_15_an_offer_is_rescinded_in_mid_launch_on_one_of_twelve(tmp_path: Path) -> None:
    agents = [small_agent(n) for n in range(12)]
    async with World(tmp_path, agents=agents) as world, world.scheduler() as scheduler:
        tasks = [shell(f"t{n}", "x", request=BIG) for n in range(12)]
        edges = tuple(Edge(f"t{n}", "t0", EdgeKind.READY) for n in range(1, 12))
        count = 0

        def intercept(call: Mapping[str, Any]) -> None:
            nonlocal count
            if call["type"] == "ACCEPT":
                count += 1
                if count == 7:
                    offers = [
                        world.master.desk.offers[i["value"]] for i in call["accept"]["offer_ids"]
                    ]
                    world.master.desk.withdraw(offers, rescind=True)

        world.intercept = intercept
        await scheduler.launch(physical("g", *tasks, edges=edges), timeout=120)
        assert ids(scheduler) == {f"g.t{n}.1" for n in range(12)}
        assert set(world.running()) == ids(scheduler)
        first = [c for c in world.containers if c.task_id.endswith(".0")]
        assert first
        assert not [c for c in first if c.answers], "none of them got its go-ahead"


@in_virtual_time
async def test_row_16_offers_are_given_back_after_a_while(tmp_path: Path) -> None:
    """So that others can use what a waiting graph cannot; and so that pieces come back as one."""
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", shell("t", "x", request=BIG)), timeout=60)
        three = physical("w", *(shell(f"t{n}", "x", request=BIG) for n in range(3)))
        world.calls.clear()
        waiting = asyncio.create_task(scheduler.launch(three, timeout=3600))
        await asyncio.sleep(600)
        given_back = world.called("DECLINE")
        assert len(given_back) >= 20
        assert {call["filters"]["refuse_seconds"] for call in given_back} == {1.0}
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@in_virtual_time
async def test_row_16_two_graphs_that_wait_do_not_block_each_other(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        first = physical("first", *(shell(f"t{n}", "x", request=BIG) for n in range(2)))
        await scheduler.launch(first, timeout=60)
        graphs = [
            physical(name, *(shell(f"t{n}", "x", request=BIG) for n in range(3))) for name in "xy"
        ]
        launches = [asyncio.create_task(scheduler.launch(g, timeout=3600)) for g in graphs]
        await asyncio.sleep(60)
        assert not any(launch.done() for launch in launches)
        await scheduler.stop("first")
        done, _ = await asyncio.wait(launches, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        assert len(done) == 1
        (up,) = (name for name in "xy" if ready(scheduler, name))
        await scheduler.stop(up)
        await asyncio.wait(launches, timeout=60)
        assert all(launch.done() and launch.exception() is None for launch in launches)


@in_virtual_time
async def test_row_28_names_of_hosts_are_never_looked_up(tmp_path: Path) -> None:
    """Offers carry addresses: a name that nobody can resolve harms neither its agent nor others."""
    specs = [replace(small_agent(0), hostname="no-such-host.invalid"), small_agent(1)]
    async with World(tmp_path, agents=specs) as world, world.scheduler() as scheduler:
        tasks = (server(f"t{n}", LOG, request=replace(BIG, ports=("p",))) for n in range(2))
        await scheduler.launch(physical("g", *tasks), timeout=60)
        hosts = {view.host for view in scheduler.tasks("g").values()}
        assert hosts == {"no-such-host.invalid", "agent1"}


# ---------------------------------------------------------------------- the store: row 20


@in_virtual_time
async def test_row_20_a_launch_waits_for_the_store_and_what_runs_is_not_touched(
    tmp_path: Path,
) -> None:
    class Moody(MemoryJournal):
        away = False

        async def record_graph(self, graph: PhysicalGraph) -> None:
            if self.away:
                raise JournalError("the store is away")
            await super().record_graph(graph)

    journal = Moody()
    async with World(tmp_path) as world, world.scheduler(journal) as scheduler:
        await scheduler.launch(pair("old"), timeout=60)
        journal.away = True
        launch = asyncio.create_task(scheduler.launch(pair("new"), timeout=120))
        await asyncio.sleep(60)
        assert set(world.running()) == {"old.a.0", "old.b.0"}
        assert ready(scheduler, "old")
        journal.away = False
        await launch
        assert ready(scheduler, "new")


@in_virtual_time
async def test_row_20_a_graph_that_ends_while_the_store_is_away_is_forgotten_later(
    tmp_path: Path,
) -> None:
    class Moody(MemoryJournal):
        away = False

        async def forget_graph(self, graph_id: str) -> None:
            if self.away:
                raise JournalError("the store is away")
            await super().forget_graph(graph_id)

    journal = Moody()
    async with World(tmp_path) as world, world.scheduler(journal) as scheduler:
        await scheduler.launch(pair("old"), timeout=60)
        journal.away = True
        await scheduler.stop("old")
        await asyncio.sleep(60)
        assert set((await journal.load()).graphs) == {"old"}
        journal.away = False
        await asyncio.sleep(1)
        assert not (await journal.load()).graphs


# ---------------------------------------------------------------------- tasks: rows 23, 24, 26, 27


@in_virtual_time
async def test_row_23_a_task_exits_before_its_go_ahead(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        world.programs["a"] = Program(up=60.0)
        world.programs["b"] = Program(lines="the licence has expired\n")
        launch = asyncio.create_task(scheduler.launch(pair(), timeout=60))
        await until(lambda: len(world.running()) == 2)
        began = asyncio.get_running_loop().time()
        world.program("b").exit(3)
        with pytest.raises(LaunchError) as caught:
            await launch
        assert asyncio.get_running_loop().time() - began <= 5
        for said in ("task b on host agent", "exited with status 3", "the licence has expired"):
            assert said in str(caught.value)
        assert world.running() == {}
        await everything_is_free(scheduler)


@in_virtual_time
async def test_row_24_a_task_never_runs(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        world.programs["b"] = Program(start=NEVER)
        began = asyncio.get_running_loop().time()
        told = rf"task b on host agent.* was not ready within its {PATIENCE:g} s"
        with pytest.raises(LaunchError, match=told):
            await scheduler.launch(pair(), timeout=60)
        assert asyncio.get_running_loop().time() - began < PATIENCE + 20
        world.programs.clear()
        await asyncio.sleep(60)
        assert {c.name for c in world.running().values()} <= {"b"}


@in_virtual_time
async def test_row_26_dependants_are_started_once_however_readiness_flaps(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        a = server("a", LOG, ready=replace(server("a", LOG).ready, hold=3.0))
        b = server("b", LOG, needs="a")
        began = asyncio.get_running_loop().time()
        await scheduler.launch(physical("g", a, b, edges=needs("b", "a")), timeout=60)
        assert asyncio.get_running_loop().time() - began > 3.0
        assert len(world.program("b").answers) == 1
        assert [c.task_id for c in world.containers].count("g.b.0") == 1


@in_virtual_time
async def test_row_27_a_kill_that_is_not_obeyed(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        world.programs["b"] = Program(end=NEVER)
        await scheduler.launch(pair(), timeout=60)
        stop = asyncio.create_task(scheduler.stop("g"))
        await asyncio.sleep(60)
        assert not stop.done()
        views = scheduler.tasks("g")
        assert views["b"].state is TaskState.STOPPING
        assert views["b"].resources, "they stay booked"
        assert views["a"].state is TaskState.READY, "the one that it needs is not killed before"
        assert "b is stopping" in scheduler.explain("g")
        kills = [call["task_id"]["value"] for call in world.called("KILL")]
        assert kills.count("g.b.0") >= 10
        asked = [
            t["task_id"]["value"] for c in world.called("RECONCILE") for t in c.get("tasks", ())
        ]
        assert asked.count("g.b.0") >= 4, "Mesos may have told its end, and we have not heard it"
        world.program("b").exit(0)
        await stop
        assert world.running() == {}


@in_virtual_time
async def test_row_27_a_forced_end_waits_for_neither_order_nor_grace(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        world.programs["b"] = Program(end=NEVER)
        await scheduler.launch(pair(), timeout=60)
        stop = asyncio.create_task(scheduler.stop("g"))
        await asyncio.sleep(60)
        assert scheduler.tasks("g")["a"].state is TaskState.READY
        forced = asyncio.create_task(scheduler.stop("g", force=True))
        await until(lambda: "g.a.0" not in world.running())
        assert not stop.done(), "b does not obey, and stays booked"
        last = {call["task_id"]["value"]: call for call in world.called("KILL")}
        assert {call["kill_policy"]["grace_period"]["nanoseconds"] for call in last.values()} == {0}
        world.program("b").exit(0)
        await asyncio.gather(stop, forced)
        assert world.running() == {}


# ---------------------------------------------------------------------- rows 29, 31


@in_virtual_time
async def test_row_29_the_clock_on_the_wall_jumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", shell("t", "x", request=BIG)), timeout=60)
        three = physical("w", *(shell(f"t{n}", "x", request=BIG) for n in range(3)))
        began = asyncio.get_running_loop().time()
        waiting = asyncio.create_task(scheduler.launch(three, timeout=100))
        for jump in (3600.0, -7200.0):
            await asyncio.sleep(20)
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            await scheduler.launch(pair(f"g{int(jump > 0)}"), timeout=60)
        assert not waiting.done()
        with pytest.raises(NoFitError):
            await waiting
        assert asyncio.get_running_loop().time() - began == pytest.approx(100, abs=1)
        assert ready(scheduler, "g0") and ready(scheduler, "g1")


@in_virtual_time
async def test_row_31_absurd_graphs_are_refused_before_any_offer_is_used(tmp_path: Path) -> None:
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        many = LogicalGraph("many", tuple(shell(f"t{n}", "x") for n in range(10_000)))
        with pytest.raises(GraphError, match="10000 tasks"):
            instantiate(many, "many")
        edges = (Edge("a", "b", EdgeKind.READY), Edge("b", "a", EdgeKind.READY))
        with pytest.raises(GraphError, match="cycle") as caught:
            physical("round", shell("a", "{nonsense}"), shell("b", "x"), edges=edges)
        assert "nonsense" in str(caught.value), "all reasons"
        await until(lambda: len(scheduler.agents()) == 3)
        await asyncio.sleep(10)
        began = asyncio.get_running_loop().time()
        huge = shell("t", "x", request=TaskRequest.of(cpus=1000))
        with pytest.raises(NeverFitsError, match=r"(?i)cpu"):
            await scheduler.launch(physical("huge", huge), timeout=600)
        assert asyncio.get_running_loop().time() - began < 10
        assert world.called("ACCEPT") == []


class Operator:
    """Lets nothing be tried again before it says so."""

    def __init__(self) -> None:
        self.agrees = asyncio.Event()
        self.asked: list[bool] = []
        """Each time, whether the task was lost."""

    async def __call__(self, *, lost: bool, refused: Refused) -> None:
        self.asked.append(lost)
        if not self.agrees.is_set():
            refused("until the operator says so")
        await self.agrees.wait()


@in_virtual_time
async def test_row_32_a_retry_in_a_batch_waits_for_permission_whoever_leads(
    tmp_path: Path,
) -> None:
    """That takes nothing of the graph's time, and what has not failed goes on."""
    ends = Program(runs=5)
    edges = (Edge("c", "b", EdgeKind.FINISHED),)
    graph = physical("g", shell("a", "x"), shell("b", "x"), shell("c", "x"), edges=edges)
    terms: dict[str, Any] = {"timeout": 100}
    journal, before, after = MemoryJournal(), Operator(), Operator()
    async with World(tmp_path) as world:
        world.programs |= {"a": Program(runs=1, status=1), "b": ends, "c": ends}
        async with world.scheduler(journal) as scheduler:
            run = asyncio.create_task(scheduler.run_batch(graph, retries=before, **terms))
            await until(lambda: bool(before.asked))
            assert scheduler.tasks("g")["b"].state is not TaskState.DEAD
            await until(lambda: scheduler.tasks("g")["c"].state is TaskState.DEAD)
            view = scheduler.tasks("g")["a"]
            assert (view.task_id, view.state) == ("g.a.1", TaskState.PLANNED)
            assert view.held == "until the operator says so"
            assert scheduler.explain("g") == "a waits: until the operator says so"
        run.cancel()
        await asyncio.wait({run})
        world.programs["a"] = ends
        async with world.scheduler(journal, timing=Timing(adoption=60.0)) as scheduler:
            run = asyncio.create_task(scheduler.run_batch(graph, retries=after, **terms))
            await asyncio.sleep(150)
            assert scheduler.tasks("g")["a"].held and not run.done()
            assert world.running() == {}
            after.agrees.set()
            result = await run
        assert result.succeeded
        assert [c.task_id for c in world.containers] == ["g.a.0", "g.b.0", "g.c.0", "g.a.1"]
        assert (before.asked, after.asked) == ([False], [False])


@in_virtual_time
async def test_row_32_what_never_came_to_its_agent_was_not_lost_with_it(tmp_path: Path) -> None:
    """It waits for nobody to find out whether many agents were."""
    operator, fates = Operator(), iter(["dropped"])
    operator.agrees.set()
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        world.programs["a"] = Program(runs=1)
        world.intercept = lambda call: next(fates, None) if call["type"] == "ACCEPT" else None
        result = await scheduler.run_batch(
            physical("g", shell("a", "x")), attempts=1, timeout=100, retries=operator
        )
        assert result.succeeded and operator.asked == [False]
        assert [c.task_id for c in world.containers] == ["g.a.1"]


@in_virtual_time
async def test_row_32_what_was_lost_says_so_and_can_be_taken_down_while_it_waits(
    tmp_path: Path,
) -> None:
    operator = Operator()
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        graph = physical("g", shell("a", "x"))
        run = asyncio.create_task(scheduler.run_batch(graph, timeout=1e4, retries=operator))
        await until(lambda: bool(world.running()))
        world.operations.mark_gone(world.agents[world.program("a").agent].info.id)
        await until(lambda: bool(operator.asked))
        assert operator.asked == [True]
        await scheduler.stop("g")
        result = await run
        assert result.failed == ("a",)
        assert scheduler.graphs() == ()
