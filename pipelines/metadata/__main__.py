"""``python3 -m pipelines.metadata``: command line of the metadata writer."""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from pipelines.common import telstate as ts
from pipelines.common.errors import ProgramError
from pipelines.common.program import make_parser, run
from pipelines.metadata.server import DEFAULT_PERIOD, MetadataServer

MIN_PERIOD = 1.0


def _period(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not MIN_PERIOD <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no time of {MIN_PERIOD:g} s or more")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    p = make_parser(
        "pipelines.metadata",
        "Writes telescope state to the files that open data sets, one for each block and stream.",
    )
    p.add_argument(
        "--stream",
        required=True,
        action="append",
        metavar="NAME",
        help="visibility stream that is written; may be repeated",
    )
    p.add_argument("--data", required=True, type=Path, metavar="DIR", help="the data volume")
    p.add_argument(
        "--period",
        type=_period,
        default=DEFAULT_PERIOD,
        metavar="SECONDS",
        help="time between files of a block that goes on [%(default)s]",
    )
    return p


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> MetadataServer:
    """Connect to telescope state and return the server."""
    if not options.data.is_dir():
        raise ProgramError(f"--data {options.data} is no directory")
    if options.telstate is None:
        raise ProgramError("--telstate is needed: it is what is written")
    telstate = await resources.enter_async_context(ts.connect(options.telstate))
    return MetadataServer(options, telstate, options.stream, options.data, period=options.period)


if __name__ == "__main__":
    sys.exit(run(parser(), start))
