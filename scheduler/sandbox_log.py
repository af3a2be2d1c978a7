"""The last lines of a task's log, from its agent's HTTP files API.

``GET /files/read?path=…&offset=…&length=…`` answers ``{"data", "offset"}``; without an offset, no data and the
file's size. The sandbox is found by the virtual path ``/frameworks/<id>/executors/<task>/runs/latest`` (the
default executors have their task's id). Both were observed at a real Mesos 1.12 agent.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Final
from urllib.parse import urlsplit

import aiohttp

LINES: Final = 15
MAX_BYTES: Final = 16 * 1024
MAX_LINE: Final = 500
SECONDS: Final = 3.0


async def last_lines(
    agent_url: str,
    framework_id: str,
    task_id: str,
    *,
    seconds: float = SECONDS,
    tls: ssl.SSLContext | None = None,
) -> tuple[str, ...]:
    """Return the last lines of the standard error, or of the output when there are none.

    Nothing is raised for what cannot be had: a log is a help, never a condition.

    Parameters
    ----------
    agent_url
        Where the agent answers HTTP, with the path of its process (``/slave(1)``) or without.
    tls
        Checks its certificate, where it answers over TLS; None: by the system's authorities.
    """
    sandbox = f"/frameworks/{framework_id}/executors/{task_id}/runs/latest"
    parts = urlsplit(agent_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return ()
    bases = dict.fromkeys((f"{parts.scheme}://{parts.netloc}", agent_url.rstrip("/")))
    try:
        connector = aiohttp.TCPConnector(ssl=tls or True)
        async with asyncio.timeout(seconds), aiohttp.ClientSession(connector=connector) as session:
            for name in ("stderr", "stdout"):
                for base in bases:
                    text = await _tail(session, f"{base}/files/read", f"{sandbox}/{name}")
                    if text.strip():
                        return _lines(text)
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    return ()


async def _tail(session: aiohttp.ClientSession, url: str, path: str) -> str:
    _, size = await _read(session, url, {"path": path})
    if size <= 0:
        return ""
    offset = max(0, size - MAX_BYTES)
    query = {"path": path, "offset": str(offset), "length": str(MAX_BYTES)}
    return (await _read(session, url, query))[0]


async def _read(session: aiohttp.ClientSession, url: str, query: dict[str, str]) -> tuple[str, int]:
    async with session.get(url, params=query, allow_redirects=False) as response:
        if response.status != 200:
            return "", 0
        body = bytearray()
        async for chunk in response.content.iter_chunked(64 * 1024):
            body += chunk
            if len(body) > 8 * MAX_BYTES:  # JSON may write a byte as six
                return "", 0
        try:
            answer = json.loads(body)
            return str(answer["data"]), int(answer["offset"])
        except (ValueError, KeyError, TypeError):
            return "", 0


def _lines(text: str) -> tuple[str, ...]:
    """Return the last lines, without what a terminal would obey."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()][-LINES:]
    return tuple("".join(c if c.isprintable() else "�" for c in line)[:MAX_LINE] for line in lines)
