"""Agents taken out of service and put back."""

from __future__ import annotations

import pytest

from sdpcontroller.control import AgentRecord, DrainAgent, UndrainAgent
from sdpcontroller.draining import Draining
from sdpcontroller.errors import CommandError
from tests.katcp_iface.conftest import product, task


class Hosts:
    """Remembers which hosts are closed, as the scheduler does."""

    def __init__(self) -> None:
        self.closed: dict[str, str] = {}

    async def drain(self, host: str, reason: str = "") -> None:
        self.closed[host] = reason

    async def undrain(self, host: str) -> None:
        self.closed.pop(host, None)


TASKS = {
    "ingest.0": task("ingest.0", host="h1"),
    "ingest.1": task("ingest.1", host="h2"),
    "cal": task("cal", host="h1", state="dead", outcome="failed"),
}


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def draining(hosts: Hosts) -> Draining:
    agents = [AgentRecord("h1", "S1", "up", ""), AgentRecord("h2", "S2", "lost", "")]
    products = {"array_1": product("array_1", tasks=TASKS)}
    return Draining(hosts, lambda: agents, lambda: products)


async def test_who_is_still_there_is_told(draining: Draining, hosts: Hosts) -> None:
    left = await draining.handlers()[DrainAgent](DrainAgent("h1", "fan"))
    assert left == ("array_1.ingest.0",), "neither the dead nor those elsewhere"
    assert hosts.closed == {"h1": "fan"}


async def test_a_reason_does_nothing_to_a_terminal(draining: Draining, hosts: Hosts) -> None:
    await draining.handlers()[DrainAgent](DrainAgent("h1", "wörk\x1b[2J\n"))
    assert hosts.closed == {"h1": "wörk�[2J�"}


async def test_a_host_without_agent_is_refused(draining: Draining, hosts: Hosts) -> None:
    with pytest.raises(CommandError, match=r"no agent on 'h3'.*hosts: h1, h2"):
        await draining.handlers()[DrainAgent](DrainAgent("h3"))
    assert hosts.closed == {}


async def test_a_host_that_has_gone_can_be_put_back(draining: Draining, hosts: Hosts) -> None:
    hosts.closed["h9"] = "burnt"
    await draining.handlers()[UndrainAgent](UndrainAgent("h9"))
    assert hosts.closed == {}
