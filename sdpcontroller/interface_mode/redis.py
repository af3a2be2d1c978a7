"""A Redis server of one's own, on loopback, that ends with the process that runs it, and its data with it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sdpcontroller.children import with_parent
from sdpcontroller.errors import ControllerError

HOST: Final = "127.0.0.1"
_SECONDS: Final = 10.0
_POLL: Final = 0.01


@asynccontextmanager
async def private_redis() -> AsyncIterator[tuple[str, int]]:
    """Run a Redis server until the context ends; gives host and port.

    Raises
    ------
    ControllerError
        If it is not installed or does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise ControllerError(
            "redis-server is not installed; try: sudo apt-get install redis-server"
        )
    with tempfile.TemporaryDirectory(prefix="sdp-redis-") as folder:
        port = _free_port()
        settings = {"bind": HOST, "port": str(port), "dir": folder, "save": "", "appendonly": "no"}
        options = (part for name, value in settings.items() for part in (f"--{name}", value))
        process = await asyncio.create_subprocess_exec(
            *with_parent([program, *options]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await _listening(process, port)
            yield HOST, port
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    try:
        async with asyncio.timeout(_SECONDS):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection(HOST, port)
                except OSError:
                    await asyncio.sleep(_POLL)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return
    except TimeoutError:
        pass
    raise ControllerError(f"redis-server does not listen on port {port}")
