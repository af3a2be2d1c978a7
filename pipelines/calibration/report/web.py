"""The reports of a calibration stream over HTTP: a list of them, and each."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from aiohttp import web

from pipelines.calibration.report.place import STYLE, report_path
from pipelines.common.web import served

MAX_LISTED: Final = 200
"""Reports in the list, the newest."""
_HEADERS: Final = {
    # Everything is in the page itself, and it has no script.
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def application(root: Path | None, stream: str) -> web.Application:
    """Return the web application; without a `root` there are no reports."""

    async def index(request: web.Request) -> web.Response:
        blocks = [] if root is None else await asyncio.to_thread(_blocks, root, stream)
        return web.Response(
            text=_list_of(stream, blocks), content_type="text/html", headers=_HEADERS
        )

    async def report(request: web.Request) -> web.Response:
        """Answer with a capture block's page; 404, which says so, where there is none."""
        cbid = request.match_info["cbid"]
        try:
            if root is None:
                raise FileNotFoundError
            text = await asyncio.to_thread(report_path(root, cbid, stream).read_text, "utf-8")
        except FileNotFoundError:
            why = f"there is no report of capture block {cbid}"
            raise web.HTTPNotFound(text=why, headers=_HEADERS) from None
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    app = web.Application(client_max_size=1024)
    app.router.add_get("/", index)
    app.router.add_get(r"/{cbid:[0-9]{1,15}}", report)
    return app


def _blocks(root: Path, stream: str) -> list[str]:
    """Return the capture blocks that have a report, the newest first."""
    try:
        names = [entry.name for entry in root.iterdir() if entry.name.isdecimal()]
    except OSError:
        return []
    blocks = sorted(names, key=int, reverse=True)
    return [cbid for cbid in blocks if report_path(root, cbid, stream).is_file()][:MAX_LISTED]


def _list_of(stream: str, blocks: list[str]) -> str:
    items = "".join(f'<li><a href="/{cbid}">{cbid}</a> {_when(cbid)}</li>' for cbid in blocks)
    listed = f"<ul>{items}</ul>" if items else "<p>There is none yet: one is written per block.</p>"
    title = f"Calibration reports of {escape(stream)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>{listed}</body></html>"
    )


def _when(cbid: str) -> str:
    """Capture block ids are Unix times, as a rule."""
    try:
        return datetime.fromtimestamp(int(cbid), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return ""


def serve(root: Path | None, stream: str, host: str, port: int) -> AbstractAsyncContextManager[int]:
    """Serve the reports until the context ends; gives the port (0 takes a free one).

    Raises
    ------
    OSError
        The address cannot be listened on.
    """
    return served(application(root, stream), host, port)
