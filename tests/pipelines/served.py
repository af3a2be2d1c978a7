"""A program's KATCP server with a client, in a test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiokatcp


@asynccontextmanager
async def served(server: aiokatcp.DeviceServer) -> AsyncIterator[aiokatcp.Client]:
    """Start a server, connect to it, and end both."""
    await server.start()
    client = await aiokatcp.Client.connect(*server.sockets[0].getsockname()[:2])
    try:
        yield client
    finally:
        client.close()
        await client.wait_closed()
        await server.stop()
