"""A master with agents in virtual time, whose tasks do what the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler.embedded.agent import Agent
from scheduler.embedded.calls import SchedulerCalls
from scheduler.embedded.clock import VirtualClock
from scheduler.embedded.convert import parse
from scheduler.embedded.executors import Launch, Outcome, Running
from scheduler.embedded.master import Master, Settings
from scheduler.embedded.membership import Membership
from scheduler.embedded.model import AgentInfo, AgentSpec
from scheduler.embedded.recordio import Decoder
from scheduler.embedded.stream import EventStream
from scheduler.embedded.validation import validate_call
from scheduler.quantities import Ranges, Resources

PARTITION_AWARE = ("MULTI_ROLE", "PARTITION_AWARE", "TASK_KILLING_STATE")


class ScriptedContainer:
    """A task that runs until the test ends it; a kill is only noted."""

    pid = 4711

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.kills: list[float] = []
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def started(self) -> Running:
        return Running()

    def kill(self, grace: float) -> None:
        self.kills.append(grace)

    def end(self, succeeded: bool = True, message: str = "Command exited with status 0") -> None:
        if not self._outcome.done():
            self._outcome.set_result(Outcome(succeeded, message))

    async def wait(self) -> Outcome:
        return await self._outcome


class ScriptedExecutor:
    def __init__(self) -> None:
        self.containers: dict[str, ScriptedContainer] = {}

    async def launch(self, launch: Launch) -> ScriptedContainer:
        container = ScriptedContainer(launch)
        self.containers[launch.task.id] = container
        return container

    async def recover(self, launches: Sequence[Launch]) -> dict[str, ScriptedContainer]:
        return {}

    async def close(self) -> None:
        pass


class Scheduler:
    """A framework's end of the conversation."""

    def __init__(self, bench: Bench, stream: EventStream) -> None:
        self._bench = bench
        self.stream = stream
        self._decoder = Decoder()
        self.events: list[dict[str, Any]] = []
        self.offers: dict[str, dict[str, Any]] = {}
        self.updates: list[dict[str, Any]] = []
        self.id = ""
        self.read()

    def read(self) -> list[dict[str, Any]]:
        """Return the events that have come since the last time."""
        fresh: list[dict[str, Any]] = []
        for record in self.stream.take():
            fresh += map(json.loads, self._decoder.feed(record))
        for event in fresh:
            if event["type"] == "SUBSCRIBED":
                self.id = event["subscribed"]["framework_id"]["value"]
            elif event["type"] == "OFFERS":
                self.offers |= {o["id"]["value"]: o for o in event["offers"]["offers"]}
            elif event["type"] == "RESCIND":
                self.offers.pop(event["rescind"]["offer_id"]["value"], None)
            elif event["type"] == "UPDATE":
                self.updates.append(event["update"]["status"])
        self.events += fresh
        return fresh

    def states(self, task_id: str) -> list[str]:
        """Return the states that a task has been reported in."""
        self.read()
        return [u["state"] for u in self.updates if u["task_id"]["value"] == task_id]

    async def call(self, kind: str, **body: Any) -> None:
        document: dict[str, Any] = {"type": kind, "framework_id": {"value": self.id}}
        if body:
            document[kind.lower()] = body
        call = parse(json.dumps(document).encode(), "Call")
        assert validate_call(call) is None
        self._bench.calls.call(call, self.stream.id)
        await self._bench.settle()
        self.read()

    async def accept(
        self, offer_ids: Sequence[str], *tasks: dict[str, Any], refuse: float = 0.0
    ) -> None:
        for offer_id in offer_ids:
            self.offers.pop(offer_id, None)
        operation = {"type": "LAUNCH", "launch": {"task_infos": list(tasks)}}
        ids = [{"value": offer_id} for offer_id in offer_ids]
        filters = {"refuse_seconds": refuse}
        await self.call("ACCEPT", offer_ids=ids, operations=[operation], filters=filters)

    async def decline(self, offer_id: str, refuse: float | None = None) -> None:
        self.offers.pop(offer_id, None)
        filters = {} if refuse is None else {"filters": {"refuse_seconds": refuse}}
        await self.call("DECLINE", offer_ids=[{"value": offer_id}], **filters)

    async def acknowledge(self, status: dict[str, Any]) -> None:
        names = ("agent_id", "task_id", "uuid")
        await self.call("ACKNOWLEDGE", **{name: status[name] for name in names})

    async def acknowledge_all(self) -> None:
        """Acknowledge until nothing more comes."""
        seen: set[str] = set()
        while True:
            self.read()
            todo = [u for u in self.updates if "uuid" in u and u["uuid"] not in seen]
            if not todo:
                return
            for status in todo:
                seen.add(status["uuid"])
                await self.acknowledge(status)


