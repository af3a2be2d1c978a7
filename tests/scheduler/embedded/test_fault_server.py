"""Faults over HTTP: who may ask for them, and what is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scheduler.embedded.faults.admin import FaultServer, read_token
from scheduler.embedded.simulation import Simulation
from scheduler.errors import ClusterError
from tests.scheduler.embedded.frameworks import Watcher, agents, watched


class Admin:
    def __init__(self, session: aiohttp.ClientSession, port: int, framework: Watcher) -> None:
        self.framework = framework
        self._session = session
        self.url = f"http://127.0.0.1:{port}/faults"

    async def ask(self, method: str = "POST", path: str = "", **body: Any) -> tuple[int, Any]:
        json = body or None
        async with self._session.request(method, self.url + path, json=json) as response:
            return response.status, await response.json()


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    headers = {"Authorization": "Bearer secret"}
    async with (
        Simulation(agents(), epoch=None) as cluster,
        FaultServer(cluster.faults, "secret") as server,
        aiohttp.ClientSession(headers=headers) as session,
        watched(cluster) as framework,
    ):
        yield Admin(session, server.port, framework)


@pytest.mark.parametrize(
    "body",
    [
        {"fault": "event", "action": "drop", "state": "TASK_RUNNING", "times": 1},
        {"fault": "event", "action": "delay", "seconds": 0.1},
        {"fault": "event", "action": "duplicate", "copies": 3, "task": "t*"},
        {"fault": "event", "action": "reorder", "kind": "OFFERS"},
        {"fault": "call", "action": "drop", "kind": "ACCEPT"},
        {"fault": "call", "action": "delay", "kind": "ACKNOWLEDGE", "seconds": 0.1},
        {"fault": "call", "action": "refuse", "status": 404},
        {"fault": "call", "action": "hang", "kind": "KILL"},
    ],
)
async def test_a_rule_is_listed_until_it_is_cleared(admin: Admin, body: dict[str, Any]) -> None:
    assert await admin.ask(**body) == (200, {})
    status, told = await admin.ask("GET")
    assert status == 200
    assert told["rules"][0]["action"] == body["action"]
    await admin.ask("DELETE")
    assert await admin.ask("GET") == (200, {"rules": []})


async def test_agents_and_master_can_be_hurt(admin: Admin) -> None:
    framework = admin.framework
    await framework.until(lambda: len(framework.offers) == 2)
    assert await admin.ask(fault="rescind") == (200, {"offers": 2})
    for fault in ("withhold", "offer-again", "partition", "heal", "kill-agent"):
        assert await admin.ask(fault=fault, agent="a1") == (200, {})
    more = {"cpus": 8, "mem": 8192, "ports": "[31000-31999]", "cores": "[0-3]"}
    assert await admin.ask(fault="start-agent", agent="a1", resources=more) == (200, {})
    assert await admin.ask(fault="restart-agent", agent="a2", down=0.01) == (200, {})
    assert await admin.ask(fault="lose-machine", agent="a2") == (200, {})
    fast = {"down": 0.01, "recovery": 0.0, "agents_after": 0.01}
    assert await admin.ask(fault="fail-over", **fast) == (200, {})
    await framework.until(lambda: len(framework.seen("SUBSCRIBED")) == 2)
    assert await admin.ask(fault="silence") == (200, {"streams": 1})
    assert await admin.ask(fault="error", message="no") == (200, {})
    assert await admin.ask(fault="window", status=503, seconds=0.1) == (200, {})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"fault": "earthquake"}, 400),
        ({"fault": "event", "action": "drop", "nonsense": 1}, 400),
        ({"fault": "event", "action": "delay", "seconds": -1}, 400),
        ({"fault": "window", "status": 200}, 400),
        ({"fault": "kill-agent", "agent": "nobody"}, 409),
        ({"fault": "start-agent", "agent": "a1"}, 409),  # it runs
    ],
)
async def test_what_cannot_be_done_is_refused_with_the_reason(
    admin: Admin, body: dict[str, Any], status: int
) -> None:
    answer, told = await admin.ask(**body)
    assert answer == status
    assert told["problems"][0]["msg"]


async def test_the_schema_names_every_fault(admin: Admin) -> None:
    status, schema = await admin.ask("GET", "/schema")
    assert status == 200
    assert {"event", "fail-over", "partition"} <= set(schema["discriminator"]["mapping"])


@pytest.mark.parametrize("header", [None, "Bearer wrong", "secret", "Bearer sécret"])
async def test_without_the_token_nothing_happens(admin: Admin, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with aiohttp.ClientSession(headers=headers) as session:
        for method in ("GET", "POST", "DELETE"):
            async with session.request(method, admin.url) as response:
                assert response.status == 401


def test_a_token_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(ClusterError, match="cannot read the admin token"):
        read_token(path)
    path.write_text("secret\n")
    path.chmod(0o644)
    with pytest.raises(ClusterError, match="others may read the admin token"):
        read_token(path)
    path.chmod(0o600)
    assert read_token(path) == "secret"
    path.write_text("\n")
    with pytest.raises(ClusterError, match="holds no token"):
        read_token(path)


async def test_a_port_that_is_taken_is_named(admin: Admin) -> None:
    port = int(admin.url.split(":")[2].split("/")[0])
    async with Simulation([]) as cluster:
        with pytest.raises(ClusterError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with FaultServer(cluster.faults, "x", port):
                await asyncio.sleep(0)
