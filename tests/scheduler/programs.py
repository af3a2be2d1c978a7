"""Programs for the tasks of tests, graphs of them, agents to run them and a scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from scheduler.embedded import AgentSpec, Cluster
from scheduler.graph import (
    Edge,
    EdgeKind,
    LogicalGraph,
    PhysicalGraph,
    ReadyCheck,
    ReadyKind,
    TaskTemplate,
    instantiate,
)
from scheduler.journal import Journal
from scheduler.quantities import Ranges, Resources
from scheduler.requests import TaskRequest
from scheduler.service import Scheduler
from scheduler.subscription import Timing
from tests.conftest import PATIENCE, free_ports

SERVER = """
import json, os, signal, socket, sys, time
if len(sys.argv) > 3:
    with socket.create_connection(sys.argv[3].rsplit(":", 1)):
        pass
sock = socket.create_server(("127.0.0.1", int(sys.argv[1])))
with open(sys.argv[2], "a") as log:
    log.write(json.dumps({"task": os.environ["SDP_TASK_NAME"], "event": "up"}) + "\\n")
def end(*_):
    with open(sys.argv[2], "a") as log:
        log.write(json.dumps({"task": os.environ["SDP_TASK_NAME"], "event": "down"}) + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    sock.accept()[0].close()
"""
"""Listens on a port, writes when it comes up and goes down; connects to another one before, if told."""


def server(name: str, log: Path, *, needs: str | None = None, **changes: Any) -> TaskTemplate:
    """Return a task that listens on its port ``p``; it connects to that of `needs` first."""
    program = SERVER.replace("{", "{{").replace("}", "}}")
    words = [sys.executable, "-S", "-E", "-c", program, "{ports[p]}", str(log)]
    if needs is not None:
        words.append(f"{{endpoint[{needs}:p]}}")
    fields: dict[str, Any] = {
        "name": name,
        "kind": "server",
        "command": tuple(words),
        "request": TaskRequest.of(cpus=0.1, mem_mib=16, ports=("p",)),
        "ready": ReadyCheck(ReadyKind.PORTS, ("p",)),
        "launch_timeout": PATIENCE,
        "kill_grace": 2.0,
        **changes,
    }
    return TaskTemplate(**fields)


def shell(name: str, script: str, **changes: Any) -> TaskTemplate:
    """Return a task that runs a shell script (in which braces are doubled)."""
    fields: dict[str, Any] = {
        "name": name,
        "kind": "shell",
        "command": ("/bin/sh", "-c", script),
        "request": TaskRequest.of(cpus=0.1, mem_mib=16),
        "launch_timeout": PATIENCE,
        "kill_grace": 2.0,
        **changes,
    }
    return TaskTemplate(**fields)


def needs(source: str, target: str) -> tuple[Edge, ...]:
    """Return the edges of a task that connects to another, and is killed before it."""
    kinds = (EdgeKind.READY, EdgeKind.PORT, EdgeKind.KILL)
    return tuple(Edge(source, target, kind) for kind in kinds)


def physical(
    graph_id: str, *tasks: TaskTemplate, edges: tuple[Edge, ...] = (), **values: str
) -> PhysicalGraph:
    """Return one execution of a graph."""
    return instantiate(LogicalGraph(graph_id, tasks, edges), graph_id, values)


def agent(number: int, **scalars: int) -> AgentSpec:
    """Return an agent with 2 CPUs, 1 GiB and ten ports of its own."""
    first = free_ports(10)
    amounts = {"cpus": 2000, "mem": 1024_000, "disk": 1000_000, **scalars}
    ports = Ranges.of([(first, first + 9)])
    return AgentSpec(f"agent{number}", Resources(amounts, {"ports": ports}))


QUICK = Timing(tick=0.1, agents=0.5, silence=1.0, patience=2.0, kill_interval=1.0, offer_hold=5.0)


def scheduler_on(
    cluster: Cluster, journal: Journal, *, teardown: bool = False, **changes: Any
) -> AbstractAsyncContextManager[Scheduler]:
    """Return a scheduler on that cluster, for as long as the context lasts."""

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[Scheduler]:
        host, port = cluster.address
        settings: dict[str, Any] = {"timing": QUICK, **changes}
        scheduler = Scheduler(
            master=f"{host}:{port}", journal=journal, framework_name="test", **settings
        )
        await scheduler.start()
        try:
            yield scheduler
        finally:
            await scheduler.close(teardown=teardown)
        has_not_died(scheduler)

    return running()


def has_not_died(scheduler: Scheduler) -> None:
    """Raise what a scheduler died of by itself: a test in which it waits for nothing more sees nothing."""
    failed = scheduler.failed
    if failed is not None and failed.done() and not failed.cancelled():
        failed.result()


async def eventually(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something outside holds."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - nothing outside tells us
            await asyncio.sleep(0.02)
