"""``sdp status``, ``tasks``, ``logs``, ``events``: what there is, how it does, and what happened."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sdpcontroller.cli.cam import Cam
from sdpcontroller.cli.controller import add_command, console, listing, print_json, say

_PERIOD: Final = 1.0
_INDENT: Final = " " * len("2026-01-01T00:00:00.000+00:00  ")
_COLOURS: Final = {
    "idle": "green",
    "capturing": "bold green",
    "ON": "green",
    "error": "bold red",
    "FAULT": "bold red",
    "ALARM": "red",
    "configuring": "yellow",
    "deconfiguring": "yellow",
    "ok": "green",
    "degraded": "yellow",
    "fail": "bold red",
}


def add_parsers(commands: Any) -> None:
    """Add the subcommands."""
    parser = add_command(
        commands,
        "status",
        _status,
        summary="show the system and its products",
        description="Show the state of the system, its products, their capture blocks and tasks.",
    )
    parser.add_argument("--watch", action="store_true", help="keep showing it until interrupted")
    parser = add_command(
        commands,
        "tasks",
        listing("task-list", "name", ("task", "state", "host", "holds")),
        summary="list the tasks of the products",
        description="List the tasks: state, host, and what they hold.",
    )
    parser.add_argument("name", nargs="?", help="only tasks of this product")
    parser = add_command(
        commands,
        "queues",
        listing("queue-list", "name", ("queue", "priority", "waiting", "oldest", "terms")),
        summary="list the queues for a place in the cluster",
        description="List the queues in which products and postprocessing wait for a place, the highest first: "
        "who waits and for how long (seconds), for what work each is, and what is particular to it. They are "
        "declared by 'sdp master --queues'.",
    )
    parser.add_argument("name", nargs="?", help="only this queue")
    parser = add_command(
        commands,
        "logs",
        _logs,
        summary="show the last lines of a task's log",
        description="Show the last lines that a task has written, from its sandbox on its agent.",
    )
    parser.add_argument("name", help="name of the product")
    parser.add_argument(
        "task", help="name of the task, as 'sdp tasks' has it, without the product's"
    )
    parser = add_command(
        commands,
        "events",
        _events,
        summary="list what happened to a product",
        description="List what happened to a product and when (UTC), oldest first; for a month also of one "
        "that is gone.",
    )
    parser.add_argument("name", help="name of the product")
    parser.add_argument(
        "--count", type=int, default=100, help="the newest so many events [%(default)s]"
    )


@dataclass(frozen=True, slots=True)
class ProductStatus:
    """What the table says of one product."""

    name: str
    state: str
    blocks: Mapping[str, str]
    tasks: Mapping[str, int]
    """Number of tasks by state."""
    reason: str


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What is said of one queue."""

    name: str
    waiting: int
    oldest: float
    """For how long the first of those waits, seconds."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the table says of the whole."""

    system: Mapping[str, str]
    products: tuple[ProductStatus, ...]
    alarms: tuple[Mapping[str, str], ...] = ()
    """What is wrong, the gravest first: name, severity, text."""
    queues: tuple[QueueStatus, ...] = ()
    """The highest first."""


_SYSTEM: Final = (
    ("state", "state"),
    ("target-state", "commanded"),
    ("device-status", "device status"),
    ("mesos-state", "Mesos"),
    ("mesos-master", "master"),
    ("agents-total", "agents"),
    ("agents-quarantined", "quarantined"),
    ("agents-draining", "draining"),
    ("standbys", "standing by"),
)


async def look(cam: Cam) -> Status:
    """Ask the controller for all that is shown."""
    names = "|".join(("alarms", *(name for name, _ in _SYSTEM)))
    system = await cam.sensors(f"^({names})$")
    products = []
    for name, state in await cam.informs("product-list"):
        sensors = await cam.sensors(rf"^{name}\.(capture-block-state|reason)$")
        tasks = await cam.informs("task-list", name)
        products.append(
            ProductStatus(
                name,
                state,
                json.loads(sensors.get(f"{name}.capture-block-state", "{}")),
                dict(Counter(task[1].partition(" ")[0] for task in tasks)),
                sensors.get(f"{name}.reason", ""),
            )
        )
    return Status(
        {title: system[name] for name, title in _SYSTEM if name in system},
        tuple(products),
        tuple(json.loads(system.get("alarms", "[]"))),
        tuple(
            QueueStatus(name, int(waiting), float(oldest))
            for name, _, waiting, oldest, _ in await cam.informs("queue-list")
        ),
    )


def picture(status: Status) -> RenderableType:
    """Return the status as people see it."""
    line = Text()
    for title, value in status.system.items():
        line.append(f"{title} ", "dim").append(value or "–", _COLOURS.get(value, "")).append("   ")
    alarms = Text()
    for alarm in status.alarms:
        alarms.append(alarm["severity"], _COLOURS["ALARM"])
        alarms.append(f" {alarm['name']}: {alarm['text']}\n")
    table = Table("product", "state", "capture blocks", "tasks", "reason", box=None, pad_edge=False)
    for product in status.products:
        table.add_row(
            product.name,
            Text(product.state, _COLOURS.get(product.state, "")),
            "\n".join(f"{block} {state}" for block, state in product.blocks.items()) or "–",
            ", ".join(f"{count} {state}" for state, count in sorted(product.tasks.items())),
            Text(product.reason),
        )
    below = table if status.products else Text("no products", "dim")
    return Group(line, *([alarms] if status.alarms else []), _queues(status.queues), below)


def _queues(queues: Sequence[QueueStatus]) -> Text:
    line = Text("queues ", "dim")
    for queue in queues:
        line.append(f"{queue.name} ")
        if queue.waiting:
            line.append(f"{queue.waiting} waiting, {queue.oldest:.0f} s   ", "yellow")
        else:
            line.append("nobody waits   ", "dim")
    return line


async def _status(cam: Cam, options: argparse.Namespace) -> int:
    if not options.watch:
        status = await look(cam)
        if options.json:
            print_json(asdict(status))
        else:
            console().print(picture(status))
        return 0
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(picture(await look(cam)), refresh=True)
            await asyncio.sleep(_PERIOD)


async def _logs(cam: Cam, options: argparse.Namespace) -> int:
    lines = [line for (line,) in await cam.informs("task-log", options.name, options.task)]
    say(options, "\n".join(lines), {"name": options.name, "task": options.task, "lines": lines})
    return 0


async def _events(cam: Cam, options: argparse.Namespace) -> int:
    informs = await cam.informs("product-events", options.name, options.count)
    events = [
        (datetime.fromtimestamp(float(at), UTC).isoformat(timespec="milliseconds"), text)
        for at, text in informs
    ]
    # What has several lines stands under its first.
    lines = "\n".join(f"{at}  {text.replace(chr(10), chr(10) + _INDENT)}" for at, text in events)
    listed = [{"at": at, "event": text} for at, text in events]
    say(options, lines, {"name": options.name, "events": listed})
    return 0
