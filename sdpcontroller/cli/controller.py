"""What the commands share that speak to a running controller: where it is, and how answers are shown."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdpcontroller.cli.cam import Cam, NotAnsweringError
from sdpcontroller.cli.service import fail
from sdpcontroller.errors import ControllerError

DEFAULT_CONTROLLER: Final = "127.0.0.1:5001"
VARIABLE: Final = "SDP_CONTROLLER"

_WIDE: Final = 400

Work = Callable[[Cam, argparse.Namespace], Awaitable[int]]
"""Does a command over one connection and returns its exit status."""


def endpoints(text: str) -> tuple[tuple[str, int], ...]:
    """Type of an option: ``HOST:PORT``, or several, comma-separated."""
    found = []
    for part in text.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise argparse.ArgumentTypeError(f"{part!r:.60} is no address: expected HOST:PORT")
        found.append((host, int(port)))
    return tuple(found)


def add_command(
    commands: Any, name: str, work: Work, *, summary: str, description: str
) -> argparse.ArgumentParser:
    """Add a subcommand that speaks to a controller, with the options that all of them have."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description
    )
    parser.add_argument(
        "--controller",
        type=endpoints,
        default=endpoints(os.environ.get(VARIABLE, DEFAULT_CONTROLLER)),
        metavar="HOST:PORT[,…]",
        help=f"where the controller listens for KATCP; of several the first that answers "
        f"[${VARIABLE}, else {DEFAULT_CONTROLLER}]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=lambda options: run(work, options))
    return parser


def run(work: Work, options: argparse.Namespace) -> int:
    """Connect, do the work, and return the exit status: 1 when the controller refused, 130 on an interrupt."""

    async def body() -> int:
        async with connected(options.controller) as cam:
            return await work(cam, options)

    try:
        return asyncio.run(body())
    except (ControllerError, OSError) as exc:
        return fail(exc)
    except KeyboardInterrupt:
        return 130


@asynccontextmanager
async def connected(addresses: Sequence[tuple[str, int]]) -> AsyncIterator[Cam]:
    """Connect to the first controller that answers.

    Raises
    ------
    CamError
        None does.
    """
    async with AsyncExitStack() as stack:
        for number, (host, port) in enumerate(addresses):
            try:
                yield await stack.enter_async_context(Cam(host, port))
                return
            except NotAnsweringError:
                if number == len(addresses) - 1:
                    raise


def console() -> Console:
    """Return the console for results."""
    # What reads a pipe wants whole lines.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def show(
    options: argparse.Namespace, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Print rows as a table, or as a JSON list of objects."""
    listed = [list(row) for row in rows]
    if options.json:
        print_json([dict(zip(columns, row, strict=True)) for row in listed])
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in listed:
        table.add_row(*(Text(str(cell)) for cell in row))  # brackets in it are no markup
    console().print(table)


def listing(request: str, argument: str, columns: Sequence[str]) -> Work:
    """Return the command that lists a request's informs: all, or those that an option's value chooses.

    Parameters
    ----------
    argument
        Name of the option.
    columns
        What the arguments of an inform are called.
    """

    async def work(cam: Cam, options: argparse.Namespace) -> int:
        value = getattr(options, argument)
        chosen = () if value is None else (value,)
        show(options, columns, await cam.informs(request, *chosen))
        return 0

    return work


def say(options: argparse.Namespace, text: str, facts: Mapping[str, Any]) -> None:
    """Print a sentence, or the facts in it as JSON."""
    if options.json:
        print_json(facts)
    else:
        console().print(text, markup=False)


def print_json(value: Any) -> None:
    """Print a document for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
