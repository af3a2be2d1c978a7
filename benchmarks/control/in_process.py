"""A task of the embedded cluster that lives in the cluster's own process: it waits, listens, and ends.

It does for a controller what a program in its wrapper does, and is light enough for thousands at once. Tests of
faults are made with it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import aiokatcp

from scheduler.embedded.executors import Launch, Outcome, Running
from scheduler.goahead import TOKEN_ENV, URLS_ENV
from scheduler.listening import begin
from sdpcontroller.children import with_parent

TERMINATED: Final = Outcome(False, "Command terminated with signal Terminated")
_REFUSED: Final = Outcome(False, "Command exited with status 126")


class InProcessTask(ABC):
    """A container of an executor.

    Parameters
    ----------
    host
        Where it listens.
    http
        What it asks for its go-ahead with.
    """

    pid = None

    def __init__(self, launch: Launch, host: str, http: aiohttp.ClientSession) -> None:
        self._host = host
        self._http = http
        variables = launch.command.get("environment", {}).get("variables", [])
        self._environment: Mapping[str, str] = {v["name"]: v["value"] for v in variables}
        ports = launch.task.document.get("discovery", {}).get("ports", {}).get("ports", [])
        self.ports: Mapping[str, int] = {port["name"]: port["number"] for port in ports}
        self._end: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None

    async def started(self) -> Running | None:
        """Begin."""
        self._life = asyncio.create_task(self._live())
        return Running()

    async def _live(self) -> None:
        try:
            if TOKEN_ENV in self._environment:
                if not await self._ask():
                    self.finish(_REFUSED)
                    return
                self.let_through()
            async with contextlib.AsyncExitStack() as stack:
                await self.run(stack)
        except Exception as exc:
            self.finish(Outcome(False, f"Command exited with status 1 ({exc!r})"))

    async def _ask(self) -> bool:
        """Ask for the go-ahead as the wrapper does; whether it was given."""
        head = {"Authorization": f"Bearer {self._environment[TOKEN_ENV]}"}
        while True:
            for url in self._environment[URLS_ENV].split():
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with self._http.get(url, headers=head) as response:
                        if response.status == 200:
                            return True
                        if response.status in (403, 410):
                            return False
            await asyncio.sleep(0.1)

    def let_through(self) -> None:
        """It has its go-ahead, where it waits for one."""
        return

    @abstractmethod
    async def run(self, stack: contextlib.AsyncExitStack) -> None:
        """Be the program, until cancelled or finished; what is on the stack is ended then."""

    @abstractmethod
    def made_server(self, port: int) -> aiokatcp.DeviceServer:
        """Return its KATCP server, not started."""

    async def listen(self, stack: contextlib.AsyncExitStack) -> None:
        """Listen on all ports: with KATCP, a Redis, or something that hangs up on whoever comes."""
        for name, port in self.ports.items():
            await begin(self._serve(stack, name, port))

    async def _serve(self, stack: contextlib.AsyncExitStack, name: str, port: int) -> None:
        if name == "katcp":
            server = self.made_server(port)
            await server.start()
            stack.push_async_callback(server.stop)
        elif name == "telstate":
            options = [
                "--port",
                str(port),
                "--bind",
                self._host,
                "--save",
                "",
                "--appendonly",
                "no",
            ]
            process = await asyncio.create_subprocess_exec(
                *with_parent(["redis-server", *options]), stdout=asyncio.subprocess.DEVNULL
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
        else:
            listener = await asyncio.start_server(
                lambda _, writer: writer.close(), self._host, port
            )
            stack.callback(listener.close)

    def kill(self, grace: float) -> None:
        """End at once."""
        self.finish(TERMINATED)

    def finish(self, outcome: Outcome) -> None:
        """End, in whatever way; only the first counts."""
        if not self._end.done():
            self.ended(outcome)
            self._end.set_result(outcome)

    def ended(self, outcome: Outcome) -> None:
        """It has ended so."""
        return

    async def run_beside(self, command: Mapping[str, Any]) -> int:
        """There are no checks."""
        return 0

    async def wait(self) -> Outcome:
        """Return how it has ended, when nothing of it is left."""
        outcome = await asyncio.shield(self._end)
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        return outcome


def session() -> aiohttp.ClientSession:
    """Return what many tasks at once can ask with."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
    )
