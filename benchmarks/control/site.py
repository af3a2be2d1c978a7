"""A Redis, a cluster and controllers in processes of their own, and what can be asked of them."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import aiokatcp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.control import tasks
from sdpcontroller.children import with_parent

SDP: Final = str(Path(sys.executable).parent / "sdp")
MIB: Final = 1 << 20
PORTS: Final = (10_000, 19_999)
"""Of the tasks."""
LINE_LIMIT: Final = 16 * MIB


class Controller:
    """One ``sdp master``.

    Parameters
    ----------
    redis, mesos
        Port of the one, address of the other.
    """

    def __init__(self, redis: int, mesos: str, folder: Path) -> None:
        self.port, self.metrics_port, goahead = free_ports(3)
        options = {
            "port": self.port,
            "metrics-port": self.metrics_port,
            "goahead-port": goahead,
            "redis": f"redis://127.0.0.1:{redis}/0",
            "mesos": mesos,
            "multicast": "239.192.0.0/18",
            "fit-timeout": 300,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.began = time.monotonic()
        self._log_path = folder / f"controller-{self.port}.log"
        self._log = self._log_path.open("wb")
        self.process = subprocess.Popen(with_parent([SDP, "master", *words]), stderr=self._log)
        self.seen = psutil.Process(self.process.pid)

    def cpu(self) -> float:
        """Return the CPU time that it has used, s."""
        times = self.seen.cpu_times()
        return float(times.user + times.system)

    def delayed(self) -> float:
        """Return for how long its main thread was ready to run and had no CPU, s."""
        text = Path(f"/proc/{self.process.pid}/schedstat").read_text()
        return int(text.split()[1]) / 1e9

    def resident(self) -> float:
        """Return its memory, MiB."""
        return float(self.seen.memory_info().rss) / MIB

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait()
        self._log.close()

    async def client(self, timeout: float = 60.0) -> aiokatcp.Client:
        """Connect, as soon as it listens."""
        async with asyncio.timeout(timeout):
            while self.process.poll() is None:
                with contextlib.suppress(OSError):
                    # A client that is refused waits for seconds before it tries again.
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return await aiokatcp.Client.connect("127.0.0.1", self.port, limit=LINE_LIMIT)
                await asyncio.sleep(0.02)
        raise RuntimeError(f"the controller has ended: {self.words()}")

    def words(self) -> str:
        """Return the end of its log."""
        return self._log_path.read_text(errors="replace")[-3000:]

    async def reached(self) -> dict[str, float]:
        """Return the seconds from its start until it had come how far."""
        prefix = "sdp_start_seconds,reached="
        figures = (await self.figures()).items()
        return {key.removeprefix(prefix): n for key, n in figures if key.startswith(prefix)}

    async def figures(self) -> dict[str, float]:
        """Return what Prometheus is told, by name with labels."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            text = await answer.text()
        return {
            sample.name
            + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


class Site:
    """A Redis and a cluster, and controllers as they are wanted; an async context manager.

    Parameters
    ----------
    agents
        How many.
    sensors
        How many each task has besides its usual ones.
    """

    def __init__(self, agents: int, sensors: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sdp-benchmark-")
        self.folder = Path(self._folder.name)
        (self.redis_port,) = free_ports(1)
        self.controllers: list[Controller] = []
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._cluster = context.Process(
            target=tasks.serve, args=(other, agents, sensors, PORTS), daemon=True
        )

    async def __aenter__(self) -> Self:
        options = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        options += ["--appendonly", "yes", "--port", str(self.redis_port)]
        self._redis = await asyncio.create_subprocess_exec(
            *with_parent(["redis-server", *options]), stdout=subprocess.DEVNULL
        )
        self._cluster.start()
        self.mesos: str = await asyncio.to_thread(self._pipe.recv)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for controller in self.controllers:
            controller.kill()
        self._pipe.send(("end", None))
        await asyncio.to_thread(self._cluster.join, 30)
        self._cluster.kill()
        self._redis.kill()
        await self._redis.wait()
        self._folder.cleanup()

    async def ask(self, question: str, argument: Any = None) -> Any:
        """Ask the cluster's process."""
        self._pipe.send((question, argument))
        return await asyncio.to_thread(self._pipe.recv)

    async def until_linked(self, count: int) -> None:
        """Wait until so many programs have a client, no more and no fewer."""
        while await self.ask("linked") != count:  # noqa: ASYNC110  # another process tells
            await asyncio.sleep(0.05)

    def start(self) -> Controller:
        """Start a controller."""
        controller = Controller(self.redis_port, self.mesos, self.folder)
        self.controllers.append(controller)
        return controller


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
