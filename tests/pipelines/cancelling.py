"""Loops that must end whenever they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.conftest import PATIENCE

TURNS = range(80)
"""Of the event loop, before the loop is cancelled: several exchanges with a Redis server."""


async def ends_whenever_it_is_cancelled(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begin some work again and again, and cancel it a turn later each time: once must do."""
    for turns in TURNS:
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE)
        ended = task.done()
        while not task.done():  # or nothing after this test would end
            task.cancel()
            await asyncio.sleep(0)
        assert ended, f"it goes on after it was cancelled in turn {turns}"