class Bench:
    """Master, agents and time."""

    def __init__(
        self, agents: int, settings: Settings, work_dir: Path, reserved: str | None = None
    ) -> None:
        self.clock = VirtualClock()
        self.master = Master(self.clock, address=("127.0.0.1", 5050), settings=settings)
        self.calls = SchedulerCalls(self.master)
        self.membership = Membership(self.master)
        self.executor = ScriptedExecutor()
        self._tasks: set[asyncio.Task[None]] = set()
        resources = Resources(
            {"cpus": 4000, "mem": 4_096_000, "gpu.0.compute": 1000},
            {"cores": Ranges.parse("[0-7]"), "ports": Ranges.parse("[31000-31999]")},
        )
        for number in range(1, agents + 1):
            spec = AgentSpec(f"127.0.1.{number}", resources, {"rack": f"r{number}"})
            if reserved is not None and number == agents:
                spec = replace(
                    spec, default_role=reserved, reserved={"*": Resources({"cpus": 1000})}
                )
            info = AgentInfo(f"{self.master.id}-S{number}", number, spec, ("127.0.0.1", 5050))
            agent = Agent(
                info, self.executor, self.master, self.clock, work_dir=work_dir, spawn=self.spawn
            )
            self.membership.register(agent)
        self.master.start()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Let everything happen that can without time going on."""
        for _ in range(10):
            await asyncio.sleep(0)
        self.clock.advance(0)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()

    async def subscribe(
        self,
        *,
        roles: Sequence[str] = ("*",),
        framework_id: str | None = None,
        capabilities: Sequence[str] = PARTITION_AWARE,
        suppressed: Sequence[str] = (),
        **info: Any,
    ) -> Scheduler:
        framework: dict[str, Any] = {
            "user": "",
            "name": "bench",
            "roles": list(roles),
            "capabilities": [{"type": name} for name in capabilities],
            **info,
        }
        call: dict[str, Any] = {"type": "SUBSCRIBE"}
        if framework_id is not None:
            framework["id"] = call["framework_id"] = {"value": framework_id}
        call["subscribe"] = {"framework_info": framework, "suppressed_roles": list(suppressed)}
        parsed = parse(json.dumps(call).encode(), "Call")
        stream = self.master.subscribe(parsed)
        await self.settle()
        return Scheduler(self, stream)

    async def end(self, task_id: str, **how: Any) -> None:
        self.executor.containers[task_id].end(**how)
        await self.settle()

    async def close(self) -> None:
        self.master.stop()
        for container in self.executor.containers.values():
            container.end()
        for record in self.master.agents.values():
            record.agent.kill_everything()
        await self.settle()
        assert not self._tasks


def make_task(
    task_id: str, offer: dict[str, Any], cpus: float = 1.0, cores: str = "", **more: Any
) -> dict[str, Any]:
    resources: list[dict[str, Any]] = [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}},
    ]
    if cores:
        pairs = [{"begin": b, "end": e} for b, e in Ranges.parse(cores).intervals]
        resources.append({"name": "cores", "type": "RANGES", "ranges": {"range": pairs}})
    return {
        "task_id": {"value": task_id},
        "name": task_id,
        "agent_id": offer["agent_id"],
        "resources": resources,
        "command": {"value": "true"},
        **more,
    }


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Any]:
    def make(agents: int = 2, reserved: str | None = None, **settings: Any) -> Bench:
        return Bench(agents, Settings(**settings), tmp_path, reserved)

    yield make


@pytest.fixture
def task() -> Any:
    """The function that writes a ``TaskInfo`` for an offer."""
    return make_task
