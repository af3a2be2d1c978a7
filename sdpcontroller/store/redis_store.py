"""Records, each with an event log, in Redis.

A *record* is a JSON document under (table, key) with a version that counts its changes, those of a record of
the same key that was deleted before included, so that no version stands for two documents. Every change and
the event that explains it are one atomic step (a Lua script, because WATCH/MULTI wastes most of its attempts
under contention). A change may demand that nobody changed the record meanwhile, and carries the writer's
fencing number: once a later one was issued, writes with an earlier one are refused.

Nothing outside this package knows that Redis is behind it. :class:`Store` knows documents only; for records
with a type see :mod:`sdpcontroller.store.records`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from scheduler.threads import compute
from sdpcontroller.errors import FencedError, StoreError
from sdpcontroller.store.writes import Writes

T = TypeVar("T")

SCHEMA_VERSION: Final = 3
"""Version of everything written here; :mod:`sdpcontroller.store.schema` tells what becomes of another."""

OLDEST_READABLE: Final = 1
"""The oldest version that is migrated."""

_TIMEOUT: Final = 5.0
"""Seconds for one exchange. One without an answer is not repeated here: it may have been done."""

_EVENTS_KEPT: Final = 10_000
"""Events kept per record; older ones are trimmed."""

_ROWS_AT_ONCE: Final = 128
"""Records that are asked for in one exchange: their answers are read at a stretch."""

_DELETED_KEPT: Final = 30 * 86400
"""Seconds for which the events of a deleted record are kept."""

_FENCED: Final = """
local leader = redis.call('GET', KEYS[1]) or ''
if leader ~= ARGV[1] then return redis.error_reply('FENCED ' .. leader) end
"""
"""Begins every script that writes: a writer whose fencing number is not the newest is refused."""

_PUT: Final = (
    _FENCED
    + """
local found = redis.call('HGET', KEYS[2], 'version')
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= tonumber(found or '0') then
  return redis.error_reply('CONFLICT ' .. (found or '0'))
end
if ARGV[4] == '' and not found then return 0 end
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
local version = tonumber(found or (last and last[2][2]) or '0') + 1
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'version', version, 'event', ARGV[5])
if ARGV[4] == '' then
  redis.call('DEL', KEYS[2])
  redis.call('SREM', KEYS[4], ARGV[3])
  redis.call('EXPIRE', KEYS[3], ARGV[7])
else
  redis.call('HSET', KEYS[2], 'version', version, 'value', ARGV[4], 'schema', ARGV[8])
  redis.call('SADD', KEYS[4], ARGV[3])
  redis.call('PERSIST', KEYS[3])
end
return version
"""
)

_COUNT: Final = (
    _FENCED
    + """
local n = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[3]))
redis.call('SET', KEYS[2], string.format('%.0f', n + ARGV[2]))
return n + ARGV[2]
"""
)

_MIGRATE: Final = (
    _FENCED
    + """
for i = 4, #KEYS do
  redis.call('HSET', KEYS[i], 'value', ARGV[2 * i - 4], 'schema', ARGV[2 * i - 3])
end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('XADD', KEYS[3], '*', 'version', ARGV[2], 'event', ARGV[3])
return #KEYS - 3
"""
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was read: its document and its version."""

    value: Any
    version: int
    schema: int = 1
    """Version of the record's form."""


