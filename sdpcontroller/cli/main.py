"""``sdp``: one command for everything, one module per subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sdpcontroller.cli import (
    agents,
    captures,
    cluster,
    demo,
    framework,
    images,
    master,
    products,
    resources,
    status,
    warm_up,
)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="sdp",
        description="Science data processor controller for radio telescopes: turns product "
        "configurations into graphs of real-time programs, places them on a cluster as a whole, and "
        "runs them through captures.",
        epilog="Start with 'sdp demo'. docs/tutorial.md goes through the same steps by hand.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (demo, master, cluster, framework, resources, images, warm_up):
        module.add_parser(commands)
    for module in (products, captures, agents, status):
        module.add_parsers(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status."""
    options = make_parser().parse_args(argv)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
