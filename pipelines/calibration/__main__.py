"""``python3 -m pipelines.calibration``: command line of calibration."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from pipelines.calibration.pairs import Pairs
from pipelines.calibration.publish import publish_attributes
from pipelines.calibration.report.web import serve
from pipelines.calibration.server import CalServer
from pipelines.calibration.settings import CalSettings
from pipelines.calibration.solutions import Channels
from pipelines.calibration.warm_up import warm_up
from pipelines.common.errors import ProgramError
from pipelines.common.l0.options import add_l0_options, open_input, seconds
from pipelines.common.program import make_parser, port_number, run

logger = logging.getLogger(__name__)

MIN_CHANNELS: Final = 2
"""That delays, or gains, are solved from."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser(
        "pipelines.calibration", "Solves delays, bandpasses and gains from an L0 stream."
    )
    p.add_argument("--stream", required=True, metavar="NAME", help="calibration stream")
    p.add_argument("--input-stream", required=True, metavar="NAME", help="L0 stream")
    add_l0_options(p)
    p.add_argument(
        "--buffer-time",
        type=seconds,
        default=600.0,
        metavar="SECONDS",
        help="visibilities that are held at most; scans may be longer [%(default)s]",
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
    for name, what in (("k", "delays"), ("g", "gains")):
        p.add_argument(
            f"--{name}-bchan",
            type=channel,
            default=0,
            metavar="CHANNEL",
            help=f"first channel that {what} are solved from [%(default)s]",
        )
        p.add_argument(
            f"--{name}-echan",
            type=channel,
            metavar="CHANNEL",
            help=f"end of the channels that {what} are solved from [all]",
        )
    p.add_argument(
        "--data", type=Path, metavar="DIR", help="the data volume; reports are written there"
    )
    p.add_argument(
        "--http-port",
        type=port_number,
        default=0,
        metavar="PORT",
        help="port on which reports can be read (0: any)",
    )
    return p


def channel(text: str) -> int:
    """Type of an option: the number of a channel."""
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no number of a channel")
    return int(text)


def channels_of(options: argparse.Namespace, n_chans: int) -> Channels:
    """Return the channels that delays and gains are solved from.

    Raises
    ------
    ProgramError
        There are none, or no such.
    """
    ranges = []
    for name in ("k", "g"):
        first, end = getattr(options, f"{name}_bchan"), getattr(options, f"{name}_echan")
        end = n_chans if end is None else end
        if not 0 <= first < end <= n_chans or end - first < MIN_CHANNELS:
            raise ProgramError(
                f"--{name}-bchan {first} and --{name}-echan {end} are no {MIN_CHANNELS} channels or "
                f"more of {n_chans}"
            )
        ranges.append(slice(first, end))
    return Channels(*ranges)


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> CalServer:
    """Read telescope state, publish the stream's attributes, compile; return the server."""
    if options.data is not None and not options.data.is_dir():
        raise ProgramError(f"--data {options.data} is no directory")
    telstate, source = await open_input(options, options.input_stream, resources)
    stream = source.stream
    settings = CalSettings(
        options.stream,
        options.buffer_time,
        options.g_solint,
        tuple(options.preferred_refants),
        channels_of(options, stream.n_chans),
    )
    antennas = Pairs.of(stream.bls_ordering).antennas
    await publish_attributes(telstate, options.stream, stream, antennas)
    await asyncio.to_thread(warm_up)
    port = await resources.enter_async_context(
        serve(options.data, options.stream, options.host, options.http_port)
    )
    logger.info("reports are at http://%s:%d/", options.host, port)
    return CalServer(options, telstate, source, settings)


if __name__ == "__main__":
    sys.exit(run(parser(), start))