class Store:
    """The configuration database.

    Parameters
    ----------
    client
        Connection to a Redis with persistence.
    prefix
        First part of every key, so that several systems can share a Redis.
    fence
        Fencing number of this writer, see :class:`sdpcontroller.store.lease.Lease`; empty where nobody was
        ever elected.
    """

    def __init__(
        self, client: redis.asyncio.Redis, *, prefix: str = "sdp", fence: str = ""
    ) -> None:
        # redis-py's annotations cover bytes and str replies and both kinds of client at once
        self.client: Any = client
        self._prefix = prefix
        self.fence = fence
        self.timed: Callable[[str, float], None] = lambda kind, seconds: None
        """Is called with each exchange's kind (write, read, count, lease) and the seconds that it took."""
        self.recollection: dict[tuple[str, str], tuple[Mapping[str, str], Any]] | None = None
        """While it is kept, what was read, by table and key: a record as it is held, and what it is.

        Who stands by reads everything, to see whether it can; when it leads, only what has changed since is
        made out anew. A record is the same when each byte of it is: versions begin anew in a database that has
        lost its last writes.
        """
        self._writes = Writes(client, _PUT, lambda seconds: self.timed("write", seconds))
        self._count_script = client.register_script(_COUNT)

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        password: str | None = None,
        authority: Path | None = None,
        prefix: str = "sdp",
        fence: str = "",
    ) -> Store:
        """Connect, and check the schema version; an empty database is claimed.

        A user of an ACL stands in the URL, ``redis://user@host:6379/0``; the password does not: addresses are
        shown in messages, and command lines to everybody on the machine. ``rediss://`` speaks TLS.

        Parameters
        ----------
        authority
            Certificates (PEM) that may vouch for the server; None: those that the system trusts.

        Raises
        ------
        StoreError
            If Redis does not answer, or holds what this program can neither read nor migrate; if there is a
            password in the URL, or an authority without TLS.
        """
        _refuse_password(url)
        try:
            client = redis.asyncio.from_url(
                url,
                password=password,
                decode_responses=True,
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
                **_encryption(url, authority),
            )
        except ValueError as exc:
            raise StoreError(f"{url} is no address of a Redis: {exc}") from exc
        store = cls(client, prefix=prefix, fence=fence)
        try:
            async with translated(f"connect to {url}"):
                await client.set(store.key("schema"), SCHEMA_VERSION, nx=True)
            found = await store.schema()
            if not OLDEST_READABLE <= found <= SCHEMA_VERSION:
                raise StoreError(
                    f"the database at {url} has schema version {found}, this program reads "
                    f"{OLDEST_READABLE} to {SCHEMA_VERSION}: start the matching version, or give "
                    "another database"
                )
        except BaseException:
            await client.aclose()
            raise
        return store

    async def schema(self) -> int:
        """Return the schema version of what the database holds."""
        async with translated("read the schema version"), self.timing("read"):
            return int(await uncut(self.client.get(self.key("schema"))) or SCHEMA_VERSION)

    async def close(self) -> None:
        """Close the connection, when what is being written is."""
        await self._writes.finish()
        await self.client.aclose()

    def key(self, *parts: str) -> str:
        """Return the full name of a key."""
        return ":".join((self._prefix, *parts))

    async def put(
        self,
        table: str,
        key: str,
        value: Mapping[str, Any] | str,
        *,
        event: str,
        expected_version: int | None = None,
        schema: int = 1,
    ) -> int:
        """Write a record together with the event that explains it; return its new version.

        Parameters
        ----------
        value
            The document, or the JSON that was made of it already.

        Raises
        ------
        StoreError
            If Redis does not answer, this writer was fenced off, or the record is not at
            `expected_version` (0: must not exist).
        """
        text = value if isinstance(value, str) else json.dumps(value)
        return await self._change(table, key, text, event, expected_version, schema)

    async def delete(
        self, table: str, key: str, *, event: str, expected_version: int | None = None
    ) -> None:
        """Remove a record; without one, nothing happens. Raises as :meth:`put`.

        The event log stays for a month, so that one can ask what happened.
        """
        await self._change(table, key, "", event, expected_version, 0)

    async def _change(
        self,
        table: str,
        key: str,
        value: str,
        event: str,
        expected_version: int | None,
        schema: int,
    ) -> int:
        async with translated(f"write {table} {key}"):
            version = await self._writes.run(
                keys=[
                    self.key("fence"),
                    self.key(table, key),
                    self.key("events", table, key),
                    self.key("keys", table),
                ],
                args=[
                    self.fence,
                    "" if expected_version is None else expected_version,
                    key,
                    value,
                    event,
                    _EVENTS_KEPT,
                    _DELETED_KEPT,
                    schema,
                ],
            )
        return int(version)

    @asynccontextmanager
    async def timing(self, kind: str) -> AsyncIterator[None]:
        """Tell :attr:`timed` of an exchange that succeeds."""
        begun = time.monotonic()
        yield
        self.timed(kind, time.monotonic() - begun)

    async def migrate(self, records: Sequence[tuple[str, str, Any, int]]) -> None:
        """Write records in their present form and raise the schema version, all in one step.

        Parameters
        ----------
        records
            Table, key, document and form of each. Their versions stay: they say the same as before.
        """
        keys = [self.key("fence"), self.key("schema"), self.key("events", "schema", "version")]
        args: list[Any] = [self.fence, SCHEMA_VERSION, f"migrated {len(records)} records"]
        for table, key, document, form in records:
            keys.append(self.key(table, key))
            args += [json.dumps(document), form]
        async with translated("migrate the database"):
            await uncut(self.client.eval(_MIGRATE, len(keys), *keys, *args))

    async def get(self, table: str, key: str) -> Stored | None:
        """Read one record; None if there is none."""
        async with translated(f"read {table} {key}"), self.timing("read"):
            found = await uncut(self.client.hgetall(self.key(table, key)))
            return stored(found) if found else None

    async def keys(self, table: str) -> list[str]:
        """Return the keys of the records of a table, in order."""
        async with translated(f"read {table}"):
            return sorted(await uncut(self.client.smembers(self.key("keys", table))))

    async def load(self, table: str) -> dict[str, Stored]:
        """Read a whole table, by key."""
        rows = await self.rows(table)
        async with translated(f"read {table}"):
            return await compute(_all_stored, rows)

    async def rows(self, table: str) -> dict[str, Mapping[str, str]]:
        """Return a whole table as the database holds it, by key; see :func:`stored`."""
        async with translated(f"read {table}"):
            keys = await self.keys(table)
            found: dict[str, Mapping[str, str]] = {}
            for first in range(0, len(keys), _ROWS_AT_ONCE):
                some = keys[first : first + _ROWS_AT_ONCE]
                async with self.timing("read"):
                    rows = await uncut(self._some_rows(table, some))
                # Those that were deleted since the keys were read are empty.
                found.update((key, row) for key, row in zip(some, rows, strict=True) if row)
            return found

    async def _some_rows(self, table: str, keys: Sequence[str]) -> list[dict[str, str]]:
        async with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(self.key(table, key))
            rows: list[dict[str, str]] = await pipe.execute()
            return rows

    async def events(self, table: str, key: str, *, count: int = 100) -> list[tuple[float, str]]:
        """Return the newest events of a record, oldest first, each with its Unix time by the database's clock.

        Also of a record that was deleted.
        """
        async with translated(f"read the events of {table} {key}"):
            rows = await uncut(self.client.xrevrange(self.key("events", table, key), count=count))
        # The id of an entry begins with its time in milliseconds.
        return [(int(i.partition("-")[0]) / 1000, row["event"]) for i, row in reversed(rows)]

    async def take_numbers(self, counter: str, count: int = 1, *, at_least: int = 0) -> int:
        """Take `count` consecutive numbers that were never taken before; return the first.

        Numbers begin at `at_least`, which may grow from call to call. Raises as :meth:`put`.
        """
        async with translated(f"count {counter}"), self.timing("count"):
            end = await uncut(
                self._count_script(
                    keys=[self.key("fence"), self.key("counter", counter)],
                    args=[self.fence, count, at_least],
                )
            )
        return int(end) - count


