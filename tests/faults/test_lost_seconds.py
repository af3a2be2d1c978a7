"""Row 21 with a real database: the append-only file of Redis ends a moment before the machine failed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bench.bench import Bench
from tests.faults.bench.observer import Observer, check

DISPLAY = "display.l0_0"


class Machine:
    """The one that the controller and its database run on."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.observer = Observer(bench, "p", self.mend)
        self._up = asyncio.Event()

    async def mend(self) -> None:
        """Wait until there is a controller."""
        await self._up.wait()

    async def start(self) -> None:
        await self.bench.start()
        self._up.set()

    async def fail(self, written: int) -> None:
        """Fail, and come back with what was written then."""
        self._up.clear()
        await self.bench.signal("A", signal.SIGKILL)
        self.bench.stop_redis()
        self.bench.lose_writes(written)
        await asyncio.to_thread(self.bench.start_redis)
        await self.start()

    async def until(self, holds: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        patience = self.bench.patience(30)
        while not await holds():
            assert not patience.over
            await asyncio.sleep(0.01)

    async def told(self) -> str:
        """What the alarm says that was lost."""
        text = (await self.bench.sensors("^alarms$"))["alarms"]
        return "".join(a["text"] for a in json.loads(text) if a["name"] == "lost-writes")


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with Bench(tmp_path) as bench:
        machine = Machine(bench)
        await machine.start()
        yield machine


async def test_an_observation_whose_database_loses_a_moment_of_each_step(machine: Machine) -> None:
    bench, observer = machine.bench, machine.observer
    await _launch(machine)
    await check(bench, observer)

    past = machine.bench.written()
    await observer.capture_init()
    (cbid,) = observer.cbids
    events = len(bench.diary.events)
    await machine.fail(past)
    await check(bench, observer)
    assert await bench.blocks("p") == {cbid: "capturing"}
    assert {event.what for event in bench.diary.events[events:]} == set(), "no task noticed"
    assert f"capture block {cbid} goes on" in await machine.told()

    past = machine.bench.written()
    await _display_is_started_again(machine)
    tasks = set(bench.running())
    await machine.fail(past)
    await check(bench, observer)
    assert set(bench.running()) == tasks
    assert DISPLAY in await machine.told()

    past = machine.bench.written()
    await observer.capture_done()
    await machine.fail(past)
    await check(bench, observer)
    assert f"capture block {cbid} ends" in await machine.told()
    await observer.capture_init()
    await observer.capture_done()
    await check(bench, observer)

    past = machine.bench.written()
    await observer.deconfigure()
    await machine.fail(past)
    await machine.until(lambda: _gone(bench))
    await check(bench, observer)
    assert bench.running() == {} and "is taken down" in await machine.told()


async def _launch(machine: Machine) -> None:
    """Configure; all tasks run, but the database knows only that they were to be placed."""
    bench = machine.bench
    configuring = asyncio.create_task(machine.observer.configure())

    async def recorded() -> bool:
        return bool(await bench.table("graph"))

    async def run() -> bool:
        (graph,) = (await bench.table("graph")).values()
        return len(bench.running()) == len(graph["task_ids"])

    await machine.until(recorded)
    past = machine.bench.written()
    await machine.until(run)
    tasks = set(bench.running())
    await machine.fail(past)
    await configuring
    assert set(bench.running()) == tasks
    assert "their records were put back" in await machine.told()


async def _display_is_started_again(machine: Machine) -> None:
    bench = machine.bench
    (display,) = (p for p in bench.diary.alive.values() if p.name == DISPLAY)
    display.die()

    async def joined() -> bool:
        states = await bench.sensors(rf"^p\.{DISPLAY}\.state$")
        alive = [p for p in bench.diary.alive.values() if p.name == DISPLAY and p.block]
        return set(states.values()) == {"ready"} and bool(alive) and alive[0] is not display

    await machine.until(joined)


async def _gone(bench: Bench) -> bool:
    return await bench.products() == {} and not bench.running()
