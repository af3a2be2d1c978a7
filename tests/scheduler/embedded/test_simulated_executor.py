"""Simulated tasks in virtual time, seen by a framework."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from scheduler.embedded.agent import Agent
from scheduler.embedded.executors.simulated import LABEL, Script, SimulatedExecutor
from scheduler.embedded.master import Settings
from tests.scheduler.embedded.conftest import Bench, Scheduler, make_task


class World:
    """A bench whose only agent simulates."""

    def __init__(self, bench: Bench, scheduler: Scheduler) -> None:
        self.bench = bench
        self.scheduler = scheduler

    async def launch(self, task_id: str, **script: Any) -> None:
        """Launch a task with a script and acknowledge what comes at once."""
        scheduler = self.scheduler
        scheduler.read()
        while not scheduler.offers:
            await self.advance(1.0)
        offer = next(iter(scheduler.offers.values()))
        labels = [{"key": LABEL, "value": json.dumps(script)}] if script else []
        document = make_task(task_id, offer, labels={"labels": labels})
        await scheduler.accept([offer["id"]["value"]], document)
        await scheduler.acknowledge_all()

    async def advance(self, seconds: float) -> None:
        await self.bench.advance(seconds)
        await self.bench.settle()
        await self.scheduler.acknowledge_all()

    def states(self, task_id: str) -> list[str]:
        return [s.removeprefix("TASK_") for s in dict.fromkeys(self.scheduler.states(task_id))]

    def last(self, task_id: str) -> dict[str, Any]:
        return [u for u in self.scheduler.updates if u["task_id"]["value"] == task_id][-1]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    bench = Bench(1, Settings(), tmp_path)
    record = next(iter(bench.master.agents.values()))
    simulated = SimulatedExecutor(bench.clock)
    record.agent = Agent(
        record.info, simulated, bench.master, bench.clock, work_dir=tmp_path, spawn=bench.spawn
    )
    return World(bench, await bench.subscribe())


async def test_a_task_takes_the_time_of_its_script(world: World) -> None:
    await world.launch("t", launch=2.0, start=3.0, run=5.0, exit_status=3)
    assert world.states("t") == []
    await world.advance(2.0)
    assert world.states("t") == ["STARTING"]
    await world.advance(3.0)
    assert world.states("t") == ["STARTING", "RUNNING"]
    await world.advance(4.9)
    assert world.states("t") == ["STARTING", "RUNNING"]
    await world.advance(0.2)
    assert world.states("t") == ["STARTING", "RUNNING", "FAILED"]
    assert world.last("t")["message"] == "Command exited with status 3"


async def test_without_a_script_it_runs_until_it_is_killed(world: World) -> None:
    await world.launch("t")
    await world.advance(1000.0)
    assert world.states("t") == ["STARTING", "RUNNING"]
    await world.scheduler.call("KILL", task_id={"value": "t"})
    await world.advance(0.0)
    assert world.states("t")[-2:] == ["KILLING", "KILLED"]
    assert world.last("t")["message"] == "Command terminated with signal Terminated"


async def test_who_ignores_the_term_gets_a_kill_and_who_hangs_in_the_kernel_stays(
    world: World,
) -> None:
    await world.launch("stubborn", stop=1e9)
    await world.launch("stuck", stop=1e9, unkillable=True)
    for name in ("stubborn", "stuck"):
        await world.scheduler.call("KILL", task_id={"value": name})
    await world.advance(2.9)
    assert world.states("stubborn")[-1] == "KILLING"
    await world.advance(0.2)
    assert world.last("stubborn")["message"] == "Command terminated with signal Killed"
    await world.advance(1000.0)
    assert world.states("stuck")[-1] == "KILLING"


@pytest.mark.parametrize(
    ("script", "reason", "source"),
    [
        ({"run": 1.0, "out_of_memory": True}, "REASON_CONTAINER_LIMITATION_MEMORY", "AGENT"),
        ({"run": 1.0, "executor_lost": True}, "REASON_EXECUTOR_TERMINATED", "AGENT"),
        ({"launch_error": "no"}, "REASON_CONTAINER_LAUNCH_FAILED", "AGENT"),
        ({"nonsense": 1}, "REASON_CONTAINER_LAUNCH_FAILED", "AGENT"),
        ({"run": "long"}, "REASON_CONTAINER_LAUNCH_FAILED", "AGENT"),
        ({"run": 1.0, "exit_status": -11}, None, "EXECUTOR"),
    ],
)
async def test_it_fails_as_its_script_says(
    world: World, script: dict[str, Any], reason: str | None, source: str
) -> None:
    await world.launch("t", **script)
    await world.advance(2.0)
    last = world.last("t")
    assert (last["state"], last.get("reason")) == ("TASK_FAILED", reason)
    assert last["source"] == f"SOURCE_{source}"
    assert ("limitation" in last) == (reason == "REASON_CONTAINER_LIMITATION_MEMORY")


@pytest.mark.parametrize("stage", ["launch", "start"])
async def test_a_task_that_never_comes_up_can_be_killed(world: World, stage: str) -> None:
    await world.launch("t", **{stage: math.inf})
    await world.advance(1000.0)
    assert "RUNNING" not in world.states("t")
    await world.scheduler.call("KILL", task_id={"value": "t"})
    await world.advance(0.1)
    assert world.last("t")["state"] == "TASK_KILLED"
    during = world.last("t").get("reason") == "REASON_TASK_KILLED_DURING_LAUNCH"
    assert during == (stage == "launch")


def test_a_script_knows_its_fields() -> None:
    assert Script.from_label('{"run": 3}').run == 3
    for text in ("[]", '{"stop": -1}', '{"unkillable": 1}', '{"exit_status": 256}', "{"):
        with pytest.raises(ValueError, match=r"."):
            Script.from_label(text)
