"""An unmodified pymesos against the embedded cluster."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from scheduler.embedded import AgentSpec, Cluster
from scheduler.quantities import Ranges, Resources
from tests.conftest import PATIENCE

PROGRAM = Path(__file__).with_name("pymesos_program.py")


async def run(cluster: Cluster, *arguments: str) -> list[dict[str, Any]]:
    """Run the framework's program to its end; return its callbacks."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        "{}:{}".format(*cluster.address),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, out.decode() + err.decode()
    return [json.loads(line) for line in out.splitlines()]


def updates(calls: list[dict[str, Any]], task: str) -> list[str]:
    return [c["state"] for c in calls if c["callback"] == "statusUpdate" and c["task"] == task]


async def test_a_framework_on_pymesos_launches_leaves_returns_and_kills(tmp_path: Path) -> None:
    resources = Resources({"cpus": 2000, "mem": 1_024_000}, {"cores": Ranges.parse("[0-3]")})
    specs = [AgentSpec(f"127.0.1.{number}", resources) for number in (1, 2)]
    async with Cluster(specs, work_dir=tmp_path, port=0) as cluster:
        calls = await run(cluster, "launch")
        assert (calls[0]["callback"], calls[0]["version"]) == ("registered", "1.12.0")
        offered = [c["hostnames"] for c in calls if c["callback"] == "resourceOffers"]
        assert offered[0] == ["127.0.1.1", "127.0.1.2"]
        assert updates(calls, "short") == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
        framework_id = calls[0]["id"]
        framework = cluster.master.frameworks[framework_id]
        await asyncio.wait_for(_until_gone(framework), PATIENCE)
        assert "long" in framework.tasks  # it outlives its framework for a while

        calls = await run(cluster, "return", framework_id)
        assert {"callback": "reregistered", "id": framework_id} in calls
        assert updates(calls, "long")[0] == "TASK_RUNNING"
        assert updates(calls, "long")[-1] == "TASK_KILLED"
        assert updates(calls, "other") == ["TASK_UNKNOWN"]
        assert framework_id in cluster.master.completed_frameworks
        for record in cluster.master.agents.values():
            assert record.free == record.total


async def _until_gone(framework: Any) -> None:
    while framework.connected:  # noqa: ASYNC110 - the end of a connection has no event here
        await asyncio.sleep(0.01)