async def take_graph_number(store: Store) -> int:
    """Return the number of a new graph, part of its id and of those of its tasks.

    It grows with the clock, as capture block ids do: a database that has lost its last second, with the number
    that was taken in it, must not give that again while tasks of the first one may still run.
    """
    return await store.take_numbers("graph", at_least=int(time.time()))


def _encryption(url: str, authority: Path | None) -> dict[str, Any]:
    """Return what redis-py is to be told: the defaults of its releases differ."""
    if urlsplit(url).scheme != "rediss":
        if authority is not None:
            raise StoreError(
                f"{url} is not over TLS, and an authority vouches for nobody: rediss://…"
            )
        return {}
    trust = {} if authority is None else {"ssl_ca_certs": str(authority)}
    return {"ssl_check_hostname": True, "ssl_min_version": ssl.TLSVersion.TLSv1_2, **trust}


def _refuse_password(url: str) -> None:
    parts = urlsplit(url)
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise StoreError(
            "there is a password in the address of the database, where everybody can read it: "
            "give it in SDP_REDIS_PASSWORD, or in a file that SDP_REDIS_PASSWORD_FILE names"
        )


async def uncut(exchange: Awaitable[T]) -> T:
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


def _all_stored(rows: Mapping[str, Mapping[str, str]]) -> dict[str, Stored]:
    return {key: stored(row) for key, row in rows.items()}


def stored(row: Mapping[str, str]) -> Stored:
    """Read a record as the database holds it.

    Raises
    ------
    ValueError, KeyError
        If it is damaged.
    """
    return Stored(json.loads(row["value"]), int(row["version"]), int(row.get("schema", "1")))


@asynccontextmanager
async def translated(act: str) -> AsyncIterator[None]:
    """Turn Redis' exceptions, and those of reading what it holds, into one of ours that says what was tried."""
    try:
        yield
    except ResponseError as exc:
        if str(exc).startswith("FENCED"):
            raise FencedError(f"cannot {act}: another controller has taken over") from exc
        if str(exc).startswith("CONFLICT"):
            raise StoreError(f"cannot {act}: it was changed meanwhile ({exc})") from exc
        raise StoreError(f"cannot {act}: {exc}") from exc
    except RedisError as exc:
        raise StoreError(f"cannot {act}: {exc}") from exc
    except (ValueError, KeyError) as exc:
        raise StoreError(f"cannot {act}: it is damaged ({exc!r})") from exc
