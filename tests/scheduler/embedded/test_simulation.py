"""A whole cluster in virtual time: the same every time, and an hour in seconds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time

import pytest

from scheduler.embedded.executors import Launch
from scheduler.embedded.executors.simulated import Script
from scheduler.embedded.simulation import Simulation
from scheduler.embedded.virtual_loop import StandstillError, run
from tests.scheduler.embedded.frameworks import Watcher, agents, watched

HOUR = 3600.0


async def keep_busy(framework: Watcher, hosts: list[str]) -> None:
    """Launch a task on every agent again and again."""
    number = 0
    while True:
        for host in hosts:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await framework.launch(f"{host}-{number}", host)
        number += 1
        await asyncio.sleep(20.0)


async def an_hour(seed: int) -> list[str]:
    """An hour in which agents are lost, restarted, cut off, and the master fails over; the events."""
    chance = random.Random(seed)

    def script(launch: Launch) -> Script:
        return Script(
            start=chance.uniform(0, 2),
            run=chance.uniform(5, 300),
            exit_status=chance.choice((0, 3)),
        )

    specs = agents(10)
    names = [spec.hostname for spec in specs]
    async with (
        Simulation(specs, seed=seed, script=script) as cluster,
        watched(cluster) as framework,
    ):
        busy = asyncio.create_task(keep_busy(framework, names))
        while framework.now < HOUR:
            await asyncio.sleep(chance.uniform(30, 120))
            victim = chance.choice(names)
            match chance.randrange(4):
                case 0:
                    cluster.faults.lose_machine(victim)
                    await asyncio.sleep(chance.uniform(5, 200))
                    cluster.faults.start_agent(victim)
                case 1:
                    await cluster.faults.restart_agent(victim)
                case 2:
                    cluster.faults.partition(victim)
                    await asyncio.sleep(chance.uniform(5, 200))
                    cluster.faults.heal(victim)
                case _:
                    await cluster.faults.fail_over()
        busy.cancel()
        return [json.dumps(event) for event in framework.events]


def test_two_runs_with_one_seed_are_the_same_and_an_hour_takes_seconds() -> None:
    begin = time.process_time()
    first = run(an_hour(1))
    took = time.process_time() - begin
    assert took < 30.0  # about 2 s on a free core
    assert run(an_hour(1)) == first
    states = {
        state
        for state in ("RUNNING", "FAILED", "FINISHED", "UNREACHABLE")
        if any(f'"TASK_{state}"' in e for e in first)
    }
    assert states == {"RUNNING", "FAILED", "FINISHED", "UNREACHABLE"}


def test_another_seed_is_another_run() -> None:
    async def ids(seed: int) -> str:
        async with Simulation(agents(1), seed=seed) as cluster:
            return cluster.master.id

    assert run(ids(1)) != run(ids(2))


def test_who_waits_for_what_cannot_happen_is_told() -> None:
    with pytest.raises(StandstillError):
        run(asyncio.Event().wait())


def test_a_fault_inside_is_not_hidden() -> None:
    def script(launch: Launch) -> Script:
        raise ZeroDivisionError

    async def main() -> None:
        async with Simulation(agents(1), script=script) as cluster, watched(cluster) as framework:
            await framework.launch("t")
            await asyncio.sleep(1.0)

    with pytest.raises(ZeroDivisionError):
        run(main())
