"""``sdp warm-up``: compile what is compiled, once for a machine or an image."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import Any

from scheduler.packing.solve import warm_up


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "warm-up",
        help="compile what is compiled at run time, once for a machine or an image",
        description="Compile the packing's search and the programs' inner loops, and keep the result "
        "beside the modules. Without it the first product on a fresh installation waits for that.",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    begin = time.monotonic()
    warm_up()
    sys.stdout.write(f"packing: {time.monotonic() - begin:.0f} s\n")
    sys.stdout.flush()
    # In a process of its own, as programs run: what they need is not loaded here.
    return subprocess.run([sys.executable, "-m", "pipelines.warm_up"], check=False).returncode
