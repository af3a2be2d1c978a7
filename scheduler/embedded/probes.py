"""Looking after tasks of this machine: a command beside the task, an HTTP request, a TCP connection.

HTTP and TCP checks go to the agent's own address. (A Mesos agent asks 127.0.0.1; here several agents share a
machine, and their tasks listen on the addresses of their agents.) A task that listens on all addresses is found
either way.
"""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

from scheduler.embedded.checks import Check
from scheduler.embedded.executors import Container, Launch, ProbeError


class HostProber:
    """Looks after tasks that share this machine's network."""

    async def probe(self, launch: Launch, container: Container, check: Check) -> int:
        """Look once; see :class:`~scheduler.embedded.checks.Prober`."""
        if check.kind == "COMMAND":
            return await container.run_beside(check.command)
        if check.kind == "HTTP":
            return await _ask(launch.agent.ip, check)
        return await _connect(launch.agent.ip, check.document["tcp"]["port"])


async def _ask(host: str, check: Check) -> int:
    body = check.document["http"]
    path = body.get("path", "/")
    url = f"{body.get('scheme', 'http')}://{host}:{body['port']}{path}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.get(url, ssl=False) as response,
        ):
            return response.status
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise ProbeError(str(exc)) from exc


async def _connect(host: str, port: int) -> int:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except (OSError, OverflowError):
        return 0
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return 1
