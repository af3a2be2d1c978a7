"""Tasks as real processes: what they see, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from scheduler.embedded import processes
from scheduler.embedded.executors import (
    Container,
    ContainerLaunchError,
    Launch,
    Outcome,
    SandboxError,
)
from scheduler.embedded.executors.process import ProcessExecutor
from scheduler.embedded.model import AgentInfo, AgentSpec, FrameworkInfo, TaskInfo
from scheduler.embedded.pool import Pool
from scheduler.quantities import Ranges, Resources
from tests.conftest import PATIENCE

AGENT = AgentInfo("S0", 1, AgentSpec("127.0.1.1", Resources()), ("127.0.0.1", 5050))


class Runner:
    def __init__(self, work_dir: Path, *, control_groups: bool = True) -> None:
        self.work_dir = work_dir
        self.executor = ProcessExecutor(work_dir, control_groups=control_groups)

    def launch(self, command: dict[str, Any], resources: Resources, **document: Any) -> Launch:
        container_id = str(uuid.uuid4())
        task = TaskInfo(
            "t", "t", "S0", "sdp", Pool.unreserved(resources), {"command": command, **document}
        )
        sandbox = self.work_dir / "slaves/S0/frameworks/F/executors/t/runs" / container_id
        framework = FrameworkInfo(id="F", name="f")
        return Launch(framework, AGENT, task, container_id, sandbox)

    async def start(
        self,
        *command: str,
        cores: str = "",
        memory: int = 0,
        environment: Any = None,
        **document: Any,
    ) -> tuple[Container, Path]:
        ranges = {"cores": Ranges.parse(cores)} if cores else {}
        info: dict[str, Any] = {"value": command[0]}
        if len(command) > 1:
            info |= {"shell": False, "arguments": list(command)}
        if environment is not None:
            variables = [{"name": n, "value": v} for n, v in environment.items()]
            info["environment"] = {"variables": variables}
        info |= document.pop("command", {})
        scalars = {"cpus": 100, "mem": 1000 * memory}
        launch = self.launch(info, Resources(scalars, ranges), **document)
        return await self.executor.launch(launch), launch.sandbox

    async def output(self, *command: str, **more: Any) -> str:
        container, sandbox = await self.start(*command, **more)
        outcome = await asyncio.wait_for(container.wait(), PATIENCE)
        assert outcome.succeeded, (sandbox / "stderr").read_text()
        return (sandbox / "stdout").read_text()


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    runner = Runner(tmp_path)
    yield runner
    await runner.executor.close()


async def line_of(sandbox: Path, name: str = "stdout") -> str:
    """Wait for the first line that a task writes."""
    path = sandbox / name
    async with asyncio.timeout(PATIENCE):
        while True:
            text = path.read_text()
            if "\n" in text:
                return text.partition("\n")[0]
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("command", "succeeded", "message"),
    [
        (("exit 0",), True, "Command exited with status 0"),
        (("exit 3",), False, "Command exited with status 3"),
        (("kill -9 $$",), False, "Command terminated with signal Killed"),
        (("kill -SEGV $$",), False, "Command terminated with signal Segmentation fault"),
        (("/no/such/file", "x"), False, "Command exited with status 1"),
        (("no-such-program",), False, "Command exited with status 127"),
    ],
)
async def test_the_end_is_told_in_the_words_of_mesos(
    runner: Runner, command: tuple[str, ...], succeeded: bool, message: str
) -> None:
    container, _ = await runner.start(*command)
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert (outcome.succeeded, outcome.message) == (succeeded, message)


async def test_a_task_runs_in_its_sandbox_with_its_own_environment(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CLUSTER", "x")
    program = "import os, sys, json; print(json.dumps([os.getcwd(), sys.prefix, dict(os.environ)]))"
    text = await runner.output("python3", "-c", program, environment={"FOO": "bar", "PWD": ""})
    cwd, prefix, environment = json.loads(text)
    assert cwd == environment["MESOS_SANDBOX"]
    assert Path(cwd).is_relative_to(runner.work_dir)
    assert prefix == sys.prefix  # python3 is the one that runs the cluster
    assert environment["FOO"] == "bar"
    assert environment["MESOS_ALLOCATION_ROLE"] == "sdp"
    assert "SECRET_OF_THE_CLUSTER" not in environment
    assert (Path(cwd).parent / "latest").readlink() == Path(Path(cwd).name)


async def test_a_task_is_bound_to_its_cores(runner: Runner) -> None:
    core = max(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    program = "import os; print(os.sched_getaffinity(0))"
    text = await runner.output("python3", "-c", program, cores=f"[{core},1000-1001]")
    assert text.strip() == str({core})
    assert os.sched_getaffinity(0) == before
    text = await runner.output("python3", "-c", program, cores="[1000]")
    assert text.strip() == str(before)  # a pretended core binds nobody


async def test_the_group_gets_a_term_first(runner: Runner) -> None:
    container, sandbox = await runner.start(
        "trap 'echo bye; exit 7' TERM; echo up; sleep 60 & wait"
    )
    await line_of(sandbox)
    container.kill(30.0)
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert outcome.message == "Command exited with status 7"
    assert (sandbox / "stdout").read_text() == "up\nbye\n"


async def test_who_ignores_the_term_is_killed_after_the_grace_period(runner: Runner) -> None:
    container, sandbox = await runner.start("trap '' TERM; echo up; while :; do sleep 1; done")
    await line_of(sandbox)
    begin = asyncio.get_running_loop().time()
    container.kill(0.3)
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert outcome.message == "Command terminated with signal Killed"
    assert asyncio.get_running_loop().time() - begin >= 0.3


@pytest.mark.parametrize("how", ["sleep 600 &", "setsid sleep 600 &", "(setsid nohup sleep 600 &)"])
async def test_nothing_survives_its_task(runner: Runner, how: str) -> None:
    container, sandbox = await runner.start(f"{how} echo up; exit 0")
    await asyncio.wait_for(container.wait(), PATIENCE)
    assert not survivors(sandbox)


def survivors(sandbox: Path) -> list[int]:
    return [
        p.pid
        for p in processes.everyone()
        if processes.environment(p.pid).get("MESOS_SANDBOX", "").startswith(str(sandbox))
    ]


def sleeper(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env=environment)


async def test_a_new_cluster_ends_what_a_killed_one_has_left(runner: Runner) -> None:
    sandbox = runner.work_dir / "slaves/S9/frameworks/F/executors/t/runs/x"
    marked = sleeper({"MESOS_SANDBOX": str(sandbox)})
    # One that has emptied its environment is known by the record, unless its number is another's.
    plain, innocent = sleeper({}), sleeper({})
    records = runner.work_dir / "meta/processes"
    records.mkdir(parents=True)
    seen, other = processes.look(plain.pid), processes.look(innocent.pid)
    assert seen is not None
    assert other is not None
    text = '{{"supervisor": [{}, {}], "task": null}}'
    (records / "a.json").write_text(text.format(seen.pid, seen.start_time))
    (records / "b.json").write_text(text.format(other.pid, other.start_time - 1))
    (records / "torn.json").write_text('{"supervisor": ')
    try:
        assert await runner.executor.recover(()) == {}
        assert marked.wait(5) == -signal.SIGKILL
        assert plain.wait(5) == -signal.SIGKILL
        assert innocent.poll() is None
        assert not survivors(sandbox)
        assert list(records.iterdir()) == []
    finally:
        for process in (marked, plain, innocent):
            process.kill()
            process.wait()


async def test_a_container_is_refused_with_the_reason(runner: Runner) -> None:
    with pytest.raises(ContainerLaunchError, match="no containerizer for DOCKER"):
        await runner.start("true", container={"type": "DOCKER", "docker": {"image": "x"}})


async def test_an_unknown_user_is_named(runner: Runner) -> None:
    with pytest.raises(SandboxError, match="No such user 'nosuchuser'"):
        await runner.start("true", command={"user": "nosuchuser"})


async def test_local_uris_are_fetched_and_others_fail_the_launch(
    runner: Runner, tmp_path: Path
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("hello")
    uris = [{"value": f"file://{source}", "output_file": "in2.txt"}]
    assert await runner.output("cat in2.txt", command={"uris": uris}) == "hello"
    for uri in (
        {"value": "http://127.0.0.1:1/x"},
        {"value": "ftp://127.0.0.1/x"},
        {"value": "/no/such/file"},
        {"value": str(source), "output_file": "../escaped"},
    ):
        with pytest.raises(ContainerLaunchError, match="Failed to fetch all URIs"):
            await runner.start("true", command={"uris": [uri]})
    assert not (tmp_path / "slaves/S0/frameworks/F/executors/t/runs/escaped").exists()


async def test_files_come_over_http_too_and_are_kept_when_asked(
    runner: Runner, tmp_path: Path
) -> None:
    served: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        served.append(request.path)
        if request.path == "/away":
            raise web.HTTPFound("file:///etc/passwd")
        if request.path == "/x.tar.gz":
            return web.Response(body=archive.read_bytes())
        return web.Response(text="#!/bin/sh\necho fetched\n")

    (tmp_path / "member").write_text("inside")
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "member", "member")
    application = web.Application()
    application.router.add_get("/{name}", answer)
    async with TestServer(application) as server:
        base = str(server.make_url("/"))
        uris = [
            {"value": f"{base}run.sh?x=1", "executable": True, "cache": True},
            {"value": f"{base}x.tar.gz"},
        ]
        for _ in range(2):
            text = await runner.output("./run.sh; cat member", command={"uris": uris})
            assert text == "fetched\ninside"
        assert sorted(served) == ["/run.sh", "/x.tar.gz", "/x.tar.gz"]
        for path in ("away", "none/here"):
            with pytest.raises(ContainerLaunchError, match="Failed to fetch all URIs"):
                await runner.start("true", command={"uris": [{"value": f"{base}{path}"}]})


@pytest.mark.parametrize("control_groups", [True, False])
async def test_a_task_that_takes_too_much_memory_fails_with_the_limitation(
    tmp_path: Path, control_groups: bool
) -> None:
    runner = Runner(tmp_path, control_groups=control_groups)
    if control_groups and runner.executor._open_groups() is None:
        pytest.skip("control groups are not permitted here")
    # A child is greedy, its parent waits: Mesos ends the whole task all the same.
    program = "python3 -c 'x = b\"a\" * (200 << 20); import time; time.sleep(60)' & sleep 60"
    container, _ = await runner.start(program, memory=64)
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert outcome.reason == "REASON_CONTAINER_LIMITATION_MEMORY"
    assert outcome.by_agent
    assert outcome.message.startswith("Memory limit exceeded: Requested: 64MB Maximum Used: ")
    assert outcome.limitation[0]["name"] == "mem"
    await runner.executor.close()
    assert not control_groups or not _groups_of(tmp_path)


def _groups_of(work_dir: Path) -> list[Path]:
    name = f"sdp-{hashlib.sha256(str(work_dir).encode()).hexdigest()[:12]}"
    return list(Path("/sys/fs/cgroup").glob(f"*/{name}"))


def node_of(core: int) -> str | None:
    """The NUMA node of a core, None where the kernel shows none or cannot bind memory to it."""
    if not Path("/proc/self/numa_maps").exists():
        return None
    nodes = Path(f"/sys/devices/system/cpu/cpu{core}").glob("node[0-9]*")
    return next((node.name.removeprefix("node") for node in nodes), None)


async def test_memory_comes_from_the_nodes_of_the_cores(runner: Runner) -> None:
    core = max(os.sched_getaffinity(0))
    if (node := node_of(core)) is None:
        pytest.skip("the kernel shows no NUMA nodes")
    text = await runner.output("head -1 /proc/self/numa_maps", cores=f"[{core}]")
    assert f"bind:{node}" in text


async def test_who_kills_the_executor_ends_the_task(runner: Runner) -> None:
    container, sandbox = await runner.start("echo up; sleep 600")
    await line_of(sandbox)
    assert container.pid is not None
    os.kill(container.pid, signal.SIGKILL)
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert outcome == Outcome.executor_lost("Executor terminated")
    assert not survivors(sandbox)


async def test_a_new_cluster_takes_up_what_it_still_wants(runner: Runner) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    launches = [runner.launch({"value": text}, Resources()) for text in (script, "exit 6", script)]
    containers = [await runner.executor.launch(launch) for launch in launches]
    await line_of(launches[0].sandbox)
    assert containers[1].pid is not None
    if (ending := processes.look(containers[1].pid)) is not None:
        await processes.ended(ending)
    again = ProcessExecutor(runner.work_dir)
    found = await again.recover(launches[:2])
    assert found.keys() == {launch.container_id for launch in launches[:2]}
    assert (await found[launches[1].container_id].wait()).message == "Command exited with status 6"
    assert (await containers[2].wait()).reason == "REASON_EXECUTOR_TERMINATED"
    found[launches[0].container_id].kill(20.0)
    outcome = await asyncio.wait_for(found[launches[0].container_id].wait(), PATIENCE)
    assert outcome.message == "Command exited with status 5"
    assert (launches[0].sandbox / "stdout").read_text() == "up\nbye\n"
    await asyncio.gather(containers[0].wait(), containers[1].wait())
    await again.close()


async def test_a_task_runs_without_a_control_group_where_none_can_be_made(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr("scheduler.embedded.executors.cgroups.Cgroups.create", refuse)
    assert await runner.output("echo all the same", memory=64) == "all the same\n"
