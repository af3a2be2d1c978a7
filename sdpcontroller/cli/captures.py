"""``sdp capture start|stop``: capture blocks of a product."""

from __future__ import annotations

import argparse
from typing import Any

from sdpcontroller.cli.cam import Cam
from sdpcontroller.cli.controller import add_command, say


def add_parsers(commands: Any) -> None:
    """Add the subcommands."""
    capture = commands.add_parser(
        "capture",
        help="begin or end a capture block",
        description="Begin or end a capture block of a product.",
    )
    steps = capture.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = add_command(
        steps,
        "start",
        _start,
        summary="begin a capture block",
        description="Begin a capture block; when this returns, everything is ready for data.",
    )
    parser.add_argument("name", help="name of the product")
    parser.add_argument(
        "--override", metavar="JSON", help="merged over the product's configuration for this block"
    )
    parser = add_command(
        steps,
        "stop",
        _stop,
        summary="end the capture block",
        description="End the capture block; when this returns, its data are drained.",
    )
    parser.add_argument("name", help="name of the product")


async def _start(cam: Cam, options: argparse.Namespace) -> int:
    override = () if options.override is None else (options.override,)
    (block,) = await cam.request("capture-init", options.name, *override)
    say(options, f"capture block {block} captures", {"capture_block": block})
    return 0


async def _stop(cam: Cam, options: argparse.Namespace) -> int:
    (block,) = await cam.request("capture-done", options.name)
    say(options, f"capture block {block} is drained", {"capture_block": block})
    return 0
