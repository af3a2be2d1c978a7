"""A framework in a simulation, that does what tests say and remembers what it has seen."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from scheduler.embedded.executors.simulated import LABEL
from scheduler.embedded.model import AgentSpec
from scheduler.embedded.simulation import CallError, Simulation
from scheduler.embedded.virtual_loop import run
from scheduler.quantities import Ranges, Resources

INFO: dict[str, Any] = {
    "name": "test",
    "roles": ["*"],
    "capabilities": [
        {"type": name} for name in ("MULTI_ROLE", "PARTITION_AWARE", "TASK_KILLING_STATE")
    ],
    "failover_timeout": 3600.0,
    "checkpoint": True,
}


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let a test run in virtual time."""

    @functools.wraps(test)
    def wrapped(*args: Any, **fixtures: Any) -> None:
        run(test(*args, **fixtures))

    return wrapped


def agents(count: int = 2) -> list[AgentSpec]:
    """Agents ``a1``, ``a2``, …"""
    resources = Resources(
        {"cpus": 4000, "mem": 4_096_000}, {"ports": Ranges.parse("[31000-31999]")}
    )
    return [
        AgentSpec(f"a{number}", resources, {"rack": f"r{number}"}) for number in range(1, count + 1)
    ]


class Watcher:
    """A framework that acknowledges, holds offers, and subscribes again when it is cut off."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.link = simulation.connect()
        self.acknowledges = True
        self.subscriptions = 0
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.offers: dict[str, dict[str, Any]] = {}
        self.updates: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Be subscribed, for ever."""
        while True:
            with contextlib.suppress(CallError):
                self.subscriptions += 1
                async for event in self.link.subscribe(**INFO):
                    self.events.append((self.now, event))
                    await self._take(event)
                    self._changed.set()
            self.offers.clear()
            await asyncio.sleep(1.0)

    async def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "OFFERS":
            self.offers |= {o["id"]["value"]: o for o in event["offers"]["offers"]}
        elif event["type"] == "RESCIND":
            self.offers.pop(event["rescind"]["offer_id"]["value"], None)
        elif event["type"] == "UPDATE":
            status = event["update"]["status"]
            self.updates.append(status)
            if "uuid" in status and self.acknowledges:
                fields = ("agent_id", "task_id", "uuid")
                with contextlib.suppress(CallError):
                    await self.link.call("ACKNOWLEDGE", **{name: status[name] for name in fields})

    async def until(self, holds: Callable[[], Any], timeout: float = 1e4) -> None:
        """Wait until something holds; at the latest when it has changed."""
        async with asyncio.timeout(timeout):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def offer_of(self, hostname: str = "a1") -> dict[str, Any]:
        """Wait for an offer of an agent, and take it."""
        await self.until(lambda: self.held(hostname))
        return self.offers.pop(self.held(hostname)[0])

    def held(self, hostname: str) -> list[str]:
        """Ids of the offers of an agent."""
        return [key for key, offer in self.offers.items() if offer["hostname"] == hostname]

    async def launch(self, task_id: str, hostname: str = "a1", **script: Any) -> None:
        """Launch a task and return at once."""
        offer = await self.offer_of(hostname)
        labels = [{"key": LABEL, "value": json.dumps(script)}] if script else []
        task = {
            "task_id": {"value": task_id},
            "name": task_id,
            "agent_id": offer["agent_id"],
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}}],
            "command": {"value": "true"},
            "labels": {"labels": labels},
        }
        operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        filters = {"refuse_seconds": 0.0}
        await self.link.call(
            "ACCEPT", offer_ids=[offer["id"]], operations=[operation], filters=filters
        )

    async def running(self, task_id: str, hostname: str = "a1", **script: Any) -> None:
        """Launch a task and wait until it runs."""
        await self.launch(task_id, hostname, **script)
        await self.until(lambda: "RUNNING" in self.states(task_id))

    def states(self, task_id: str) -> list[str]:
        return [s["state"].removeprefix("TASK_") for s in self.statuses(task_id)]

    def statuses(self, task_id: str) -> list[dict[str, Any]]:
        return [s for s in self.updates if s["task_id"]["value"] == task_id]

    def seen(self, kind: str) -> list[dict[str, Any]]:
        return [event for _, event in self.events if event["type"] == kind]


@contextlib.asynccontextmanager
async def watched(simulation: Simulation) -> AsyncIterator[Watcher]:
    """Run a framework beside a test."""
    watcher = Watcher(simulation)
    task = asyncio.create_task(watcher.run())
    try:
        await watcher.until(lambda: watcher.seen("SUBSCRIBED"))
        yield watcher
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
