"""A configuration database of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio

from sdpcontroller.products import losses
from sdpcontroller.products.restarts import RestartPolicy
from sdpcontroller.queues import BUILT_IN, QueuesConfig
from sdpcontroller.store import Store
from tests.sdpcontroller.fakes import FakeScheduler, House


@pytest.fixture(autouse=True)
def restart_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses before restarts are for programs that die at once: none does here."""
    monkeypatch.setattr(losses, "POLICIES", {"display": RestartPolicy(limit=3, first=0.001)})


_prefixes = itertools.count()


@pytest.fixture
async def connect(redis_server: Any) -> AsyncIterator[Callable[..., Awaitable[Store]]]:
    """Connects writers to one Redis; without a prefix, each has a database of its own."""
    async with AsyncExitStack() as stack:

        async def make(prefix: str | None = None, fence: str = "") -> Store:
            prefix = prefix if prefix is not None else f"test{next(_prefixes)}"
            store = await Store.connect(redis_server.url, prefix=prefix, fence=fence)
            stack.push_async_callback(store.close)
            return store

        yield make


@pytest.fixture
async def store(connect: Callable[..., Awaitable[Store]]) -> Store:
    """An empty configuration database."""
    return await connect("sdp")


@pytest.fixture
def open_house(redis_server: Any) -> Callable[[], Any]:
    """Makes masters, one after the other: each with an empty database, or with that of the one before."""

    @contextlib.asynccontextmanager
    async def make(
        *,
        after: House | None = None,
        end_products: bool = True,
        queues: QueuesConfig = BUILT_IN,
    ) -> AsyncIterator[House]:
        """The database is Redis' number 1; number 0 is the telescope state of one product at a time.

        A house that comes `after` another has its database and its cluster.
        """
        client = redis.asyncio.from_url(redis_server.url)
        emptying: set[asyncio.Future[Any]] = set()

        async def telescope_state() -> tuple[str, int]:
            # Shielded, because redis-py may swallow a cancellation (see sdpcontroller.store.redis_store).
            task = asyncio.ensure_future(client.flushdb())
            emptying.add(task)
            await asyncio.shield(task)
            return redis_server.host, redis_server.port

        async with client, contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(lambda: asyncio.gather(*emptying))
            if after is None:
                await client.flushall()
            store = await Store.connect(f"{redis_server.url}/1")
            try:
                scheduler = after.scheduler if after else FakeScheduler(telescope_state)
                scheduler.survives = False
                async with House(
                    store, scheduler, end_products=end_products, queues=queues
                ) as house:
                    yield house
            finally:
                await store.close()

    return make


@pytest.fixture
async def house(open_house: Any) -> AsyncIterator[House]:
    """A master that runs, with all that surrounds it."""
    async with open_house() as house:
        yield house
