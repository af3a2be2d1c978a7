"""``python3 -m pipelines.writer``: command line of the writer."""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from pipelines.common import telstate as ts
from pipelines.common.endpoints import parse_endpoints
from pipelines.common.errors import ProgramError
from pipelines.common.l0.server import DEFAULT_DRAIN, L0Input
from pipelines.common.program import make_parser, option, run
from pipelines.common.stream_info import VisStream
from pipelines.writer.server import WriterServer


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser("pipelines.writer", "Writes an L0 stream as MeerKAT visibility format v4.")
    p.add_argument("--stream", required=True, metavar="NAME", help="L0 stream")
    p.add_argument(
        "--input",
        required=True,
        type=option(parse_endpoints),
        metavar="ADDRESS[+N][:PORT]",
        help="multicast groups, one for each ingest",
    )
    p.add_argument("--data", required=True, type=Path, metavar="DIR", help="the data volume")
    p.add_argument(
        "--drain-time",
        type=float,
        default=DEFAULT_DRAIN,
        metavar="SECONDS",
        help="longest wait for the end of a block's data [%(default)s]",
    )
    return p


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> WriterServer:
    """Read telescope state and return the server."""
    if options.telstate is None:
        raise ProgramError("--telstate is needed: the stream is described there")
    if not options.data.is_dir():
        raise ProgramError(f"--data {options.data} is no directory")
    telstate = await resources.enter_async_context(ts.connect(options.telstate))
    stream = await VisStream.load(telstate, options.stream)
    source = L0Input(stream, options.input, options.interface, options.drain_time)
    return WriterServer(options, telstate, source)


if __name__ == "__main__":
    sys.exit(run(parser(), start))
