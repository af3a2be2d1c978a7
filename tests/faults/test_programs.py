"""The programs of the bench themselves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import aiokatcp
import pytest

from benchmarks.control.in_process import InProcessTask
from scheduler.embedded.executors import Launch
from tests.conftest import free_port


class Server(aiokatcp.DeviceServer):
    VERSION = BUILD_STATE = "test-1.0"


class Task(InProcessTask):
    async def run(self, stack: contextlib.AsyncExitStack) -> None:
        await self.listen(stack)
        await asyncio.Event().wait()

    def made_server(self, port: int) -> aiokatcp.DeviceServer:
        return Server("127.0.0.1", port)


def _launch(name: str, port: int) -> Launch:
    ports = {"ports": {"ports": [{"name": name, "number": port}]}}
    return cast(
        Launch, SimpleNamespace(command={}, task=SimpleNamespace(document={"discovery": ports}))
    )


@pytest.mark.parametrize("name", ["katcp", "spead"])
async def test_one_that_ends_while_it_begins_to_listen_leaves_its_port_free(name: str) -> None:
    for turns in range(8):
        port = free_port()
        task = Task(_launch(name, port), "127.0.0.1", cast(aiohttp.ClientSession, Any))
        await task.started()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.kill(0.0)
        await task.wait()
        socket.create_server(("127.0.0.1", port)).close()
