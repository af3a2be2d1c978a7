"""``python3 -m pipelines.flags``: command line of the flagger."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack

from pipelines.catalogue import FLAGS_WINDOW
from pipelines.common.endpoints import parse_endpoints
from pipelines.common.errors import ProgramError
from pipelines.common.l0 import Content, L0Layout
from pipelines.common.l0.options import add_l0_options, open_input
from pipelines.common.program import make_parser, option, run
from pipelines.common.spead import DEFAULT_INTERFACE
from pipelines.flags.send import FlagSender
from pipelines.flags.server import FlagsServer
from pipelines.flags.warm_up import warm_up

MAX_WINDOW = 256


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser(
        "pipelines.flags",
        "Finds interference in an L0 stream with the time axis, and sends better flags.",
    )
    p.add_argument("--stream", required=True, metavar="NAME", help="stream of flags")
    p.add_argument("--input-stream", required=True, metavar="NAME", help="L0 stream")
    p.add_argument(
        "--cal-stream",
        metavar="NAME",
        help="calibration stream whose bandpass spectra are divided by",
    )
    add_l0_options(p)
    p.add_argument(
        "--output",
        required=True,
        type=option(parse_endpoints),
        metavar="ADDRESS[+N][:PORT]",
        help="multicast groups for the flags, as many as the input has",
    )
    p.add_argument("--output-interface", metavar="ADDRESS", help="interface for that [--interface]")
    p.add_argument(
        "--window",
        type=int,
        default=FLAGS_WINDOW,
        metavar="DUMPS",
        help="dumps that are looked at together [%(default)s]",
    )
    p.add_argument(
        "--rate-ratio",
        type=float,
        default=8.0,
        metavar="X",
        help="how much faster than real time flags are sent at most [%(default)s]",
    )
    p.add_argument(
        "--clock-ratio",
        type=float,
        default=1.0,
        metavar="R",
        help="wall seconds per second of the observation [%(default)s]",
    )
    return p


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> FlagsServer:
    """Read telescope state, compile; return the server."""
    if not 1 <= options.window <= MAX_WINDOW:
        raise ProgramError(f"--window is {options.window}: expected 1 to {MAX_WINDOW}")
    if not (1 < options.rate_ratio < 1e6 and 0 < options.clock_ratio < 1e6):
        raise ProgramError("--rate-ratio must be more than 1, --clock-ratio more than 0")
    if len(options.output) != len(options.input):
        raise ProgramError(
            f"--output has {len(options.output)} groups, --input {len(options.input)}: as many"
        )
    telstate, source = await open_input(options, options.input_stream, resources)
    await asyncio.to_thread(warm_up)
    stream = source.stream
    layout = L0Layout(
        stream.n_chans, stream.n_bls, len(options.output), stream.int_time, Content.FLAGS
    )
    seconds = stream.int_time * options.clock_ratio
    rate = layout.heap_bytes * layout.n_senders / seconds * options.rate_ratio
    interface = options.output_interface or options.interface or DEFAULT_INTERFACE
    sender = FlagSender(layout, options.output, interface, rate)
    return FlagsServer(
        options, telstate, source, sender, depth=options.window, cal_stream=options.cal_stream
    )


if __name__ == "__main__":
    sys.exit(run(parser(), start))
