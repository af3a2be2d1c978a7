"""How long a launch holds the event loop up: ``python -m benchmarks.launch meerkat-workloads.json``.

The largest product of the file, one to several times over, is launched on an embedded cluster in another
process whose tasks are simulated, with the journal in a Redis, as in a controller. Every turn of the loop is
timed, in CPU time of its thread (what the thread waits for a processor, or for the interpreter, is not its
computing). Printed are the longest turns of the launch and of the graph's end, by what they did, and beside
them as a yardstick one turn in which as many bare coroutines are begun at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import multiprocessing.connection
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.control.site import free_ports
from benchmarks.cycle import graph, machine
from scheduler.collector import calm, keep_looking
from scheduler.embedded import AgentSpec, Cluster
from scheduler.embedded.executors.simulated import SimulatedExecutor
from scheduler.graph import LogicalGraph, instantiate
from scheduler.service import Scheduler
from scheduler.threads import share_interpreter
from sdpcontroller.store import Store
from sdpcontroller.store.journal import StoreJournal

AGENTS: Final = 60
"""For the product as it is."""
WORTH_TELLING: Final = 0.010
"""Seconds of a turn of the loop from which on it is printed what it did."""


@dataclass
class Turn:
    """One turn of the loop."""

    seconds: float
    did: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Callbacks by name: how many, and the seconds of all."""

    def __str__(self) -> str:
        most = sorted(self.did.items(), key=lambda item: -item[1][1])[:3]
        told = ", ".join(f"{n} x {name} {1000 * s:.1f}" for name, (n, s) in most)
        return f"{1000 * self.seconds:.1f} ms ({told})"


class Watched(asyncio.SelectorEventLoop):
    """A loop that times its turns."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []
        self._did: dict[str, tuple[int, float]] = {}

    def _run_once(self) -> None:
        self._did = {}
        begun = time.thread_time()
        super()._run_once()  # type: ignore[misc]  # where a loop has its turns
        self.turns.append(Turn(time.thread_time() - begun, self._did))

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        """Call something in the next turn."""
        return super().call_soon(self._timed(callback), *args, context=context)

    def call_soon_threadsafe(
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Call something that another thread asks for."""
        return super().call_soon_threadsafe(self._timed(callback), *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Call something later."""
        return super().call_at(when, self._timed(callback), *args, context=context)

    def _timed(self, callback: Any) -> Any:
        def call(*args: Any) -> None:
            begun, name = time.thread_time(), _named(callback)
            callback(*args)
            count, before = self._did.get(name, (0, 0.0))
            self._did[name] = count + 1, before + time.thread_time() - begun

        return call

    def longest(self, count: int) -> list[Turn]:
        """Return the longest turns since it was asked last."""
        turns, self.turns = self.turns, []
        return sorted(turns, key=lambda turn: -turn.seconds)[:count]


def _named(callback: Any) -> str:
    """Say what a callback is."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return _going_on(owner.get_coro())
    return str(getattr(callback, "__qualname__", None) or type(callback).__name__)


def _going_on(coroutine: Any) -> str:
    """Say where a coroutine goes on: the innermost that it waits in, and itself."""
    inner = coroutine
    while hasattr(getattr(inner, "cr_await", None), "cr_await"):
        inner = inner.cr_await
    line = f":{inner.cr_frame.f_lineno}" if inner.cr_frame is not None else ""
    outer = "" if inner is coroutine else f" of {coroutine.__qualname__}"
    return f"{inner.__qualname__}{line}{outer}"


def serve(pipe: multiprocessing.connection.Connection, agents: int) -> None:
    """Serve a simulated cluster until told to end: a process' whole life."""

    async def main() -> None:
        specs = [AgentSpec(f"host{n}", *machine(n)) for n in range(agents)]
        with tempfile.TemporaryDirectory() as folder:
            cluster = Cluster(
                specs,
                work_dir=Path(folder),
                port=0,
                executor=SimulatedExecutor(),
                checkpoint=False,
            )
            async with cluster:
                calm()
                pipe.send("{}:{}".format(*cluster.address))
                await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def journal() -> AsyncIterator[StoreJournal]:
    """Yield a journal in a Redis of its own."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
        server = await asyncio.create_subprocess_exec(
            "redis-server", *options, stdout=subprocess.DEVNULL
        )
        try:
            store = await _connected(port)
            yield StoreJournal(store)
            await store.close()
        finally:
            server.kill()
            await server.wait()


async def _connected(port: int) -> Store:
    while True:
        with contextlib.suppress(Exception):
            return await Store.connect(f"redis://127.0.0.1:{port}/0")
        await asyncio.sleep(0.05)


def times(product: Mapping[str, Any], factor: int) -> LogicalGraph:
    """Return the graph of a product, so many times over."""
    tasks = [{k: _times(v, factor) for k, v in entry.items()} for entry in product["tasks"]]
    return graph({**product, "tasks": tasks})


def _times(value: Any, factor: int) -> Any:
    return value * factor if isinstance(value, int | float) else value


async def launch(master: str, logical: LogicalGraph) -> list[tuple[str, list[Turn], float]]:
    """Launch a graph and end it; return the longest turns of each, and the loop's CPU seconds."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Watched)
    async with journal() as kept:
        scheduler = Scheduler(master=master, journal=kept, framework_name="bench")
        async with scheduler:
            await asyncio.sleep(3)  # compiled parts are loaded, agents are known
            calm()
            looking = asyncio.create_task(keep_looking())  # as in a controller
            found = []
            for number in range(2):
                physical = instantiate(logical, f"g{number}")
                await asyncio.sleep(0)
                for what, act in (
                    ("launch", scheduler.launch(physical, timeout=120)),
                    ("end", scheduler.stop(f"g{number}")),
                ):
                    await asyncio.sleep(0.01)
                    loop.longest(0)
                    begun = time.thread_time()
                    await asyncio.create_task(act)
                    found.append((what, loop.longest(8), time.thread_time() - begun))
            looking.cancel()
            await scheduler.close(teardown=True)
    return found


async def at_once(count: int) -> None:
    """Begin so many bare coroutines in one turn."""
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(count)))


def report(product: Mapping[str, Any], factor: int) -> None:
    """Print what a launch of the product takes, so many times over."""
    logical = times(product, factor)
    pipe, other = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(other, AGENTS * factor))
    process.start()
    with asyncio.Runner(loop_factory=Watched) as runner:
        found = runner.run(launch(pipe.recv(), logical))
        loop = runner.get_loop()
        assert isinstance(loop, Watched)
        loop.longest(0)
        runner.run(at_once(len(logical.tasks)))
        yard = loop.longest(1)[0].seconds
    pipe.send(None)
    process.join()
    print(f"{len(logical.tasks)} tasks on {AGENTS * factor} agents")
    for what, turns, cpu in found:
        longest = turns[0].seconds
        print(
            f"  {what}: loop busy for {cpu:.2f} s, at most {1000 * longest:.1f} ms at a time:"
            f" {longest / yard:.1f} x as many bare coroutines begun at once ({1000 * yard:.1f} ms)"
        )
        for turn in turns:
            if turn.seconds >= WORTH_TELLING:
                print(f"    {turn}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launch", description=__doc__)
    parser.add_argument("file", type=Path, metavar="meerkat-workloads.json")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 3, 8])
    options = parser.parse_args(arguments)
    share_interpreter()
    products = json.loads(options.file.read_text(encoding="utf-8"))["products"]
    largest = max(products, key=lambda product: sum(entry["count"] for entry in product["tasks"]))
    for factor in options.times:
        report(largest, factor)
        gc.collect()
    return 0


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.exit(main())
