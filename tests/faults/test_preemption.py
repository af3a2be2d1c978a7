"""A product that does not fit beside the imaging of an earlier block, with the real controller and its queues.

The imaging makes room, as far as is needed and no further; it runs again afterwards, under a controller that
took over meanwhile, and its results are complete: an observation is never lost, nor is what was observed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.faults.bench.bench import Bench, RefusedError
from tests.faults.bench.observer import DOCUMENT

QUEUES = """
[queues.realtime]
priority = 100
preempts = true

[queues.batch]
preemptible = true

[work]
products = "realtime"
postprocessing = "batch"
"""
SECONDS = 60.0
MACHINE = "package:1 [numa(memory=64GB)] core:4 pu:2"
BLOCKS = 3


async def until(what: str, holds: Callable[[], Awaitable[Any]]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := await holds()):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)
    return found


async def observed(bench: Bench) -> str:
    """Observe something; return the block's id."""
    (cbid, *_), _ = await bench.ask("capture-init", "early")
    await bench.ask("capture-done", "early")
    return cbid


def batch_tasks(bench: Bench) -> set[str]:
    """Ids of the batch tasks that run: those without ports."""
    return {task_id for task_id, program in bench.running().items() if not program.ports}


async def alarms(bench: Bench) -> dict[str, str]:
    told = json.loads((await bench.sensors("^alarms$"))["alarms"])
    return {alarm["name"]: alarm["text"] for alarm in told}


async def fill(bench: Bench) -> list[str]:
    """Configure products until one needs the place of the imaging; return their names."""
    names: list[str] = []
    while "queues.preempted" not in await alarms(bench):
        names.append(f"late_{len(names)}")
        await bench.ask("product-configure", names[-1], DOCUMENT)
    return names


async def test_a_product_gets_the_place_of_imaging_which_is_done_after_it(tmp_path: Path) -> None:
    file = tmp_path / "queues.toml"
    file.write_text(QUEUES)
    async with Bench(tmp_path / "bench", machine=MACHINE) as bench:
        imaging = True
        bench.diary.computing = lambda: imaging
        await bench.start("A", "", "--queues", str(file))
        _, listed = await bench.ask("queue-list")
        assert [words[:3] for words in listed] == [["realtime", "100", "0"], ["batch", "0", "0"]]

        await bench.ask("product-configure", "early", DOCUMENT)
        cbids = {await observed(bench) for _ in range(BLOCKS)}

        async def begun() -> set[str]:
            running = batch_tasks(bench)
            return running if len(running) == BLOCKS else set()

        before = await until("the imaging begins", begun)
        late = await fill(bench)
        gone = {event.task_id for event in bench.diary.events if event.what == "killed"}
        assert gone and gone <= before, "nobody but the imaging made room"
        told = (await alarms(bench))["queues.preempted"]
        assert f"for {late[-1]}" in told
        batches = await bench.table("batch")
        assert {(kept["queue"], kept["cbid"]) for kept in batches.values()} == {
            ("batch", cbid) for cbid in cbids
        }
        _, events = await bench.ask("product-events", "early")
        said = [text for _, text in events if "made room for" in text]
        assert len(said) == len(gone)
        assert all("(queue realtime), which did not fit: to be run again" in text for text in said)
        _, events = await bench.ask("product-events", late[-1])
        assert sum("it did not fit: image" in text for _, text in events) == len(gone), events
        _, listed = await bench.ask("queue-list", "batch")
        assert int(listed[0][2]) >= 1 and float(listed[0][3]) > 0

        # The one that takes over keeps all of it: the queue, what made room, and the attempts that are left.
        await bench.signal("A", signal.SIGKILL)
        await bench.start("A", "", "--queues", str(file))
        assert (await bench.sensors(rf"^{late[-1]}\.queue$")) == {f"{late[-1]}.queue": "realtime"}
        imaging = False
        for name in late:
            await bench.ask("product-deconfigure", name, 1)  # after its recovery

        async def done() -> bool:
            return not await bench.blocks("early")

        await until("the blocks end", done)
        assert (await bench.products()) == {"early": "idle"}
        assert (await bench.sensors(r"^early\.reason$")) == {"early.reason": ""}
        again = {f"{task_id.rpartition('.')[0]}.1" for task_id in gone}
        finished = {event.task_id for event in bench.diary.events if event.what == "ended"}
        assert again <= finished, "all that made room was done again"
        assert await alarms(bench) == {}
        await bench.ask("product-deconfigure", "early")


async def test_a_product_waits_where_nobody_makes_room(tmp_path: Path) -> None:
    """As it is where nothing is declared."""
    async with Bench(tmp_path, machine=MACHINE) as bench:
        imaging = True
        bench.diary.computing = lambda: imaging
        await bench.start()
        await bench.ask("product-configure", "early", DOCUMENT)
        await observed(bench)
        refused = ""
        for number in range(20):
            try:
                await bench.ask("product-configure", f"late_{number}", DOCUMENT)
            except RefusedError as exc:
                refused = str(exc)
                break
        assert "did not fit before its deadline" in refused
        assert not any(event.what == "killed" and not event.detail for event in bench.diary.events)
        assert batch_tasks(bench)
        imaging = False
