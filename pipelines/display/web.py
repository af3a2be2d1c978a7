"""The display's web server: one page, its script and style, and the two addresses that the script asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib import resources
from typing import Final

from aiohttp import web

from pipelines.common.web import served
from pipelines.display.errors import DisplayError
from pipelines.display.server import DisplayServer

_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_HEADERS: Final = {
    # The page needs nothing from elsewhere, and nobody has to put it into a page of theirs.
    "Content-Security-Policy": "default-src 'self'; style-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
MAX_ASKING: Final = 32
"""Frames that may be asked for at a time; further ones are answered 503."""
MAX_SINCE_DIGITS: Final = 12


def application(server: DisplayServer) -> web.Application:
    """Return the web application that shows what a display server has."""
    asking = asyncio.Semaphore(MAX_ASKING)

    async def description(request: web.Request) -> web.Response:
        """``/api/stream``: the axes, which do not change."""
        return web.json_response(await server.description(), headers=_HEADERS)

    async def frame(request: web.Request) -> web.Response:
        """``/api/frame?product=A-B&since=N``: what is new since the page's last frame."""
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit() and len(since) <= MAX_SINCE_DIGITS):
            raise web.HTTPBadRequest(text="since is no number of dumps", headers=_HEADERS)
        if asking.locked():
            raise web.HTTPServiceUnavailable(text="too many pages are open", headers=_HEADERS)
        async with asking:
            try:
                new = await server.frame(request.query.get("product", ""), int(since))
            except DisplayError as exc:
                raise web.HTTPNotFound(text=str(exc), headers=_HEADERS) from exc
        return web.json_response(new, headers=_HEADERS)

    app = web.Application(client_max_size=1024)
    app.router.add_get("/api/stream", description)
    app.router.add_get("/api/frame", frame)
    for path, (name, kind) in _FILES.items():
        app.router.add_get(path, _static(name, kind))
    return app


def _static(name: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    text = resources.files("pipelines.display").joinpath(name).read_text("utf-8")

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind, headers=_HEADERS)

    return answer


def serve(server: DisplayServer, host: str, port: int) -> AbstractAsyncContextManager[int]:
    """Serve the page until the context ends; gives the port (0 takes a free one).

    Raises
    ------
    OSError
        The address cannot be listened on.
    """
    return served(application(server), host, port)
