"""When checks look, and what follows: the state machine by properties, and real probes of real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis.strategies as st
import pytest
from hypothesis import given

from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.checks import Check, Health
from scheduler.quantities import Resources
from tests.conftest import PATIENCE, free_port
from tests.scheduler.embedded.test_http import Client


def health_check(**more: Any) -> Check:
    document = {"type": "COMMAND", "command": {"value": "true"}, **more}
    return Check.from_mesos(document)


@given(
    looks=st.lists(st.tuples(st.booleans(), st.floats(0.1, 5.0)), max_size=30),
    failures=st.integers(1, 4),
    grace=st.floats(0.0, 10.0),
)
def test_a_health_check_tells_news_and_kills_after_so_many_failures(
    looks: list[tuple[bool, float]], failures: int, grace: float
) -> None:
    check = health_check(consecutive_failures=failures, grace_period_seconds=grace)
    health, now, row, seen, told = Health(check, 0.0), 0.0, 0, False, None
    for good, pause in looks:
        now += pause
        verdict = health.judge(good, now)
        if good:
            assert (verdict is not None) == (told is not True), "only news are told"
            seen, row = True, 0
        elif not seen and now <= grace and told is None:
            assert verdict is None, "failures at the beginning do not count"
            continue
        else:
            row += 1
            assert verdict is not None
            assert (verdict.healthy, verdict.kill) == (False, row >= failures)
        if verdict is not None:
            told = verdict.healthy


@pytest.mark.parametrize(
    ("status", "listed", "good"),
    [(200, [], True), (399, [], True), (400, [], False), (404, [404], True), (200, [404], False)],
)
def test_an_http_health_check_is_good_for_a_success_or_a_listed_status(
    status: int, listed: list[int], good: bool
) -> None:
    document = {"type": "HTTP", "http": {"port": 1, "statuses": listed}}
    assert Check.from_mesos(document).is_healthy(status) is good


TIMES = {"delay_seconds": 0.05, "interval_seconds": 0.1, "timeout_seconds": 2.0}


@pytest.fixture
async def client(tmp_path: Path) -> Any:
    spec = AgentSpec("127.0.1.1", Resources({"cpus": 4000, "mem": 1_000_000}))
    cluster = Cluster([spec], work_dir=tmp_path, port=0, allocation_interval=0.1)
    async with cluster, aiohttp.ClientSession() as session:
        client = Client(session, cluster)
        await client.subscribe()
        yield client
        client.close()


async def launch(client: Client, command: str, **checks: Any) -> None:
    offer = (await client.event("OFFERS"))["offers"]["offers"][0]
    task = {
        "task_id": {"value": "t"},
        "name": "t",
        "agent_id": offer["agent_id"],
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}],
        "command": {"value": command},
        **checks,
    }
    operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
    await client.call("ACCEPT", offer_ids=[offer["id"]], operations=[operation])
    await client.state("TASK_RUNNING")


def make_ready(work_dir: Path) -> None:
    (sandbox,) = work_dir.glob("slaves/*/frameworks/*/executors/t/runs/latest")
    (sandbox / "ready").touch()


async def test_a_command_looks_into_the_sandbox_of_its_task(client: Client, tmp_path: Path) -> None:
    command = {"value": "test -f ready && exit 7"}
    check = {"type": "COMMAND", "command": {"command": command}, **TIMES}
    await launch(client, "sleep 600", check=check)
    before = (await client.state("TASK_RUNNING"))["check_status"]
    make_ready(tmp_path)
    after = (await client.state("TASK_RUNNING"))["check_status"]
    assert [s["command"]["exit_code"] for s in (before, after)] == [1, 7]


async def test_a_task_is_known_by_its_http_and_tcp_answers(client: Client) -> None:
    port = free_port("127.0.1.1")
    program = f"exec python3 -m http.server --bind 127.0.1.1 {port}"
    http = {"type": "HTTP", "http": {"port": port, "path": "/nothere"}}
    await launch(
        client,
        program,
        check={"type": "TCP", "tcp": {"port": port}, **TIMES},
        health_check={**http, "http": {**http["http"], "statuses": [404]}, **TIMES},
    )
    seen: dict[str, Any] = {}
    async with asyncio.timeout(PATIENCE):
        while not (seen.get("healthy") and seen["check_status"]["tcp"].get("succeeded")):
            seen = await client.state("TASK_RUNNING")


async def test_an_unhealthy_task_is_killed_and_says_so(client: Client) -> None:
    health = {"type": "TCP", "tcp": {"port": 1}, "consecutive_failures": 2, **TIMES}
    await launch(client, "sleep 60", health_check={**health, "grace_period_seconds": 0.0})
    killed = await client.state("TASK_KILLED")
    assert killed["healthy"] is False
    assert "reason" not in killed


def lives(work_dir: Path) -> bool:
    """Whether the process of a check that has left its number is still there."""
    (note,) = work_dir.glob("slaves/*/frameworks/*/executors/t/runs/pid")
    return Path("/proc", note.read_text().strip()).exists()


async def test_a_check_that_takes_too_long_is_killed(client: Client, tmp_path: Path) -> None:
    slow = {"value": "echo $$ > ../pid; sleep 60"}
    health = {"type": "COMMAND", "command": slow, "consecutive_failures": 1, **TIMES}
    timeout = {"timeout_seconds": 0.5, "grace_period_seconds": 0.0}
    await launch(client, "sleep 60", health_check={**health, **timeout})
    await client.state("TASK_KILLED")
    assert not await asyncio.to_thread(lives, tmp_path)
