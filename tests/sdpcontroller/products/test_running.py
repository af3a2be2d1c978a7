from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.breath import Ration
from scheduler.task import Death, Outcome, TaskState
from scheduler.views import TaskView
from sdpcontroller.errors import CommandError
from sdpcontroller.products.running import RunningGraph
from tests.conftest import PATIENCE
from tests.sdpcontroller.products.test_connections import Program

NAMES = ("a", "b", "c")


@pytest.fixture
async def programs() -> AsyncIterator[Mapping[str, Program]]:
    servers = {name: Program() for name in NAMES}
    for server in servers.values():
        await server.start()
    yield servers
    for server in servers.values():
        await server.stop()


@pytest.fixture
def graph(programs: Mapping[str, Program]) -> RunningGraph:
    views = {
        name: TaskView(
            graph_id="g", name=name, kind="x", task_id=f"g.{name}.0", state=TaskState.READY,
            ports={"katcp": ("127.0.0.1", server.port)},
        )
        for name, server in programs.items()
    }  # fmt: skip
    services: Any = SimpleNamespace(
        scheduler=SimpleNamespace(task=lambda graph_id, name: views.get(name), views=views),
        linking=asyncio.Semaphore(1),
        sensor_changed=lambda sensor: None,
        may_act=lambda: True,
        reading=Ration(),
    )
    roles: Any = SimpleNamespace(katcp_tasks=NAMES)
    return RunningGraph("p", "g", roles, services)


async def connected(programs: Mapping[str, Program], graph: RunningGraph) -> None:
    for task in NAMES:
        await graph.connections[task].request("echo", "x", timeout=PATIENCE)
    assert [len(server._connections) for server in programs.values()] == [1, 1, 1]


async def until_gone(programs: Mapping[str, Program]) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(server._connections for server in programs.values()):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_all_links_close_though_who_closes_them_is_cancelled(
    programs: Mapping[str, Program], graph: RunningGraph
) -> None:
    """A controller that was cancelled twice left all of them open but the first."""
    await graph.connect()
    await connected(programs, graph)
    closing = asyncio.ensure_future(graph.disconnect_all())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await until_gone(programs)


async def test_no_link_is_opened_once_all_were_closed(
    programs: Mapping[str, Program], graph: RunningGraph
) -> None:
    """A task that is being started again may be ready just after its product was taken down."""
    await graph.connect()
    await graph.disconnect_all()
    with pytest.raises(CommandError, match="its links are closed"):
        graph.connect_task("a")
    assert graph.connections == {}


async def test_a_link_in_the_place_of_another_leaves_one(
    programs: Mapping[str, Program], graph: RunningGraph
) -> None:
    await graph.connect()
    await connected(programs, graph)
    graph.connect_task("b")
    graph.connect_task("b")
    await graph.connections["b"].request("echo", "x", timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        while len(programs["b"]._connections) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await graph.disconnect_all()
    await until_gone(programs)


async def test_a_task_that_does_not_answer_keeps_no_other_from_being_linked(
    programs: Mapping[str, Program], graph: RunningGraph
) -> None:
    await programs["a"].stop()
    taken: list[asyncio.StreamWriter] = []
    mute = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    graph._services.scheduler.task("g", "b").ports["katcp"] = mute.sockets[0].getsockname()[:2]
    async with asyncio.timeout(PATIENCE):
        await graph.connect()  # there is room for one at a time
    await graph.connections["c"].request("echo", "x", timeout=PATIENCE)
    await graph.disconnect_all()
    assert not graph._services.linking.locked()
    mute.close()
    for writer in taken:
        writer.close()
        await writer.wait_closed()


async def test_a_task_that_died_or_was_linked_anew_meanwhile_is_left_alone(
    programs: Mapping[str, Program], graph: RunningGraph
) -> None:
    await graph._services.linking.acquire()
    connecting = asyncio.create_task(graph.connect())
    await asyncio.sleep(0)
    views = graph._services.scheduler.views
    views["a"] = dataclasses.replace(views["a"], death=Death(Outcome.FAILED, "it left"))
    graph.connect_task("b")
    newer = graph.connections["b"]
    graph._services.linking.release()
    await connecting
    assert set(graph.connections) == {"b", "c"}
    assert graph.connections["b"] is newer
    await graph.disconnect_all()
