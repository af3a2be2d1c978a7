"""``sdp configure``, ``deconfigure``, ``plan``, ``explain``: products come and go."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from sdpcontroller.cli.cam import Cam, CamError
from sdpcontroller.cli.controller import add_command, connected, say
from sdpcontroller.config.document import MAX_BYTES
from sdpcontroller.errors import ConfigError

_ASK_AGAIN: Final = 1.0
"""Seconds between two looks at what a configure waits for."""


def add_parsers(commands: Any) -> None:
    """Add the subcommands."""
    parser = add_command(
        commands,
        "configure",
        _configure,
        summary="bring up a product",
        description="Bring up a product: its whole graph is placed, launched and ready when this returns. "
        "While it waits, it says for what.",
    )
    parser.add_argument("name", help="name of the product; a * becomes the first free number")
    _add_config(parser)
    parser = add_command(
        commands,
        "deconfigure",
        _deconfigure,
        summary="take a product down",
        description="Take a product down; returns when all its tasks have ended.",
    )
    parser.add_argument("name", help="name of the product")
    parser.add_argument(
        "--force", action="store_true", help="end the capture block first, if one captures"
    )
    parser = add_command(
        commands,
        "plan",
        _plan,
        summary="say whether a configuration would fit, and where",
        description="Dry run of 'configure': would it fit now, where, and if not why. Touches nothing. "
        "Exit status 2 if it would not fit.",
    )
    _add_config(parser)
    parser = add_command(
        commands,
        "explain",
        _explain,
        summary="say what a product is waiting for",
        description="Say why a product that is being configured is still waiting, or what is wrong with it.",
    )
    parser.add_argument("name", help="name of the product")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", help="file with the product configuration (JSON); - reads it from stdin"
    )


def read_document(path: str) -> str:
    """Read a configuration document from a file or standard input.

    Raises
    ------
    ConfigError
        It is no text, or absurdly large.
    OSError
        It cannot be read.
    """
    if path == "-":
        raw = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:  # the controller would discard the line, and never answer
        raise ConfigError(f"{path} has more than {MAX_BYTES >> 20} MiB: no product configuration")
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is no text in UTF-8: {exc.reason} at byte {exc.start}") from None


async def _configure(cam: Cam, options: argparse.Namespace) -> int:
    document = read_document(options.config)
    asking = asyncio.create_task(cam.request("product-configure", options.name, document))
    try:
        await _tell_what_it_waits_for(asking, options)
        name, host, port = await asking
    finally:
        asking.cancel()
    facts = {"name": name, "host": host, "port": int(port)}
    say(options, f"{name} is up; {host}:{port} answers its requests", facts)
    return 0


async def _tell_what_it_waits_for(asking: asyncio.Task[Any], options: argparse.Namespace) -> None:
    """Show what is waited for until the reply has come; on a terminal only, and never in the way."""
    err = Console(stderr=True)
    if not err.is_terminal or "*" in options.name:
        await asyncio.wait({asking})
        return
    with err.status(f"configuring {options.name}") as status:
        async with connected(options.controller) as second:
            while not asking.done():
                await asyncio.wait({asking}, timeout=_ASK_AGAIN)
                try:
                    lines = await second.informs("product-explain", options.name)
                except CamError:
                    continue  # it does not exist yet, or any more
                text = " ".join(line[0] for line in lines[:2])
                status.update(f"configuring {options.name}: {text}"[:200])


async def _deconfigure(cam: Cam, options: argparse.Namespace) -> int:
    await cam.request("product-deconfigure", options.name, int(options.force))
    say(options, f"{options.name} is down", {"name": options.name})
    return 0


async def _plan(cam: Cam, options: argparse.Namespace) -> int:
    lines = [line for (line,) in await cam.informs("product-plan", read_document(options.config))]
    fits = bool(lines) and lines[0].startswith("it would fit")
    say(options, "\n".join(lines), {"fits": fits, "lines": lines})
    return 0 if fits else 2


async def _explain(cam: Cam, options: argparse.Namespace) -> int:
    lines = [line for (line,) in await cam.informs("product-explain", options.name)]
    say(options, "\n".join(lines), {"name": options.name, "lines": lines})
    return 0
