"""Events of a real master in which something is missing, or is something else: the scheduler lives on."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from scheduler.requests import TaskRequest
from scheduler.views import LinkState
from tests.contract.recording import FOLDER, MISSING, load
from tests.faults.virtual import World, in_virtual_time, until
from tests.scheduler.programs import needs, physical, server, shell

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=MISSING)

OTHERS: tuple[Any, ...] = (
    None, 0, -1, 1e308, True, "", "é", "x" * 300, "TASK_RUNNING", [], {}, [None], [[]], {"value": None},
    {"value": {"value": 1}},
)  # fmt: skip
NOT_SENT_HERE = ("ERROR", "SUBSCRIBED", "HEARTBEAT")
"""Of these, wrong ones have tests of their own."""
EVENTS = 120


def recorded() -> list[dict[str, Any]]:
    lines = [line for path in sorted(FOLDER.glob("*.jsonl")) for line in load(path.stem).lines]
    events = [line["event"] for line in lines if line.kind == "event"]
    return [event for event in events if event.get("type") not in NOT_SENT_HERE]


def spoilt(chance: random.Random, event: dict[str, Any]) -> dict[str, Any]:
    """Return an event in which up to three things are missing or are others."""
    event = copy.deepcopy(event)
    for _ in range(chance.randint(0, 3)):
        holder: Any = event
        key: Any = event["type"].lower()
        node = event.get(key)
        while isinstance(node, dict | list) and node and chance.random() < 0.85:
            holder = node
            key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
            node = node[key]
        if chance.random() < 0.3 and isinstance(holder, dict):
            holder.pop(key, None)
        else:
            holder[key] = copy.deepcopy(chance.choice(OTHERS))
    return event


def made_ours(chance: random.Random, event: dict[str, Any], agents: list[str]) -> dict[str, Any]:
    """Let an event speak of our agents, and now and then of our tasks."""
    text = re.sub(
        r"[0-9a-f]{8}-[0-9a-f-]{27}-S\d+", lambda _: chance.choice(agents), json.dumps(event)
    )
    if chance.random() < 0.5:
        task = chance.choice(("g.a.0", "g.b.0", "nobody"))
        text = re.sub(r'("task_id": \{"value": )"[^"]*"', rf'\1"{task}"', text)
    ours: dict[str, Any] = json.loads(text)
    return ours


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_master_says_the_scheduler_lives_on(tmp_path: Path, seed: int) -> None:
    """One graph is up, another waits for a place; then a third can be launched."""

    async def story() -> None:
        chance, events = random.Random(seed), recorded()
        async with World(tmp_path) as world, world.scheduler() as scheduler:
            await until(lambda: scheduler.link().state is LinkState.CONNECTED)
            log = tmp_path / "log"
            pair = physical(
                "g", server("a", log), server("b", log, needs="a"), edges=needs("b", "a")
            )
            await scheduler.launch(pair, timeout=60)
            large = TaskRequest.of(cpus=1.9, mem_mib=16)
            many = physical("w", *(shell(f"t{n}", "true", request=large) for n in range(3)))
            waiting = asyncio.create_task(scheduler.launch(many, timeout=1e6))
            agents = [agent.info.id for agent in world.agents]
            for _ in range(EVENTS):
                event = spoilt(chance, chance.choice(events))
                world.drivers[0]._take(made_ours(chance, event, agents))
                await asyncio.sleep(chance.choice((0.0, 0.0, 0.1, 3.0)))
                assert scheduler.failed is not None
                assert not scheduler.failed.done(), event
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            world.drivers[0].cut()
            await asyncio.sleep(60)
            await scheduler.launch(physical("after", server("c", log)), timeout=60)

    in_virtual_time(story, debug=False)()
