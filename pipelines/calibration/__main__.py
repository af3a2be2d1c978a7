"""``python3 -m pipelines.calibration``: command line of calibration."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from contextlib import AsyncExitStack

from pipelines.calibration.publish import publish_attributes
from pipelines.calibration.scan import ParallelHands
from pipelines.calibration.server import CalServer, CalSettings
from pipelines.calibration.warm_up import warm_up
from pipelines.common import telstate as ts
from pipelines.common.endpoints import parse_endpoints
from pipelines.common.errors import ProgramError
from pipelines.common.l0.server import DEFAULT_DRAIN, L0Input
from pipelines.common.program import make_parser, option, run
from pipelines.common.stream_info import VisStream


def seconds(text: str) -> float:
    """Type of an option: a finite number of seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no number of seconds")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser(
        "pipelines.calibration", "Solves delays, bandpasses and gains from an L0 stream."
    )
    p.add_argument("--stream", required=True, metavar="NAME", help="calibration stream")
    p.add_argument("--input-stream", required=True, metavar="NAME", help="L0 stream")
    p.add_argument(
        "--input",
        required=True,
        type=option(parse_endpoints),
        metavar="ADDRESS[+N][:PORT]",
        help="multicast groups, one for each ingest",
    )
    p.add_argument(
        "--buffer-time",
        type=seconds,
        default=600.0,
        metavar="SECONDS",
        help="longest scan that is kept whole [%(default)s]",
    )
    p.add_argument(
        "--g-solint",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="solution interval of the gains; 0: every dump [%(default)s]",
    )
    p.add_argument(
        "--preferred-refants",
        action="append",
        default=[],
        metavar="ANTENNA",
        help="reference antenna, may be repeated; the first that has data is taken",
    )
    p.add_argument(
        "--drain-time",
        type=seconds,
        default=DEFAULT_DRAIN,
        metavar="SECONDS",
        help="longest wait for the end of a block's data [%(default)s]",
    )
    return p


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> CalServer:
    """Read telescope state, publish the stream's attributes, compile; return the server."""
    if options.telstate is None:
        raise ProgramError("--telstate is needed: the input stream is described there")
    telstate = await resources.enter_async_context(ts.connect(options.telstate))
    stream = await VisStream.load(telstate, options.input_stream)
    source = L0Input(stream, options.input, options.interface, options.drain_time)
    settings = CalSettings(
        options.stream, options.buffer_time, options.g_solint, tuple(options.preferred_refants)
    )
    antennas = ParallelHands.of(stream.bls_ordering).antennas
    await publish_attributes(telstate, options.stream, stream, antennas)
    await asyncio.to_thread(warm_up)
    return CalServer(options, telstate, source, settings)


if __name__ == "__main__":
    sys.exit(run(parser(), start))
