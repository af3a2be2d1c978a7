"""Senders that wait for receivers: a socket holds little, and who empties it may have to wait for a core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipelines.common.l0.server import L0Server
from tests.conftest import PATIENCE


async def reach(count: Callable[[], int], least: int) -> None:
    """Wait until a network thread has counted so many: nothing tells this one."""
    async with asyncio.timeout(PATIENCE):
        while count() < least:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def taken(heaps: int, *servers: L0Server) -> None:
    """Wait until each has seen so many heaps of its capture block, whatever it made of them."""
    for server in servers:
        receiver = server._receiver
        assert receiver is not None
        await reach(lambda receiver=receiver: sum(receiver.heaps.values()), heaps)
