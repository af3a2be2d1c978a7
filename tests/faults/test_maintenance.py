"""Agents that take no tasks: due for maintenance, drained by us, drained by Mesos."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.closures import Closures, Window, read_window, stay
from scheduler.errors import NoFitError
from scheduler.graph import TaskTemplate
from scheduler.journal import MemoryJournal
from scheduler.requests import TaskRequest
from scheduler.service import Scheduler
from scheduler.task import TaskState
from scheduler.topology import AgentSnapshot, merge_offers
from tests.faults.virtual import Program, World, in_virtual_time, launched_on, until
from tests.scheduler.programs import physical, shell
from tests.scheduler.test_roles import offer

HALF = TaskRequest.of(cpus=1, mem_mib=16)


def window(host: str, in_seconds: float, seconds: float = 3600.0) -> dict[str, Any]:
    start = int((time.time() + in_seconds) * 1e9)
    unavailability = {
        "start": {"nanoseconds": start},
        "duration": {"nanoseconds": int(seconds * 1e9)},
    }
    machine = {"hostname": host, "ip": "127.0.0.1"}
    return {"machine_ids": [machine], "unavailability": unavailability}


def close(world: World, *hosts: str, in_seconds: float = 600.0) -> None:
    world.master.maintenance.schedule({"windows": [window(h, in_seconds) for h in hosts]})


def task(name: str, **changes: Any) -> TaskTemplate:
    return shell(name, "x", request=HALF, **changes)


async def hosts_of(scheduler: Scheduler, graph_id: str, *tasks: TaskTemplate) -> set[str]:
    await scheduler.launch(physical(graph_id, *tasks), timeout=60)
    return set(launched_on(scheduler, graph_id).values())


@in_virtual_time
async def test_what_would_run_into_a_window_is_not_placed_there(tmp_path: Path) -> None:
    async with World(tmp_path, agents=2) as world, world.scheduler() as scheduler:
        close(world, "agent0")
        four = [task(f"t{n}") for n in range(4)]
        with pytest.raises(NoFitError, match=r"agent0.*due for maintenance from .* UTC"):
            await scheduler.launch(physical("service", *four), timeout=30)
        assert await hosts_of(scheduler, "two", *four[:2]) == {"agent1"}
        too_long = task("t", max_run_time=580.0)
        with pytest.raises(NoFitError):
            await scheduler.launch(physical("long", too_long), timeout=30)
        assert await hosts_of(scheduler, "short", task("t", max_run_time=400.0)) == {"agent0"}
        tolerant = task("t", tolerates_maintenance=True)
        assert await hosts_of(scheduler, "tolerant", tolerant) == {"agent0"}
        (view,) = (v for v in scheduler.agents() if v.host == "agent0")
        assert view.maintenance is not None
        assert view.maintenance.end - view.maintenance.start == pytest.approx(3600, abs=1)


@in_virtual_time
async def test_a_window_that_is_taken_back_or_past_closes_nothing(tmp_path: Path) -> None:
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        close(world, "agent0", in_seconds=-7200)
        assert await hosts_of(scheduler, "past", task("t")) == {"agent0"}
        close(world, "agent0")
        launch = asyncio.create_task(scheduler.launch(physical("g", task("t")), timeout=120))
        await until(lambda: "maintenance" in scheduler.explain("g"))
        close(world)
        await launch


@in_virtual_time
async def test_inverse_offers_are_answered_by_what_we_hold(tmp_path: Path) -> None:
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", task("service")), timeout=60)
        close(world, "agent0")
        await until(lambda: bool(world.called("DECLINE_INVERSE_OFFERS")))
        assert world.called("ACCEPT_INVERSE_OFFERS") == []
        await until(lambda: len(world.called("DECLINE_INVERSE_OFFERS")) == 2)
        short = task("short", max_run_time=100.0, tolerates_maintenance=False)
        await scheduler.launch(physical("b", short), timeout=60)
        await scheduler.stop("g")
        await until(lambda: bool(world.called("ACCEPT_INVERSE_OFFERS")))
        assert set(world.running()) == {"b.short.0"}


@in_virtual_time
async def test_a_reason_is_one_line(tmp_path: Path) -> None:
    """It is told in explanations and logs, and on terminals."""
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        await scheduler.drain("agent0", "a fan\nis loud \x1b[31m, s’il vous plaît")
        await until(
            lambda: (
                [v.drained for v in scheduler.agents()] == ["a fan is loud  [31m, s’il vous plaît"]
            )
        )


@in_virtual_time
async def test_a_drained_host_gets_nothing_new_and_that_is_remembered(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with World(tmp_path, agents=2) as world:
        async with world.scheduler(journal) as first:
            assert len(await hosts_of(first, "before", task("a"), task("b"), task("c"))) == 2
            await first.drain("agent0", "its fan is loud")
            assert (await journal.load()).drained == {"agent0": "its fan is loud"}
        async with world.scheduler(journal) as second:
            await until(lambda: len(second.agents()) == 2)
            (view,) = (v for v in second.agents() if v.host == "agent0")
            assert view.drained == "its fan is loud"
            assert {v.state for v in second.tasks("before").values()} == {TaskState.READY}
            await second.stop("before")
            assert await hosts_of(second, "after", task("a"), task("b")) == {"agent1"}
            launch = asyncio.create_task(second.launch(physical("g", task("t")), timeout=120))
            await until(lambda: "drained (its fan is loud)" in second.explain("g"))
            await second.undrain("agent0")
            await launch
            assert set(launched_on(second, "g").values()) == {"agent0"}
            assert (await journal.load()).drained == {}


@in_virtual_time
async def test_agents_that_mesos_drains_or_deactivates_are_shown(tmp_path: Path) -> None:
    async with World(tmp_path, agents=3) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", task("t")), timeout=60)
        (host,) = launched_on(scheduler, "g").values()
        others = [h for h in ("agent0", "agent1", "agent2") if h != host]
        world.operations.drain(world.agents[host].info.id, None, mark_gone=False)
        world.operations.deactivate(world.agents[others[0]].info.id)

        def conditions() -> dict[str, str]:
            return {view.host: view.condition for view in scheduler.agents()}

        await until(lambda: conditions().get(host) in ("draining", "drained"))
        await until(lambda: conditions().get(others[0]) == "deactivated")
        await until(lambda: scheduler.tasks("g")["t"].state is TaskState.DEAD)
        await until(lambda: conditions().get(host) == "drained")
        assert conditions()[others[1]] == ""
        assert not scheduler.tasks("g")["t"].expected_death
        assert await hosts_of(scheduler, "h", task("t")) == {others[1]}


@in_virtual_time
async def test_an_agent_is_given_back_once_nothing_of_ours_will_be_there(tmp_path: Path) -> None:
    """Counted from when a node of a batch began, and also when the window has begun."""
    async with World(tmp_path, agents=1) as world, world.scheduler() as scheduler:
        world.programs["t"] = Program(runs=395.0)
        node = task("t", max_run_time=400.0)
        batch = asyncio.create_task(scheduler.run_batch(physical("b", node), timeout=1000))
        await until(lambda: len(world.running()) == 1)
        close(world, "agent0", in_seconds=100.0)
        await asyncio.sleep(250)
        assert not world.called("ACCEPT_INVERSE_OFFERS")
        await asyncio.sleep(130)
        assert world.called("ACCEPT_INVERSE_OFFERS"), "it ends 100 s from now at the latest"
        await batch
        world.calls.clear()
        inverse = {
            "id": {"value": "i"},
            "agent_id": {"value": world.agents["agent0"].info.id},
            "unavailability": {"start": {"nanoseconds": 1}},
        }
        world.drivers[0].hear("INVERSE_OFFERS", inverse_offers=[inverse])
        await asyncio.sleep(1)
        assert world.called("ACCEPT_INVERSE_OFFERS"), "nothing of ours is there"


# ---------------------------------------------------------------------- pure

SECONDS = st.floats(0, 1e6)


def snapshot() -> AgentSnapshot:
    return merge_offers([offer(1, "sdp", 1)]).agents[0]


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_no_task_overlaps_a_window(start: float, length: float, now: float, run: float) -> None:
    closures = Closures()
    announced = offer(1, "sdp", 1) | {
        "unavailability": {
            "start": {"nanoseconds": int(start * 1e9)},
            "duration": {"nanoseconds": int(length * 1e9)},
        }
    }
    assert closures.note([announced])
    assert not closures.note([announced])
    known = closures.window("S0")
    assert known is not None
    overlaps = now < known.end and now + run > known.start
    assert bool(closures.why_not(snapshot(), run, now)) is overlaps
    closures.note([offer(1, "sdp", 1)])
    assert closures.window("S0") is None


@pytest.mark.parametrize(
    "message",
    [
        {"unavailability": 3},
        {"unavailability": {}},
        {"unavailability": {"start": {"nanoseconds": "soon"}}},
        {"unavailability": {"start": {"nanoseconds": 1}, "duration": []}},
    ],
)
def test_a_window_that_cannot_be_read_counts_as_for_ever(message: dict[str, Any]) -> None:
    assert read_window(message) == Window(0.0)
    assert "UTC" in str(Window(0.0)) or str(Window(0.0))


def test_the_longest_task_says_how_long_the_agents_must_be_there() -> None:
    short, service = task("a", max_run_time=10.0, launch_timeout=5.0), task("b")
    tolerant = task("c", tolerates_maintenance=True)
    assert stay([short, tolerant]) == 15.0
    assert stay([short, service]) == float("inf")
    assert stay([]) == 0.0


def test_absurd_times_can_be_told() -> None:
    assert "no calendar" in str(Window(1e300))
