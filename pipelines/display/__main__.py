"""``python3 -m pipelines.display``: command line of the signal display."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import sys
from contextlib import AsyncExitStack

from pipelines.common.l0.options import add_l0_options, open_input
from pipelines.common.program import make_parser, port_number, run
from pipelines.display.history import DEFAULT_DEPTH
from pipelines.display.server import DEFAULT_RATE, DisplayServer
from pipelines.display.warm_up import warm_up
from pipelines.display.web import serve

logger = logging.getLogger(__name__)

MAX_DEPTH = 10_000


def _depth(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 2 <= value <= MAX_DEPTH:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no number from 2 to {MAX_DEPTH}")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no rate: expected 0 < rate <= 1000")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser(
        "pipelines.display",
        "Shows an L0 stream to people: spectra, phases, waterfalls, flags and powers on a web page.",
    )
    p.add_argument("--stream", required=True, metavar="NAME", help="L0 stream")
    add_l0_options(p)
    p.add_argument(
        "--http-port", type=port_number, default=0, metavar="PORT", help="port of the page (0: any)"
    )
    p.add_argument(
        "--depth",
        type=_depth,
        default=DEFAULT_DEPTH,
        metavar="DUMPS",
        help="dumps that are remembered [%(default)s]",
    )
    p.add_argument(
        "--max-rate",
        type=_rate,
        default=DEFAULT_RATE,
        metavar="HZ",
        help="dumps a second that are looked at, the others are left out [%(default)s]",
    )
    return p


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> DisplayServer:
    """Read telescope state, compile, open the page; return the server."""
    telstate, source = await open_input(options, options.stream, resources)
    await asyncio.to_thread(warm_up)
    server = DisplayServer(
        options, telstate, source, depth=options.depth, max_rate=options.max_rate
    )
    port = await resources.enter_async_context(serve(server, options.host, options.http_port))
    logger.info("the page is at http://%s:%d/", options.host, port)
    return server


if __name__ == "__main__":
    sys.exit(run(parser(), start))
