"""Servers are there as a whole or not at all, and let go in order whoever connects just as they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from scheduler.goahead import GoAhead
from scheduler.journal import MemoryJournal
from scheduler.listening import SocketSite
from scheduler.service import Scheduler
from sdpcontroller.interface_mode.programs import StandInProgram
from sdpcontroller.metrics import Metrics, serve
from tests.conftest import PATIENCE, free_port

Stop = Callable[[], Awaitable[None]]


async def go_ahead() -> tuple[int, Stop]:
    server = GoAhead("127.0.0.1", 0)
    await server.start()
    return int(server.base_url.rpartition(":")[2]), server.stop


async def on_a_socket() -> tuple[int, Stop]:
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.5)
    await runner.setup()
    await SocketSite(runner, socket.create_server(("127.0.0.1", 0))).start()
    return int(runner.addresses[0][1]), runner.cleanup


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("serve", [go_ahead, on_a_socket])
async def test_no_connection_is_lost_between_turns_of_the_loop(
    serve: Callable[[], Awaitable[tuple[int, Stop]]], turns: int
) -> None:
    """CPython's own close leaves the socket of one that was accepted a turn before open."""
    port, stop = await serve()
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await stop()
        gc.collect()  # complains of what was left
        client.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):  # it was not accepted yet
            assert client.recv(1) == b""


async def go_ahead_for_ever(port: int) -> None:
    server = GoAhead("127.0.0.1", port)
    await server.start()
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop()


async def stand_in_for_ever(port: int) -> None:
    program = StandInProgram("ingest", "127.0.0.1", port)
    await program.start()
    try:
        await asyncio.Event().wait()
    finally:
        await program.stop()


async def scheduler_for_ever(port: int) -> None:
    master = "127.0.0.1:9"  # nobody
    journal = MemoryJournal()
    settings: dict[str, Any] = {"framework_name": "test", "goahead_port": port}
    async with Scheduler(master=master, journal=journal, **settings):
        await asyncio.Event().wait()


async def metrics_for_ever(port: int) -> None:
    async with serve(Metrics(), "127.0.0.1", port):
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    "server", [go_ahead_for_ever, stand_in_for_ever, metrics_for_ever, scheduler_for_ever]
)
async def test_what_is_cancelled_while_it_begins_to_listen_leaves_its_port_free(
    server: Callable[[int], Coroutine[Any, Any, None]],
) -> None:
    """In whichever turn of the loop."""
    for turns in range(20):
        port = free_port()
        serving = asyncio.create_task(server(port))
        for _ in range(turns):
            await asyncio.sleep(0)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        socket.create_server(("127.0.0.1", port)).close()
