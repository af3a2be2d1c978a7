"""``python3 -m pipelines.quality``: command line of the aggregator."""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack

from pipelines.common import quality
from pipelines.common.errors import ProgramError
from pipelines.common.program import make_parser, run
from pipelines.quality.server import QualityServer


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program's options."""
    return make_parser(
        "pipelines.quality",
        "Keeps the picture of a product's quality, from what its programs put into the data queue.",
    )


async def start(options: argparse.Namespace, resources: AsyncExitStack) -> QualityServer:
    """Open the queue and return the server."""
    if options.telstate is None:
        raise ProgramError("--telstate is needed: the queue is beside it")
    queue = await resources.enter_async_context(quality.connect(options.telstate))
    return QualityServer(options, queue)


if __name__ == "__main__":
    sys.exit(run(parser(), start))
