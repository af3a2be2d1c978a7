"""Records, each with an event log, in Redis.

A *record* is a JSON document under (table, key) with a version that counts its changes, those of a record of
the same key that was deleted before included, so that no version stands for two documents. Every change and
the event that explains it are one atomic step (a Lua script, because WATCH/MULTI wastes most of its attempts
under contention). A change may demand that nobody changed the record meanwhile, and carries the writer's
fencing number: once a later one was issued, writes with an earlier one are refused.

Nothing else in the system knows that Redis is behind this module.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from sdpcontroller.errors import StoreError

T = TypeVar("T")

SCHEMA_VERSION: Final = "1"
"""Version of everything written here; another one in the database is refused whole."""

_EVENTS_KEPT: Final = 10_000
"""Events kept per record; older ones are trimmed."""

_DELETED_KEPT: Final = 30 * 86400
"""Seconds for which the events of a deleted record are kept."""

_PUT: Final = """
local fence = tonumber(redis.call('GET', KEYS[4]) or '0')
if tonumber(ARGV[6]) < fence then return redis.error_reply('FENCED ' .. fence) end
local found = redis.call('HGET', KEYS[1], 'version')
if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= tonumber(found or '0') then
  return redis.error_reply('CONFLICT ' .. (found or '0'))
end
if ARGV[3] == '' and not found then return 0 end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local version = tonumber(found or (last and last[2][2]) or '0') + 1
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'version', version, 'event', ARGV[4])
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[3], ARGV[2])
  redis.call('EXPIRE', KEYS[2], ARGV[7])
else
  redis.call('HSET', KEYS[1], 'version', version, 'value', ARGV[3])
  redis.call('SADD', KEYS[3], ARGV[2])
  redis.call('PERSIST', KEYS[2])
