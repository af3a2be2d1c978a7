"""``python3 -m pipelines.writer``: command line of the writer."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from pipelines.common.errors import ProgramError
from pipelines.common.l0 import Content
from pipelines.common.l0.options import add_l0_options, open_input
from pipelines.common.program import make_parser, run
from pipelines.writer.server import WriterServer


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser(
        "pipelines.writer", "Writes an L0 stream, or its flags, as MeerKAT visibility format v4."
    )
    p.add_argument("--stream", required=True, metavar="NAME", help="L0 stream, or stream of flags")
    p.add_argument(
        "--flags-of", metavar="NAME", help="the L0 stream that the flags are of, if they are flags"
    )
    add_l0_options(p)
    p.add_argument("--data", required=True, type=Path, metavar="DIR", help="the data volume")
    p.add_argument(
        "--measurement-set",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="write a MeasurementSet beside the data set",
    )
    return p


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> WriterServer:
    """Read telescope state and return the server."""
    if not options.data.is_dir():
        raise ProgramError(f"--data {options.data} is no directory")
    telstate, source = await open_input(options, options.flags_of or options.stream, resources)
    if options.flags_of is not None:
        stream = dataclasses.replace(source.stream, name=options.stream)
        source = dataclasses.replace(source, stream=stream, content=Content.FLAGS)
    if options.measurement_set and options.flags_of is not None:
        raise ProgramError("--measurement-set is of visibilities, not of flags")
    return WriterServer(options, telstate, source, measurement_set=options.measurement_set)


if __name__ == "__main__":
    sys.exit(run(parser(), start))
