"""The page that Prometheus reads."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from scheduler.https import site
from scheduler.listening import begin
from sdpcontroller.control import ControlPlane
from sdpcontroller.metrics.counted import Metrics
from sdpcontroller.metrics.exported import Exported
from sdpcontroller.metrics.records import ControlCollector, Queues


@asynccontextmanager
async def serve(
    metrics: Metrics, host: str, port: int, *, token: str = "", tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer ``/metrics`` and ``/health`` until the context ends; gives the port (0 takes a free one).

    Parameters
    ----------
    token
        Who asks for the figures must have it, as ``Authorization: Bearer``; empty: nobody must.
    tls
        Certificate and key; None: plain HTTP.

    Raises
    ------
    OSError
        The address cannot be listened on.
    """

    async def figures(request: web.Request) -> web.Response:
        """Answer with the figures as text, or 401 where the token is wanting."""
        if token and not _may_ask(request, token):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        return web.Response(
            body=await metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    async def health(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", figures)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await begin(site(runner, host, port, tls).start())
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _may_ask(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    right = secrets.compare_digest(given.strip().encode(), token.encode())
    return scheme.lower() == "bearer" and right


def attach(
    control: ControlPlane, metrics: Metrics, queues: Queues | None = None
) -> Callable[[], None]:
    """Let the records of a control plane be read when somebody asks; the returned function ends it.

    Parameters
    ----------
    queues
        The scheduler, where there is one.
    """
    exported = Exported()
    collector = ControlCollector(control, exported, queues)
    metrics.registry.register(collector)
    unlisten = control.listen(exported)

    def detach() -> None:
        unlisten()
        metrics.registry.unregister(collector)

    return detach
