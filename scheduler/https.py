"""Serving HTTP, over TLS where there is a certificate."""

from __future__ import annotations

import asyncio
import ssl

from aiohttp import web

from scheduler.listening import AddressSite, GentleSite
from scheduler.tls import CLOSE_SECONDS, HANDSHAKE_SECONDS


class _TlsSite(GentleSite):
    """As aiohttp's, with handshakes that end."""

    def __init__(
        self, runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext
    ) -> None:
        super().__init__(runner, ssl_context=context)
        self._address = host, port

    @property
    def name(self) -> str:
        """Where it is served."""
        return "https://{}:{}".format(*self._address)

    async def start(self) -> None:
        """Begin to serve."""
        await super().start()
        server = self._runner.server
        assert server is not None  # noqa: S101 - BaseSite has looked
        self._server = await asyncio.get_running_loop().create_server(
            server,
            *self._address,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=CLOSE_SECONDS,
        )


def site(
    runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext | None
) -> web.BaseSite:
    """Return what will serve an application at an address, over TLS if there is a context."""
    if context is None:
        return AddressSite(runner, host, port)
    return _TlsSite(runner, host, port, context)
