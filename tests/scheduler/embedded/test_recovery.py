"""A cluster that is killed with SIGKILL and started again: its tasks live on, and nothing they did is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scheduler.embedded import AgentSpec, Cluster, processes
from scheduler.embedded.checkpoint import Checkpoint
from scheduler.embedded.executors.composing import ComposingExecutor
from scheduler.embedded.executors.docker import DockerExecutor
from scheduler.embedded.executors.process import ProcessExecutor
from scheduler.embedded.recordio import Decoder
from scheduler.embedded.recovery import Recover
from scheduler.errors import ClusterError
from scheduler.quantities import Resources
from tests.conftest import PATIENCE, free_port

RESOURCES = Resources({"cpus": 4000, "mem": 1_024_000})
PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.scheduler.embedded.test_recovery import make_cluster
async def main():
    async with make_cluster(Path(sys.argv[1]), int(sys.argv[2]), docker=sys.argv[3] == "docker") as cluster:
        print("up", flush=True)
        await cluster.serve_forever()
asyncio.run(main())
"""


def make_cluster(work_dir: Path, port: int, *, docker: bool = False, **more: Any) -> Cluster:
    plain = ProcessExecutor(work_dir)
    both = ComposingExecutor(docker=DockerExecutor(work_dir), other=plain) if docker else plain
    specs = [AgentSpec(f"127.0.1.{number}", RESOURCES) for number in (1, 2)]
    return Cluster(specs, work_dir=work_dir, port=port, executor=both, **more)


class Client:
    """A framework that outlives its master."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session = session
        self.url = f"http://127.0.0.1:{port}/api/v1/scheduler"
        self.id = ""
        self.acknowledges = True
        self.offers: list[dict[str, Any]] = []
        self.updates: list[dict[str, Any]] = []
        self._stream: aiohttp.ClientResponse | None = None
        self._decoder = Decoder()

    async def subscribe(self, *, checkpoint: bool = True) -> None:
        capabilities = [
            {"type": name} for name in ("MULTI_ROLE", "PARTITION_AWARE", "TASK_KILLING_STATE")
        ]
        info: dict[str, Any] = {
            "user": "",
            "name": "f",
            "roles": ["*"],
            "capabilities": capabilities,
            "failover_timeout": 60.0,
            "checkpoint": checkpoint,
        }
        call: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if self.id:
            info["id"] = call["framework_id"] = {"value": self.id}
        self.offers.clear()
        self._decoder = Decoder()
        self._stream = await self.session.post(self.url, json=call)
        await self.until(lambda: self.id)

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await self._read()

    async def quiet(self, seconds: float = 0.5) -> None:
        """Read what comes within some time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self._read()

    async def _read(self) -> None:
        assert self._stream is not None
        chunk = await self._stream.content.readany()
        assert chunk, "the stream has ended"
        for event in map(json.loads, self._decoder.feed(chunk)):
            if event["type"] == "SUBSCRIBED":
                self.id = event["subscribed"]["framework_id"]["value"]
            elif event["type"] == "OFFERS":
                self.offers += event["offers"]["offers"]
            elif event["type"] == "UPDATE":
                status = event["update"]["status"]
                self.updates.append(status)
                if self.acknowledges and "uuid" in status:
                    fields = ("agent_id", "task_id", "uuid")
                    await self.call("ACKNOWLEDGE", **{name: status[name] for name in fields})

    async def call(self, kind: str, **body: Any) -> None:
        assert self._stream is not None
        call = {"type": kind, "framework_id": {"value": self.id}, kind.lower(): body}
        headers = {"Mesos-Stream-Id": self._stream.headers["Mesos-Stream-Id"]}
        async with self.session.post(self.url, json=call, headers=headers) as response:
            assert response.status == 202, await response.text()

    async def launch(self, task_id: str, script: str, **more: Any) -> None:
        await self.until(lambda: self.offers)
        offer = self.offers.pop(0)
        task = {
            "task_id": {"value": task_id},
            "name": task_id,
            "agent_id": offer["agent_id"],
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": 64.0}},
            ],
            "command": {"value": script},
            **more,
        }
        operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
        filters = {"refuse_seconds": 0.0}
        await self.call("ACCEPT", offer_ids=[offer["id"]], operations=[operation], filters=filters)
        await self.until(lambda: self.states(task_id))

    def states(self, task_id: str) -> list[str]:
        """Different updates of a task."""
        mine = {s.get("uuid"): s["state"] for s in self.updates if s["task_id"]["value"] == task_id}
        return [state.removeprefix("TASK_") for state in mine.values()]

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


