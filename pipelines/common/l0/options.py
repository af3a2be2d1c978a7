"""The options of programs that receive an L0 stream."""

from __future__ import annotations

import argparse
import math
from contextlib import AsyncExitStack

from katsdptelstate.aio.telescope_state import TelescopeState

from pipelines.common import telstate as ts
from pipelines.common.endpoints import parse_endpoints
from pipelines.common.errors import ProgramError
from pipelines.common.l0.server import DEFAULT_DRAIN, L0Input
from pipelines.common.program import option
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


def add_l0_options(parser: argparse.ArgumentParser) -> None:
    """Add where an L0 stream comes from and how long its end is waited for."""
    parser.add_argument(
        "--input",
        required=True,
        type=option(parse_endpoints),
        metavar="ADDRESS[+N][:PORT]",
        help="multicast groups, one for each ingest",
    )
    parser.add_argument(
        "--drain-time",
        type=seconds,
        default=DEFAULT_DRAIN,
        metavar="SECONDS",
        help="longest wait for the end of a block's data [%(default)s]",
    )


async def open_input(
    options: argparse.Namespace, stream: str, resources: AsyncExitStack
) -> tuple[TelescopeState, L0Input]:
    """Connect to telescope state and read there what the stream is.

    Raises
    ------
    ProgramError
        No telescope state was given.
    PipelineError
        It does not answer, or does not describe the stream.
    """
    if options.telstate is None:
        raise ProgramError("--telstate is needed: the stream is described there")
    telstate = await resources.enter_async_context(ts.connect(options.telstate))
    info = await VisStream.load(telstate, stream)
    return telstate, L0Input(info, options.input, options.interface, options.drain_time)
