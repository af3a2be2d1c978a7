"""Tasks in real Docker containers. Skipped where there is no engine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.embedded.executors import ContainerLaunchError, Launch, Outcome, Running
from scheduler.embedded.executors.docker import WORK_DIR_LABEL, DockerExecutor
from scheduler.embedded.executors.docker_config import container_name
from scheduler.embedded.model import AgentInfo, AgentSpec, FrameworkInfo, TaskInfo
from scheduler.embedded.pool import Pool
from scheduler.errors import ClusterError
from scheduler.quantities import Ranges, Resources
from tests.conftest import PATIENCE

AGENT = AgentInfo("S0", 1, AgentSpec("127.0.1.1", Resources()), ("127.0.0.1", 5050))
RESOURCES = Resources({"cpus": 200, "mem": 64_000}, {"ports": Ranges.parse("[31000-31009]")})


def docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


class Runner:
    def __init__(self, work_dir: Path, image: str) -> None:
        self.work_dir = work_dir
        self.image = image
        self.executor = DockerExecutor(work_dir)

    def launch(self, *command: str, **more: Any) -> Launch:
        """A launch of a command; ``parameters``, ``docker`` and ``container`` go where Mesos has them."""
        settings = {"image": self.image, "network": "HOST", **more.pop("docker", {})}
        settings["parameters"] = [
            {"key": key, "value": value} for key, value in more.pop("parameters", ())
        ]
        info: dict[str, Any] = {"shell": False, "value": command[0], "arguments": [*command[1:]]}
        document = {
            "command": info | more.pop("command", {}),
            "container": {"type": "DOCKER", "docker": settings, **more.pop("container", {})},
        }
        container_id = str(uuid.uuid4())
        task = TaskInfo("t", "t", "S0", "sdp", Pool.unreserved(RESOURCES), document)
        sandbox = self.work_dir / "slaves/S0/frameworks/F/executors/t/runs" / container_id
        return Launch(FrameworkInfo(id="F", name="f"), AGENT, task, container_id, sandbox)

    async def run(self, *command: str, **more: Any) -> tuple[Outcome, str, str]:
        """Run to the end; what it was, stdout and stderr."""
        launch = self.launch(*command, **more)
        container = await self.executor.launch(launch)
        await container.started()
        outcome = await asyncio.wait_for(container.wait(), PATIENCE)
        out, err = ((launch.sandbox / name).read_text() for name in ("stdout", "stderr"))
        return outcome, out, err

    def left(self) -> str:
        return docker("ps", "-aq", "--filter", f"label={WORK_DIR_LABEL}={self.work_dir}")


@pytest.fixture
async def runner(tmp_path: Path, busybox_image: str) -> AsyncIterator[Runner]:
    runner = Runner(tmp_path, busybox_image)
    yield runner
    left = runner.left()
    await runner.executor.recover(())
    await runner.executor.close()
    assert left == ""
    assert runner.left() == ""


def text_of(path: Path) -> str:
    return path.read_text()


async def line_of(path: Path) -> str:
    """Wait for the first line that a task writes."""
    async with asyncio.timeout(PATIENCE):
        while True:
            text = text_of(path)
            if "\n" in text:
                return text.partition("\n")[0]
            await asyncio.sleep(0.02)


async def test_a_task_sees_what_mesos_would_show_it(runner: Runner, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("of the host")
    script = "env; cat /data/file; echo oops >&2; touch /mnt/mesos/sandbox/made; touch /data/x"
    launch = runner.launch(
        "/bin/sh",
        "-c",
        script,
        parameters=[("env", "BOTH=parameter"), ("label", "a=b"), ("ulimit", "nofile=2048")],
        command={"environment": {"variables": [{"name": "FOO", "value": "bar"}]}},
        container={
            "volumes": [{"container_path": "/data", "host_path": str(data), "mode": "RO"}],
        },
    )
    container = await runner.executor.launch(launch)
    running = await container.started()
    assert isinstance(running, Running)
    assert container.pid is None
    assert running.address is None
    inspected = json.loads(running.data)[0]
    name = container_name(launch.container_id)
    assert inspected["Name"] == f"/{name}"
    assert inspected["HostConfig"]["CpuShares"] == 204
    assert inspected["HostConfig"]["Memory"] == 64 << 20
    assert inspected["Config"]["Labels"]["a"] == "b"
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert (outcome.succeeded, outcome.message) == (False, "Container exited with status 1")
    out = (launch.sandbox / "stdout").read_text()
    for line in (
        "MESOS_SANDBOX=/mnt/mesos/sandbox",
        f"MESOS_CONTAINER_NAME={name}",
        "MESOS_ALLOCATION_ROLE=sdp",
        "FOO=bar",
        "BOTH=parameter",
    ):
        assert line in out.splitlines()
    assert out.endswith("of the host")
    assert (launch.sandbox / "stderr").read_text().startswith("oops\n")
    assert (launch.sandbox / "made").exists()
    assert not (data / "x").exists()


@pytest.mark.parametrize(
    ("command", "more", "status", "text"),
    [
        (("/bin/sh", "-c", "exit 3"), {}, 3, ""),
        (("/bin/true",), {}, 0, ""),
        (("no-such-program",), {}, 127, "executable file not found"),
        (("/etc",), {}, 126, "permission denied"),
        (("true",), {"parameters": [("nosuchparam", "x")]}, 125, "unknown flag: --nosuchparam"),
        (("true",), {"parameters": [("cpuset-cpus", "9999")]}, 125, "9999"),
        (
            ("true",),
            {"parameters": [("cpus", "many")]},
            125,
            'invalid argument "many" for "--cpus"',
        ),
        (("/bin/sh", "-c", "x=a; while :; do x=$x$x; done"), {}, 137, ""),
    ],
)
async def test_the_end_is_told_in_the_words_of_mesos(
    runner: Runner, command: tuple[str, ...], more: dict[str, Any], status: int, text: str
) -> None:
    outcome, _, err = await runner.run(*command, **more)
    assert outcome == Outcome(status == 0, f"Container exited with status {status}")
    assert text in err


async def test_cores_memory_nodes_and_shared_memory_are_the_kernels(runner: Runner) -> None:
    script = "grep _allowed_list /proc/self/status; df -k /dev/shm | tail -1"
    parameters = [("cpuset-cpus", "1"), ("cpuset-mems", "0"), ("shm-size", "8m")]
    outcome, out, _ = await runner.run("/bin/sh", "-c", script, parameters=parameters)
    assert outcome.succeeded
    lines = out.splitlines()
    assert lines[0].split() == ["Cpus_allowed_list:", "1"]
    assert lines[1].split() == ["Mems_allowed_list:", "0"]
    assert lines[2].split()[1] == "8192"


async def test_a_shell_command_replaces_the_entry_point(runner: Runner) -> None:
    outcome, out, _ = await runner.run(
        "",
        command={"shell": True, "value": "echo $0 $((1+2))", "arguments": []},
        parameters=[("entrypoint", "/bin/false")],
    )
    assert (outcome.succeeded, out) == (True, "/bin/sh 3\n")


async def test_a_bridged_container_has_an_address_and_ports_of_its_own(runner: Runner) -> None:
    mapping = {"host_port": 31003, "container_port": 80}
    launch = runner.launch(
        "/bin/sleep", "60", docker={"network": "BRIDGE", "port_mappings": [mapping]}
    )
    container = await runner.executor.launch(launch)
    running = await container.started()
    assert running is not None
    inspected = json.loads(running.data)[0]
    assert running.address == inspected["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert inspected["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == "31003"
    container.kill(0.0)
    assert (await container.wait()).message == "Container exited with status 137"


async def test_who_obeys_the_term_ends_himself(runner: Runner) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    launch = runner.launch("/bin/sh", "-c", script)
    container = await runner.executor.launch(launch)
    await container.started()
    await line_of(launch.sandbox / "stdout")
    container.kill(30.0)
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert outcome.message == "Container exited with status 0"
    assert (launch.sandbox / "stdout").read_text() == "up\nbye\n"


async def test_who_ignores_the_term_is_killed_after_the_grace_period(runner: Runner) -> None:
    container = await runner.executor.launch(runner.launch("/bin/sleep", "600"))
    await container.started()
    begin = asyncio.get_running_loop().time()
    container.kill(0.5)
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert outcome.message == "Container exited with status 137"
    assert asyncio.get_running_loop().time() - begin >= 0.5


async def test_a_kill_before_the_start_starts_nothing(runner: Runner) -> None:
    container = await runner.executor.launch(runner.launch("/bin/sleep", "600"))
    container.kill(3.0)
    assert await container.started() is None
    assert (await container.wait()).message == "Container exited with status 137"


@pytest.mark.parametrize("how", [("kill",), ("stop", "-t", "1"), ("rm", "-f")])
async def test_who_kills_it_from_outside_makes_it_fail(
    runner: Runner, how: tuple[str, ...]
) -> None:
    launch = runner.launch("/bin/sleep", "600")
    container = await runner.executor.launch(launch)
    await container.started()
    await asyncio.to_thread(docker, *how, container_name(launch.container_id))
    outcome = await asyncio.wait_for(container.wait(), PATIENCE)
    assert outcome == Outcome(False, "Container exited with status 137")


async def test_an_image_that_cannot_be_pulled_fails_the_launch(runner: Runner) -> None:
    with pytest.raises(ContainerLaunchError, match=r"pull localhost:1/none:latest.*refused"):
        await runner.executor.launch(runner.launch("true", docker={"image": "localhost:1/none"}))
    with pytest.raises(ContainerLaunchError, match="Failed to run 'docker pull"):
        await runner.executor.launch(runner.launch("true", docker={"force_pull_image": True}))


async def test_a_new_cluster_removes_what_a_killed_one_has_left_and_nothing_else(
    runner: Runner, tmp_path: Path
) -> None:
    launch, other = runner.launch("/bin/sleep", "600"), Runner(tmp_path / "other", runner.image)
    theirs = await other.executor.launch(other.launch("/bin/sleep", "600"))
    ours = await runner.executor.launch(launch)
    await ours.started()
    await theirs.started()
    again = DockerExecutor(runner.work_dir)
    assert await again.recover(()) == {}
    await again.close()
    assert runner.left() == ""
    assert len(other.left().split()) == 1
    theirs.kill(0.0)
    await theirs.wait()
    await ours.wait()
    await other.executor.close()


async def test_a_new_cluster_takes_up_what_it_still_wants(runner: Runner) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    launch = runner.launch("/bin/sh", "-c", script)
    first = await runner.executor.launch(launch)
    await first.started()
    await line_of(launch.sandbox / "stdout")
    second = DockerExecutor(runner.work_dir)
    container = (await second.recover([launch]))[launch.container_id]
    assert await container.started() is not None
    container.kill(20.0)
    assert (await container.wait()).message == "Container exited with status 5"
    await first.wait()
    # Both copied what it wrote after the takeover; what was there before is there once.
    assert (launch.sandbox / "stdout").read_text().splitlines()[0] == "up"
    assert (launch.sandbox / "stdout").read_text().count("up") == 1
    await second.close()


async def test_without_an_engine_the_cluster_says_so(tmp_path: Path) -> None:
    executor = DockerExecutor(tmp_path, url=f"unix://{tmp_path}/none.sock")
    with pytest.raises(ClusterError, match="cannot reach the Docker engine"):
        await executor.recover(())
