"""Servers that stop listening without losing a connection.

A connection that asyncio has accepted gets its transport in the next turn of the loop. When the server is
closed in between, it never gets one: its socket is left open, and whoever connected hears nothing, until the
garbage collector comes by (CPython 3.11; https://github.com/python/cpython/issues/109564).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from aiohttp import web


class Listener(Protocol):
    """A listening socket, or asyncio's wrapper of one."""

    def fileno(self) -> int:
        """Return its file descriptor."""


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
