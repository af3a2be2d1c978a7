"""Telescope state from asyncio programs: katsdptelstate's own asyncio client, with bounds.

Nothing here blocks the event loop, every wait has an end, and what cannot be had raises
`TelstateError` with one line that says which key of which server.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from katsdptelstate.aio.redis import RedisBackend
from katsdptelstate.aio.telescope_state import TelescopeState
from katsdptelstate.errors import ImmutableKeyError
from redis.exceptions import RedisError

from pipelines.common.endpoints import Endpoint
from pipelines.common.errors import TelstateError

CONNECT_TIMEOUT: Final = 10.0
WAIT_TIMEOUT: Final = 30.0
CLOSE_TIMEOUT: Final = 0.2


@asynccontextmanager
async def connect(
    endpoint: Endpoint, timeout: float = CONNECT_TIMEOUT
) -> AsyncIterator[TelescopeState]:
    """Connect to telescope state; the connection is closed when the context ends.

    Parameters
    ----------
    endpoint
        The Redis server.
    timeout
        Seconds until an answer must have come.

    Raises
    ------
    TelstateError
        The server does not answer.
    """
    try:
        async with asyncio.timeout(timeout):
            backend = await RedisBackend.from_url(f"redis://{endpoint}")
    except (OSError, RedisError, TimeoutError) as exc:
        raise TelstateError(f"cannot reach telescope state at {endpoint}: {_line(exc)}") from exc
    telstate = TelescopeState(backend)
    try:
        yield telstate
    finally:
        telstate.backend.close()
        # The backend cancels its background task once and waits for it; redis-py can swallow that one, as it
        # waits for an answer. The timeout cancels again.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await telstate.backend.wait_closed()


async def get(telstate: TelescopeState, key: str, default: Any = ...) -> Any:
    """Value of a key in a view (the newest, for a sensor).

    Raises
    ------
    TelstateError
        The key is not there and no default is given, or the server does not answer.
    """
    try:
        return await telstate[key]
    except KeyError as exc:
        if default is not ...:
            return default
        raise TelstateError(f"telescope state has no {key!r} in {prefix(telstate)}") from exc
    except (OSError, RedisError) as exc:
        raise TelstateError(f"telescope state does not answer for {key!r}: {_line(exc)}") from exc


async def newer(telstate: TelescopeState, key: str, after: float) -> tuple[Any, float] | None:
    """Return the newest sample of a sensor and its time, if that is later than `after`.

    Raises
    ------
    TelstateError
        The key is no sensor, or the server does not answer.
    """
    try:
        samples = await telstate.get_range(key, st=max(0.0, math.nextafter(after, math.inf)))
    except KeyError:
        return None
    except ImmutableKeyError as exc:
        raise TelstateError(f"{key!r} in telescope state is no sensor") from exc
    except (OSError, RedisError) as exc:
        raise TelstateError(f"telescope state does not answer for {key!r}: {_line(exc)}") from exc
    return samples[-1] if samples else None


async def wait(
    telstate: TelescopeState,
    key: str,
    timeout: float = WAIT_TIMEOUT,
    condition: Callable[[Any, float | None], bool] | None = None,
) -> Any:
    """Wait for a key to exist (and meet a condition on value and time), and return its value.

    Raises
    ------
    TelstateError
        It has not come in time, or the server does not answer.
    """
    try:
        async with asyncio.timeout(timeout):
            await telstate.wait_key(key, condition)
            return await telstate[key]
    except TimeoutError as exc:
        raise TelstateError(
            f"telescope state got no {key!r} in {prefix(telstate)} within {timeout:g} s"
        ) from exc
    except (KeyError, OSError, RedisError) as exc:
        raise TelstateError(f"telescope state does not answer for {key!r}: {_line(exc)}") from exc


async def publish(telstate: TelescopeState, key: str, value: Any) -> None:
    """Set an immutable key; setting it again to the same value is fine.

    Raises
    ------
    TelstateError
        It has another value already, or the server does not answer.
    """
    try:
        await telstate.set(key, value)
    except ImmutableKeyError as exc:
        raise TelstateError(
            f"telescope state has another {key!r} in {prefix(telstate)} than {value!r:.100}"
        ) from exc
    except (OSError, RedisError) as exc:
        raise TelstateError(f"telescope state does not take {key!r}: {_line(exc)}") from exc


async def add_sample(telstate: TelescopeState, key: str, value: Any, time: float) -> None:
    """Add a sample to a sensor.

    Parameters
    ----------
    time
        Unix time of the observation, s.

    Raises
    ------
    TelstateError
        The key is no sensor, or the server does not answer.
    """
    try:
        await telstate.add(key, value, ts=time)
    except ImmutableKeyError as exc:
        raise TelstateError(f"{key!r} in telescope state is no sensor") from exc
    except (OSError, RedisError) as exc:
        raise TelstateError(f"telescope state does not take {key!r}: {_line(exc)}") from exc


def prefix(telstate: TelescopeState) -> str:
    """Name of a view, for messages."""
    name = str(telstate.prefixes[0])
    return f"view {name!r}" if name else "its root"


def _line(exc: BaseException) -> str:
    """An exception as one line."""
    return " ".join(str(exc).split()) or type(exc).__name__
