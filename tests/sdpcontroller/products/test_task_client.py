"""The client that thousands of tasks are linked with."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokatcp

from sdpcontroller.interface_mode.programs import StandInProgram
from sdpcontroller.products.task_client import READ_BUFFER, TaskClient
from tests.conftest import PATIENCE


class Watcher(aiokatcp.AbstractSensorWatcher):
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.changed = asyncio.Event()

    def heard(self, text) -> None: ...

    def sensor_updated(self, name: str, value: bytes, *_: Any) -> None:
        self.values[name] = value
        self.changed.set()


async def test_its_buffer_is_small_and_longer_messages_come_all_the_same() -> None:
    program = StandInProgram("ingest")
    await program.start()
    try:
        await _check(program)
    finally:
        await program.stop()


async def _check(program: StandInProgram) -> None:
    long = "x" * (3 * READ_BUFFER)
    async with TaskClient(*program.sockets[0].getsockname()[:2]) as client:
        watcher = Watcher()
        client.add_sensor_watcher(watcher)
        await client.wait_connected()
        assert client._connection is not None
        assert len(client._connection._buffer) == READ_BUFFER
        program.block.value = long
        async with asyncio.timeout(PATIENCE):
            while watcher.values.get("capture-block-id") != long.encode():
                watcher.changed.clear()
                await watcher.changed.wait()
        client.add_inform_callback("mine", watcher.heard)
        client.remove_inform_callback("mine", watcher.heard)
        assert "mine" not in client._inform_callbacks
