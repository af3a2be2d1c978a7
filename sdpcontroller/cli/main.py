"""``sdp``: one command for everything, one module per subcommand."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

MODULES: Final = {
    "demo": ("demo",),
    "master": ("master",),
    "cluster": ("cluster",),
    "framework": ("framework",),
    "resources": ("resources",),
    "images": ("images",),
    "warm_up": ("warm-up",),
    "products": ("configure", "deconfigure", "plan", "explain"),
    "captures": ("capture",),
    "agents": ("agents", "drain", "undrain", "resume-repair"),
    "status": ("status", "tasks", "queues", "logs", "events"),
}
"""Commands by the module that has them."""


def make_parser(command: str = "") -> argparse.ArgumentParser:
    """Make the parser of the whole command line; of one command only, if there is one of that name.

    A controller that takes over need not load what makes demonstrations first.
    """
    wanted = [module for module, names in MODULES.items() if command in names] or MODULES
    parser = argparse.ArgumentParser(
        prog="sdp",
        description="Science data processor controller for radio telescopes: turns product "
        "configurations into graphs of real-time programs, places them on a cluster as a whole, and "
        "runs them through captures.",
        epilog="Start with 'sdp demo'. docs/tutorial.md goes through the same steps by hand.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in wanted:
        module = importlib.import_module(f"sdpcontroller.cli.{name}")
        getattr(module, "add_parsers" if hasattr(module, "add_parsers") else "add_parser")(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    options = make_parser(words[0] if words else "").parse_args(words)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