end
return version
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was read: its document and its version."""

    value: Any
    version: int


class Store:
    """The configuration database.

    Parameters
    ----------
    client
        Connection to a Redis with persistence.
    prefix
        First part of every key, so that several systems can share a Redis.
    fence
        Fencing number of this writer; 0 for a system without election.
    """

    def __init__(self, client: redis.asyncio.Redis, *, prefix: str = "sdp", fence: int = 0) -> None:
        # redis-py's annotations cover bytes and str replies and both kinds of client at once
        self._client: Any = client
        self._prefix = prefix
        self._fence = fence
        self._put_script = client.register_script(_PUT)

    @classmethod
    async def connect(
        cls, url: str, *, password: str | None = None, prefix: str = "sdp", fence: int = 0
    ) -> Store:
        """Connect, and claim or check the schema version.

        A password should be given apart from the URL, which is shown in messages.

        Raises
        ------
        StoreError
            If Redis does not answer, or holds the data of another schema version.
        """
        try:
            client = redis.asyncio.from_url(url, password=password, decode_responses=True)
        except ValueError as exc:
            raise StoreError(f"{url} is no address of a Redis: {exc}") from exc
        store = cls(client, prefix=prefix, fence=fence)
        try:
            async with _translated(f"connect to {url}"):
                await client.set(store._key("schema"), SCHEMA_VERSION, nx=True)
                found = await store._client.get(store._key("schema"))
            if found != SCHEMA_VERSION:
                raise StoreError(
                    f"the database at {url} has schema version {found}, this program reads "
                    f"{SCHEMA_VERSION}: start the matching version, or give another database"
                )
        except BaseException:
            await client.aclose()
            raise
        return store

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    async def put(
        self,
        table: str,
        key: str,
        value: Mapping[str, Any],
        *,
        event: str,
        expected_version: int | None = None,
    ) -> int:
        """Write a record together with the event that explains it; return its new version.

        Raises
        ------
        StoreError
            If Redis does not answer, this writer was fenced off, or the record is not at
            `expected_version` (0: must not exist).
        """
        return await self._change(table, key, json.dumps(value), event, expected_version)

    async def delete(
        self, table: str, key: str, *, event: str, expected_version: int | None = None
    ) -> None:
        """Remove a record; without one, nothing happens. Raises as :meth:`put`.

        The event log stays for a month, so that one can ask what happened.
        """
        await self._change(table, key, "", event, expected_version)

    async def _change(
        self, table: str, key: str, value: str, event: str, expected_version: int | None
    ) -> int:
        async with _translated(f"write {table} {key}"):
            version = await _uncut(
                self._put_script(
                    keys=[
                        self._key(table, key),
                        self._key("events", table, key),
                        self._key("keys", table),
                        self._key("fence"),
                    ],
                    args=[
                        "" if expected_version is None else expected_version,
                        key,
                        value,
                        event,
                        _EVENTS_KEPT,
                        self._fence,
                        _DELETED_KEPT,
                    ],
                )
            )
        return int(version)

    async def get(self, table: str, key: str) -> Stored | None:
        """Read one record; None if there is none."""
        async with _translated(f"read {table} {key}"):
            found = await _uncut(self._client.hgetall(self._key(table, key)))
            return _stored(found) if found else None

    async def load(self, table: str) -> dict[str, Stored]:
        """Read a whole table, by key."""
        async with _translated(f"read {table}"):
            keys = sorted(await _uncut(self._client.smembers(self._key("keys", table))))
            rows = await _uncut(self._rows(table, keys))
            return {
                key: _stored(row)
                for key, row in zip(keys, rows, strict=True)
                if row  # deleted since the keys were read
            }

    async def _rows(self, table: str, keys: Sequence[str]) -> list[dict[str, str]]:
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(self._key(table, key))
            rows: list[dict[str, str]] = await pipe.execute()
            return rows

    async def events(self, table: str, key: str, *, count: int = 100) -> list[str]:
        """Return the newest events of a record, oldest first; also of one that was deleted."""
        async with _translated(f"read the events of {table} {key}"):
            rows = await _uncut(
                self._client.xrevrange(self._key("events", table, key), count=count)
            )
        return [fields["event"] for _, fields in reversed(rows)]

    async def take_numbers(self, counter: str, count: int = 1, *, at_least: int = 0) -> int:
        """Take `count` consecutive numbers that were never taken before; return the first.

        Numbers begin at `at_least`, which may grow from call to call.
        """
        async with _translated(f"count {counter}"):
            end = await _uncut(
                self._client.eval(
                    "local n = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[2]))"
                    " redis.call('SET', KEYS[1], string.format('%.0f', n + ARGV[1])) return n + ARGV[1]",
                    1,
                    self._key("counter", counter),
                    str(count),
                    str(at_least),
                )
            )
        return int(end) - count


async def _uncut(exchange: Awaitable[T]) -> T:
    """Wait for an exchange with Redis; when we are cancelled, it goes on by itself.

    Half an exchange would cost the connection. And redis-py waits for its writes with ``asyncio.wait_for``,
    which in Python 3.11 returns as if nothing had happened when it is cancelled at the moment of success:
    the task that was told to end would go on.
    """
    task = asyncio.ensure_future(exchange)
    task.add_done_callback(_retrieve)
    return await asyncio.shield(task)


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Look at the exception of an exchange whose caller may have gone away."""
    if not task.cancelled():
        task.exception()


def _stored(row: Mapping[str, str]) -> Stored:
    return Stored(json.loads(row["value"]), int(row["version"]))


@asynccontextmanager
async def _translated(act: str) -> AsyncIterator[None]:
    """Turn Redis' exceptions, and those of reading what it holds, into one of ours that says what was tried."""
    try:
        yield
    except ResponseError as exc:
        if str(exc).startswith("FENCED"):
            raise StoreError(f"cannot {act}: another controller has taken over") from exc
        if str(exc).startswith("CONFLICT"):
            raise StoreError(f"cannot {act}: it was changed meanwhile ({exc})") from exc
        raise StoreError(f"cannot {act}: {exc}") from exc
    except RedisError as exc:
        raise StoreError(f"cannot {act}: {exc}") from exc
    except (ValueError, KeyError) as exc:
        raise StoreError(f"cannot {act}: it is damaged ({exc!r})") from exc