class World:
    """A cluster in a process of its own, to be killed."""

    def __init__(self, work_dir: Path, kind: str) -> None:
        self.work_dir = work_dir
        self.kind = kind
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            self.work_dir,
            str(self.port),
            self.kind,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"up\n"

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            await self._process.wait()
            self._process = None


@contextlib.asynccontextmanager
async def world_of(work_dir: Path, kind: str = "process") -> AsyncIterator[tuple[World, Client]]:
    world = World(work_dir, kind)
    async with aiohttp.ClientSession() as session:
        client = Client(session, world.port)
        try:
            await world.start()
            yield world, client
        finally:
            client.close()
            await world.end()
            async with make_cluster(work_dir, 0, docker=kind == "docker", recover=Recover.CLEANUP):
                pass
    assert not processes_of(work_dir)


def processes_of(work_dir: Path) -> list[int]:
    return [
        process.pid
        for process in processes.everyone()
        if processes.environment(process.pid).get("MESOS_SANDBOX", "").startswith(f"{work_dir}/")
    ]


def outputs(work_dir: Path) -> list[str]:
    sandboxes = work_dir.glob("slaves/*/frameworks/*/executors/*/runs/latest/stdout")
    return sorted(path.read_text() for path in sandboxes)


@pytest.fixture(params=["process", "docker"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("busybox_image")
    return str(request.param)


@pytest.fixture
def container(kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    if kind == "process":
        return {}
    docker = {"image": request.getfixturevalue("busybox_image"), "network": "HOST"}
    return {"container": {"type": "DOCKER", "docker": docker}}


async def test_tasks_live_on(tmp_path: Path, kind: str, container: dict[str, Any]) -> None:
    async with world_of(tmp_path, kind) as (world, client):
        await client.subscribe()
        script = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.1; done"
        await client.launch("lives", script, **container)
        await client.launch("ends", "sleep 0.7; echo done; exit 3", **container)
        await client.until(lambda: "RUNNING" in client.states("lives"))
        await client.until(lambda: "RUNNING" in client.states("ends"))
        await world.end()
        client.close()
        await asyncio.sleep(1.0)  # so that one ends while nobody watches
        await world.start()
        await client.subscribe()
        await client.until(lambda: "FAILED" in client.states("ends"))
        await client.quiet()
        assert client.states("ends") == ["STARTING", "RUNNING", "FAILED"]
        assert client.updates[-1]["message"].endswith("exited with status 3")
        assert client.states("lives") == ["STARTING", "RUNNING"]
        await client.call("KILL", task_id={"value": "lives"})
        await client.until(lambda: "KILLED" in client.states("lives"))
        assert client.updates[-1]["message"].endswith("exited with status 4")
        assert outputs(tmp_path) == ["done\n", "up\nbye\n"]
        async with asyncio.timeout(PATIENCE):  # acknowledged, so forgotten
            while Checkpoint(tmp_path).load():
                await client.quiet()


async def test_what_was_not_acknowledged_comes_again_in_order(tmp_path: Path) -> None:
    async with world_of(tmp_path) as (world, client):
        await client.subscribe()
        client.acknowledges = False
        await client.launch("t", "exit 0")
        await asyncio.sleep(0.5)
        first = [s["uuid"] for s in client.updates]
        for _ in range(2):
            await world.end()
            client.close()
            await world.start()
            await client.subscribe()
            await client.quiet()
        assert {s["uuid"] for s in client.updates} == set(first)
        client.acknowledges = True
        client.close()
        await client.subscribe()
        await client.until(lambda: "FINISHED" in client.states("t"))
        assert client.states("t") == ["STARTING", "RUNNING", "FINISHED"]


async def test_a_kill_goes_on(tmp_path: Path) -> None:
    async with world_of(tmp_path) as (world, client):
        await client.subscribe()
        await client.launch("t", "trap '' TERM; echo up; while :; do sleep 0.1; done")
        await client.until(lambda: "RUNNING" in client.states("t"))
        await client.call("KILL", task_id={"value": "t"})
        await client.until(lambda: "KILLING" in client.states("t"))
        await world.end()
        client.close()
        await world.start()
        await client.subscribe()
        await client.until(lambda: "KILLED" in client.states("t"))
        assert client.states("t") == ["STARTING", "RUNNING", "KILLING", "KILLED"]


async def test_a_framework_without_checkpoint_loses_its_tasks(tmp_path: Path) -> None:
    async with world_of(tmp_path) as (world, client):
        await client.subscribe(checkpoint=False)
        await client.launch("t", "sleep 600")
        await client.until(lambda: "RUNNING" in client.states("t"))
        await world.end()
        client.close()
        await world.start()
        assert not processes_of(tmp_path)


async def test_notes_are_read_by_nobody_else(tmp_path: Path) -> None:
    """The environments of tasks are in them."""
    async with world_of(tmp_path) as (_, client):
        await client.subscribe()
        await client.launch("t", "sleep 600")
        assert _modes_of_notes(tmp_path) == [0o700]


def _modes_of_notes(folder: Path) -> list[int]:
    return [note.parent.stat().st_mode & 0o777 for note in folder.glob("**/run.json")]


async def test_agents_keep_their_ids_and_cannot_shrink_below_their_tasks(tmp_path: Path) -> None:
    async with world_of(tmp_path) as (world, client):
        await client.subscribe()
        await client.until(lambda: client.offers)
        before = {offer["agent_id"]["value"] for offer in client.offers}
        await client.launch("t", "sleep 600")
        await world.end()
        client.close()
        small = [AgentSpec(f"127.0.1.{n}", Resources({"cpus": 100})) for n in (1, 2)]
        with pytest.raises(ClusterError, match="has less now than the tasks use"):
            async with Cluster(small, work_dir=tmp_path, port=0):
                pass
        assert processes_of(tmp_path)  # nothing was touched
        await world.start()
        await client.subscribe()
        await client.until(lambda: client.offers)
        assert {offer["agent_id"]["value"] for offer in client.offers} <= before


async def test_who_ends_while_its_supervisor_is_killed_too_counts_as_lost(tmp_path: Path) -> None:
    async with world_of(tmp_path) as (world, client):
        await client.subscribe()
        await client.launch("t", "sleep 600")
        await client.until(lambda: "RUNNING" in client.states("t"))
        supervisor = client.updates[-1]["container_status"]["executor_pid"]
        await world.end()
        client.close()
        os.kill(supervisor, signal.SIGKILL)
        await world.start()
        await client.subscribe()
        await client.until(lambda: "FAILED" in client.states("t"))
        assert client.updates[-1]["reason"] == "REASON_EXECUTOR_TERMINATED"
        assert not processes_of(tmp_path)


async def test_an_orderly_end_leaves_nothing(tmp_path: Path) -> None:
    async with make_cluster(tmp_path, 0) as cluster, aiohttp.ClientSession() as session:
        client = Client(session, cluster.address[1])
        await client.subscribe()
        await client.launch("t", "sleep 600")
        client.close()
    assert not processes_of(tmp_path)
    assert Checkpoint(tmp_path).load() == []


def test_a_note_that_was_cut_short_is_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    broken = tmp_path / "meta/runs/x"
    broken.mkdir(parents=True)
    (broken / "run.json").write_text('{"agent_id": ')
    assert Checkpoint(tmp_path).load() == []
    assert not broken.exists()
