"""Measure what is asked for: ``python -m benchmarks.control [MEASURE …]``."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.control.measures import MEASURES

WARM_UP: Final = "from scheduler.packing import warm_up; warm_up()"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run measures, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.control",
        description="How fast the master controller is.",
        epilog="; ".join(
            f"{name}: {(act.__doc__ or '').splitlines()[0]}" for name, act in MEASURES.items()
        ),
    )
    parser.add_argument("measure", nargs="*", help=f"any of {', '.join(MEASURES)}; all without")
    parser.add_argument("--nice", type=int, default=0, help="added to the niceness of everything")
    options = parser.parse_args(arguments)
    if unknown := set(options.measure) - MEASURES.keys():
        parser.error(f"there is no measure {', '.join(unknown)}")
    be_nice(options.nice)
    # Of what sdp warm-up compiles, a controller needs this; in a process of its own, to keep this one light.
    subprocess.run([sys.executable, "-c", WARM_UP], check=True)
    for name in options.measure or MEASURES:
        print(f"{name} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
        asyncio.run(MEASURES[name]())


def be_nice(value: int) -> None:
    """Change the niceness of this process, of all that it starts, and of their group, where Linux has those."""
    os.nice(value)
    group = Path("/proc/self/autogroup")  # of a session: without, niceness counts within it only
    if value and group.exists():
        os.setsid()
        group.write_text(str(value))


if __name__ == "__main__":
    main()
