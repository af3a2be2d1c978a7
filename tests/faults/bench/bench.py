"""Redis, a cluster, controllers, links between them, and somebody who asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from secrets import randbelow
from types import TracebackType
from typing import Any, Final, Self

import aiokatcp
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from scheduler.embedded import AgentSpec, Cluster
from sdpcontroller.children import with_parent
from sdpcontroller.cli.cluster import agent_specs
from tests.conftest import free_port, port_block, wait_for_port
from tests.faults.bench.patience import Patience, Waits
from tests.faults.bench.programs import Diary, Programs
from tests.faults.bench.proxy import Link

LEASE: Final = 1.0
"""Seconds; short, so that many controllers can die in little time."""
PING: Final = 0.4
PINGS: Final = 3
"""An agent that has not answered so often, so many seconds each, is unreachable."""
MACHINE: Final = "package:1 [numa(memory=64GB)] core:12 pu:2"


class RefusedError(Exception):
    """A controller answered *fail*."""


class NobodyError(Exception):
    """No controller answered, or it died while it was asked: what was asked may or may not be done."""


@dataclass(eq=False)
class Controller:
    """One controller, and its ways to the database and to Mesos."""

    name: str
    port: int
    goahead: int
    redis: Link
    mesos: Link
    log: Path
    pid: int = 0
    """0: none runs."""
    paused: bool = False
    status: int | None = None
    """Exit status of the last one that ended."""


def _specs(folder: Path, ports: str, machine: str) -> list[AgentSpec]:
    """Describe three agents that share a machine."""
    topology = folder / "machine.xml"
    command = ["lstopo", "--input", machine, "--of", "xml"]
    topology.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return agent_specs(3, folder / "data", topology, ports)


class Bench:
    """Everything; an async context manager.

    Parameters
    ----------
    folder
        For logs and the database.
    controllers
        How many there can be at once.
    machine
        What the agents share: large enough for a few products, if nothing is said.
    """

    def __init__(self, folder: Path, controllers: int = 1, machine: str = MACHINE) -> None:
        self.folder = folder
        self._machine = machine
        self.diary = Diary()
        self.redis_port = free_port()
        self.starts = 0
        """Controllers that were begun."""
        self.observed: Callable[[str], None] = lambda request: None
        """Is told of every request."""
        self._names = "AB"[:controllers]
        self.controllers: dict[str, Controller] = {}
        self._multicast = f"239.{192 + randbelow(4)}.{randbelow(256)}.0/24"
        self._stack = AsyncExitStack()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._begun: asyncio.Queue[int] = asyncio.Queue()
        self._redis: subprocess.Popen[bytes] | None = None
        self._waits = Waits()
        self.machines_lost = 0
        """How often an agent's machine went down: a product that had a task there may be in error."""

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        await self._start_zygote()
        (self.folder / "redis").mkdir(parents=True)
        self.start_redis()
        self._stack.callback(self.stop_redis)
        first = self._stack.enter_context(port_block(600))
        self.specs = await asyncio.to_thread(
            _specs, self.folder, f"{first}-{first + 599}", self._machine
        )
        self.cluster = Cluster(
            self.specs,
            work_dir=self.folder / "cluster",
            port=0,
            allocation_interval=0.1,
            agent_ping_timeout=PING,
            max_agent_ping_timeouts=PINGS,
            executor=Programs(self.diary),
        )
        await self._stack.enter_async_context(self.cluster)
        for name in self._names:
            redis_link = await self._stack.enter_async_context(Link(self.redis_port))
            mesos_link = await self._stack.enter_async_context(Link(self.cluster.address[1]))
            self.controllers[name] = Controller(
                name,
                free_port(),
                free_port(),
                redis_link,
                mesos_link,
                self.folder / f"controller-{name}.log",
            )
        self.client = redis.asyncio.from_url(
            f"redis://127.0.0.1:{self.redis_port}/0", decode_responses=True
        )
        self._stack.push_async_callback(self.client.aclose)
        self._stack.callback(self._kill_all)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    # ------------------------------------------------------------------ processes

    async def _start_zygote(self) -> None:
        self._zygote = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.bench.zygote",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        self._stack.push_async_callback(self._end_zygote)
        assert self._zygote.stdout is not None
        assert (await self._zygote.stdout.readline()).strip() == b"ready"
        self._listening = asyncio.create_task(self._listen(self._zygote.stdout))

    async def _end_zygote(self) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        await self._zygote.wait()
        await self._listening

    async def _listen(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            first, *more = map(int, line.split())
            if first > 0:
                self._ended[first] = asyncio.get_running_loop().create_future()
                self._begun.put_nowait(first)
                continue
            self._ended[-first].set_result(more[0])
            for controller in self.controllers.values():
                if controller.pid == -first:
                    controller.pid, controller.status, controller.paused = 0, more[0], False

    async def start(self, name: str = "A", crash_at: str = "", *options: str) -> Controller:
        """Begin a controller; it stands by until it leads."""
        controller = self.controllers[name]
        assert not controller.pid, f"controller {name} runs"
        others = self.controllers.values()
        argv = [
            "master",
            *("--port", str(controller.port), "--lease", str(LEASE), "--fit-timeout", "20"),
            *("--goahead-port", str(controller.goahead)),
            *(word for c in others for word in ("--goahead-url", f"http://127.0.0.1:{c.goahead}")),
            *("--mesos", f"127.0.0.1:{controller.mesos.port}"),
            *("--redis", f"redis://127.0.0.1:{controller.redis.port}/0"),
            *("--multicast", self._multicast),
            *options,
        ]
        order = {"argv": argv, "env": {"SDP_CRASH_AT": crash_at}, "log": str(controller.log)}
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(order).encode() + b"\n")
        controller.pid = await self._begun.get()
        controller.status = None
        self.starts += 1
        return controller

    async def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal; return when the controller has ended, if that is what it does."""
        controller = self.controllers[name]
        pid = controller.pid
        os.kill(pid, number)
        if number is signal.SIGSTOP:
            controller.paused = True
        elif number is signal.SIGCONT:
            controller.paused = False
        else:
            await self.ended(name, pid)

    async def ended(self, name: str, pid: int = 0, timeout: float = 60.0) -> int:
        """Wait for the end of a controller; return its status."""
        pid = pid or self.controllers[name].pid
        if not pid:
            return self.controllers[name].status or 0
        async with asyncio.timeout(timeout):
            return await asyncio.shield(self._ended[pid])

    def _kill_all(self) -> None:
        for controller in self.controllers.values():
            if controller.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(controller.pid, signal.SIGKILL)

    def start_redis(self) -> None:
        """Begin the database, with what it held."""
        folder = self.folder / "redis"
        options = ["--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes", "--save", ""]
        with (self.folder / "redis.log").open("ab") as log:
            self._redis = subprocess.Popen(
                with_parent(["redis-server", "--port", str(self.redis_port), *options]), stdout=log
            )
        wait_for_port("127.0.0.1", self.redis_port, self._redis)

    def stop_redis(self) -> None:
        """Let the database die."""
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait(10)
            self._redis = None

    @property
    def _log_of_writes(self) -> Path:
        (found,) = (self.folder / "redis").glob("appendonlydir/*.incr.aof")
        return found

    def written(self) -> int:
        """Return how much the database has written: for :meth:`lose_writes`."""
        return self._log_of_writes.stat().st_size

    def lose_writes(self, written: int) -> None:
        """Let the database, which must be dead, have written no more than that."""
        assert self._redis is None
        with self._log_of_writes.open("r+b") as file:
            file.truncate(written)

    def patience(self, seconds: float) -> Patience:
        """Return a deadline that is later by what we all have to wait for a processor."""
        return Patience(seconds, self._waited)

    def _waited(self) -> float:
        pids = [controller.pid for controller in self.controllers.values() if controller.pid]
        return self._waits.total([*pids, *([self._redis.pid] if self._redis is not None else [])])

    def signal_redis(self, number: signal.Signals) -> None:
        """Send the database a signal."""
        assert self._redis is not None
        self._redis.send_signal(number)

    # ------------------------------------------------------------------ asking

    async def ask(
        self, request: str, *args: object, timeout: float = 40.0
    ) -> tuple[list[str], list[list[str]]]:
        """Ask whichever controller answers, as a client with a list of them does.

        Raises
        ------
        RefusedError
            If it refuses.
        NobodyError
            If none answers within `timeout` seconds, or the link ends before the reply.
        """
        self.observed(request)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not any(controller.pid for controller in self.controllers.values()):
                break
            for controller in self.controllers.values():
                if controller.pid and not controller.paused:
                    # Reset: it ends, and its socket with all that it had not accepted yet.
                    with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
                        return await self._ask(controller.port, request, args, deadline)
            await asyncio.sleep(0.03)
        raise NobodyError(f"nobody answers {request}")

    async def _ask(
        self, port: int, request: str, args: Sequence[object], deadline: float
    ) -> tuple[list[str], list[list[str]]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        try:
            writer.write(bytes(aiokatcp.Message.request(request, *args, mid=1)))
            informs: list[list[str]] = []
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                while line := await reader.readline():
                    message = aiokatcp.Message.parse(line)
                    if message.mid != 1:
                        continue
                    words = [argument.decode() for argument in message.arguments]
                    if message.mtype is aiokatcp.Message.Type.INFORM:
                        informs.append(words)
                    elif words[0] == "ok":
                        return words[1:], informs
                    elif words[1:] == ["request cancelled"]:
                        raise NobodyError(f"{request}: the controller ended")
                    else:
                        raise RefusedError(" ".join(words[1:]))
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError) as exc:
            raise NobodyError(f"{request}: {exc!r}") from exc
        finally:
            writer.close()
        raise NobodyError(f"{request}: the link ended before the reply")

    async def products(self) -> dict[str, str]:
        """Return the state of each product."""
        _, informs = await self.ask("product-list")
        return {words[0]: words[1] for words in informs}

    async def sensors(self, pattern: str) -> dict[str, str]:
        """Return the values of the sensors whose names match."""
        _, informs = await self.ask("sensor-value", f"/{pattern}/")
        return {words[2]: words[4] for words in informs}

    async def blocks(self, product: str) -> dict[str, str]:
        """Return the state of each capture block of a product."""
        values = await self.sensors(rf"^{product}\.capture-block-state$")
        found: dict[str, str] = json.loads(next(iter(values.values()), "{}"))
        return found

    # ------------------------------------------------------------------ the store

    async def table(self, name: str) -> dict[str, Any]:
        """Return what the database has in a table; one that is away is waited for."""
        for _ in range(100):
            with contextlib.suppress(RedisConnectionError):
                return await self._table(name)
            await asyncio.sleep(0.1)
        return await self._table(name)

    async def _table(self, name: str) -> dict[str, Any]:
        keys = await self.client.smembers(f"sdp:keys:{name}")
        found: dict[str, Any] = {}
        for key in keys:
            if (text := await self.client.hget(f"sdp:{name}:{key}", "value")) is not None:
                found[key] = json.loads(text)
        return found

    def stalls(self) -> list[str]:
        """Return what the controllers' loops computed for too long."""
        lines: list[str] = []
        for controller in self.controllers.values():
            if controller.log.exists():
                text = controller.log.read_text(errors="replace")
                lines += [line for line in text.splitlines() if line.startswith("STALL")]
        return lines

    def running(self) -> Mapping[str, Any]:
        """Return the tasks that run on the cluster, by id."""
        return dict(self.diary.alive)
