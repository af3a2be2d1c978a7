"""Telescope state of a product: what is written before programs start, and read when they are done."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import katpoint
import redis.asyncio
from katsdptelstate.aio import TelescopeState
from katsdptelstate.aio.redis import RedisBackend
from katsdptelstate.errors import ImmutableKeyError, TelstateError
from redis.exceptions import RedisError

from sdpcontroller.errors import CommandError
from sdpcontroller.store.redis_store import uncut
from sdpcontroller.workflows.imaging import ObservedTarget

_TIMEOUT: Final = 10.0
"""Seconds for one exchange with the telescope state."""
_SOCKET_TIMEOUT: Final = 5.0
"""Seconds for one answer of its server."""
_OVERRIDE: Final = "{}_config_override"
"""Key of what a capture block changes of its product's configuration, as JSON; none if nothing."""
_DAMAGED: Final = (LookupError, TypeError, ValueError, AttributeError)
"""What values of other types than agreed lead to: programs write them, and hostile ones too."""


class _Backend(RedisBackend):
    """Without the subscription that only those need who wait for a key.

    It is a second link, in a task that takes up to half a second to end: redis-py can swallow its cancellation.
    """

    async def _run_pubsub(self) -> None:
        pass


class ProductTelstate:
    """Connection to the telescope state of one product."""

    def __init__(self, telstate: TelescopeState, endpoint: str) -> None:
        self._telstate = telstate
        self._endpoint = endpoint

    @classmethod
    @asynccontextmanager
    async def connect(cls, host: str, port: int) -> AsyncIterator[Self]:
        """Connect for a few exchanges; the link does not outlive them.

        Raises
        ------
        CommandError
            If it does not answer.
        """
        endpoint = f"{host}:{port}"
        client = redis.asyncio.Redis(host=host, port=port, socket_timeout=_SOCKET_TIMEOUT)
        try:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    await client.ping()
            except (RedisError, OSError, TimeoutError) as exc:
                raise CommandError(f"telescope state at {endpoint} does not answer: {exc}") from exc
            yield cls(TelescopeState(_Backend(client)), endpoint)
        finally:
            await uncut(client.aclose())

    async def publish(self, values: Mapping[str, Any]) -> None:
        """Write immutable values by full key; a value that is already there must be the same.

        Raises
        ------
        CommandError
            If telescope state does not take them.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                for key, value in values.items():
                    await self._telstate.set(key, value)
        except ImmutableKeyError as exc:
            raise CommandError(f"telescope state has another value already: {exc}") from exc
        except (TelstateError, ValueError) as exc:
            raise CommandError(f"telescope state cannot hold {key}: {exc}") from exc
        except (RedisError, OSError, TimeoutError) as exc:
            raise CommandError(
                f"telescope state at {self._endpoint} does not answer: {exc}"
            ) from exc

    async def publish_override(self, cbid: str, override: str) -> None:
        """Write what a capture block changes of its product's configuration, a JSON text.

        It is there for people who have the data; and for a controller whose database has lost it.

        Raises
        ------
        CommandError
            If telescope state does not take it.
        """
        await self.publish({_OVERRIDE.format(cbid): override})

    async def override(self, cbid: str) -> str | None:
        """Return what :meth:`publish_override` wrote, or None. Whoever can write there may have written it.

        Raises
        ------
        CommandError
            If telescope state does not answer, or has something else there.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                found = await self._telstate.get(_OVERRIDE.format(cbid))
        except (RedisError, TelstateError, OSError, TimeoutError, *_DAMAGED) as exc:
            raise CommandError(
                f"telescope state at {self._endpoint} does not tell the override of {cbid}: {exc!r}"
            ) from exc
        if not isinstance(found, str | None):
            raise CommandError(f"the override of {cbid} in telescope state is no text")
        return found

    async def observed(self, cbid: str, vis: str) -> list[ObservedTarget]:
        """Return what a capture block observed, in order of first appearance; empty for no data.

        Parameters
        ----------
        cbid
            Capture block.
        vis
            Visibility stream; its writer must have described the data set.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                block = self._telstate.view(f"{cbid}_{vis}")
                stream = self._telstate.view(vis)
                chunks = await block.get("chunk_info")
                first = await block.get("first_timestamp")
                if chunks is None or first is None:
                    return []
                int_time = await stream.get("int_time")
                start = await stream.get("sync_time") + first - 0.5 * int_time
                end = start + chunks["correlator_data"]["shape"][0] * int_time
                track = await self._telstate.get_range(
                    "cbf_target", st=start, et=end, include_previous=True
                )
            return targets(track, start, end)
        except (RedisError, TelstateError, OSError, TimeoutError, *_DAMAGED) as exc:
            raise CommandError(
                f"telescope state at {self._endpoint} does not tell what was observed: {exc!r}"
            ) from exc


def targets(track: list[tuple[str, float]], start: float, end: float) -> list[ObservedTarget]:
    """Add up how long each target was observed between `start` and `end`.

    Parameters
    ----------
    track
        katpoint descriptions with the Unix time from which each holds, in order.
    start, end
        Unix time of the data's begin and end, seconds.

    Raises
    ------
    ValueError
        If a description is none.
    """
    durations: dict[str, float] = defaultdict(float)
    tags: dict[str, frozenset[str]] = {}
    ends = (*(time for _, time in track[1:]), end)
    for (description, since), until in zip(track, ends, strict=False):  # none for an empty track
        if (seconds := min(until, end) - max(since, start)) > 0:
            target = katpoint.Target(description)
            durations[target.name] += seconds  # one target may have been described in two ways
            tags.setdefault(target.name, frozenset(target.tags))
    return [ObservedTarget(name, tags[name], seconds) for name, seconds in durations.items()]
