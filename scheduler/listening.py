"""Servers that begin to listen as a whole or not at all, and stop without losing a connection.

What is cancelled just when asyncio has made a server is left listening, with nobody who could close it (CPython
3.11 to 3.13: ``create_server`` waits for one more turn of the loop).

A connection that asyncio has accepted gets its transport in the next turn of the loop. When the server is
closed in between, it never gets one: its socket is left open, and whoever connected hears nothing, until the
garbage collector comes by (CPython 3.11; https://github.com/python/cpython/issues/109564).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

from aiohttp import web


class Listener(Protocol):
    """A listening socket, or asyncio's wrapper of one."""

    def fileno(self) -> int:
        """Return its file descriptor."""


async def begin(
    beginning: Coroutine[Any, Any, None], end: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Begin to listen; when that is cancelled, it comes to its end first, and then what has begun is ended.

    Parameters
    ----------
    end
        Ends what has begun; None: its owner does.
    """
    task = asyncio.ensure_future(beginning)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is None and end is not None:
            await end()
        raise


async def stop_accepting(listeners: Iterable[Listener]) -> None:
    """Accept no more on the sockets of a server, which is to be closed then; let what was accepted begin."""
    loop = asyncio.get_running_loop()
    for listener in listeners:
        loop.remove_reader(listener.fileno())
    await asyncio.sleep(0)


class GentleSite(web.BaseSite):
    """Stops listening as above."""

    __slots__ = ()

    async def stop(self) -> None:
        """Stop listening."""
        if isinstance(self._server, asyncio.Server):
            await stop_accepting(self._server.sockets)
        await super().stop()


class AddressSite(GentleSite, web.TCPSite):
    """Serves an application at an address."""

    __slots__ = ()


class SocketSite(GentleSite, web.SockSite):
    """Serves an application on a socket."""

    __slots__ = ()
