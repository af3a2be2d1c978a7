"""The page that Prometheus reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from sdpcontroller.control import ControlPlane
from sdpcontroller.metrics.counted import Metrics
from sdpcontroller.metrics.exported import Exported
from sdpcontroller.metrics.records import ControlCollector, Queues


@asynccontextmanager
async def serve(metrics: Metrics, host: str, port: int) -> AsyncIterator[int]:
    """Answer ``/metrics`` and ``/health`` until the context ends; gives the port (0 takes a free one).

    Raises
    ------
    OSError
        The address cannot be listened on.
    """

    async def figures(request: web.Request) -> web.Response:
        """``/metrics``: in Prometheus' text format."""
        return web.Response(
            body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    async def health(request: web.Request) -> web.Response:
        """``/health``: that the event loop answers."""
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", figures)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


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
