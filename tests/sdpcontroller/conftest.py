"""A configuration database of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from sdpcontroller.store import Store

_prefixes = itertools.count()


@pytest.fixture
async def connect(redis_server: Any) -> AsyncIterator[Callable[..., Awaitable[Store]]]:
    """Connects writers to one Redis; without a prefix, each has a database of its own."""
    async with AsyncExitStack() as stack:

        async def make(prefix: str | None = None, fence: int = 0) -> Store:
            prefix = prefix if prefix is not None else f"test{next(_prefixes)}"
            store = await Store.connect(redis_server.url, prefix=prefix, fence=fence)
            stack.push_async_callback(store.close)
            return store

        yield make


@pytest.fixture
async def store(connect: Callable[..., Awaitable[Store]]) -> Store:
    """An empty configuration database."""
    return await connect("sdp")
