"""``sdp agents``, ``drain`` and ``undrain``, over KATCP to a server with records in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from katcp_iface import KatcpServer
from sdpcontroller.cli import agents
from sdpcontroller.cli.main import main
from sdpcontroller.control import AgentRecord, DrainAgent, UndrainAgent
from tests.katcp_iface.conftest import FakeControl, product, task

Sdp = Callable[..., Awaitable[int]]


@pytest.fixture
def control() -> FakeControl:
    control = FakeControl(agent_records=[AgentRecord("host-1", "S1", "up", "cpus:4")])
    control.put(product("array_1", tasks={"cal": task("cal", host="host-1")}))
    return control


@pytest.fixture
async def sdp(control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sdp]:
    """Run a command line against the controller."""
    monkeypatch.setattr(agents, "_PERIOD", 0.01)
    server = KatcpServer(control, port=0)
    await server.start()

    async def run(*words: str) -> int:
        host, port = server.address
        return await asyncio.to_thread(main, (*words, "--controller", f"{host}:{port}"))

    yield run
    await server.stop()


async def test_agents_are_listed(sdp: Sdp, capsys: pytest.CaptureFixture[str]) -> None:
    assert await sdp("agents", "--json") == 0
    (agent,) = json.loads(capsys.readouterr().out)
    assert agent == {"host": "host-1", "state": "up", "free": "cpus:4", "reason": ""}
    assert await sdp("agents", "host-7") == 1
    assert "there is no agent on 'host-7'" in capsys.readouterr().err


async def test_who_does_not_wait_is_told_what_is_left(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await sdp("drain", "host-1", "--reason", "fan") == 0
    assert control.executed == [DrainAgent("host-1", "fan")]
    assert "there are still 1 tasks: array_1.cal" in capsys.readouterr().out


async def test_who_waits_does_so_until_the_last_task_is_gone(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    drained = asyncio.Event()
    control.set_agent = lambda *_: drained.set()  # type: ignore[method-assign]
    waiting = asyncio.ensure_future(sdp("drain", "host-1", "--wait", "30"))
    await drained.wait()
    assert not waiting.done()
    dead = replace(control.records["array_1"].tasks["cal"], state="dead", outcome="killed")
    control.put(product("array_1", tasks={"cal": dead}))
    assert await waiting == 0
    assert "none is left there" in capsys.readouterr().out


async def test_whoever_waits_in_vain_is_told_for_what(
    sdp: Sdp, control: FakeControl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await sdp("drain", "host-1", "--wait", "0.05") == 1
    assert "still 1 tasks: array_1.cal; they end with" in capsys.readouterr().err
    control.agent_records = []
    assert await sdp("undrain", "host-1", "--wait", "0.05") == 1
    assert "it is not up: the controller does not see it" in capsys.readouterr().err
    control.agent_records = [AgentRecord("host-1", "S1", "quarantined", "", "core 3 twice")]
    control.fault = None
    control.set_agent = lambda *_: None  # type: ignore[method-assign]
    assert await sdp("undrain", "host-1", "--wait", "0.05") == 1
    assert "it is not up: quarantined: core 3 twice" in capsys.readouterr().err


async def test_a_host_is_put_back_when_it_is_seen(sdp: Sdp, control: FakeControl) -> None:
    assert await sdp("drain", "host-1") == 0
    assert await sdp("undrain", "host-1", "--wait", "30") == 0
    assert control.executed[-1] == UndrainAgent("host-1")
    assert control.agent_records[0].state == "up"
