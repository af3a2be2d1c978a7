"""Whoever connects in the very moment in which a server ends is let go in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from scheduler.goahead import GoAhead
from scheduler.listening import SocketSite
from tests.conftest import PATIENCE

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
