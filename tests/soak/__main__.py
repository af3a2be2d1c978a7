"""``make soak``: break a controller's world at random, and judge.

Exit status 0 when nothing was violated.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import secrets
import sys
import tempfile
from pathlib import Path

from tests.soak.faults import BY_NAME, KINDS
from tests.soak.soak import Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--faults", type=int, default=1000, help="how many [%(default)s]")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="[a new one]")
    parser.add_argument("--report", type=Path, default=Path("soak-report.json"), metavar="FILE")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep logs and the database here"
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=(*KINDS, *BY_NAME),
        default=KINDS,
        metavar="KIND",
        help="of faults [all]",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sdp-soak-") as temporary:
        folder = options.keep or Path(temporary)
        say = functools.partial(print, flush=True)
        soak = Soak(folder, options.faults, options.seed, say, options.kinds)
        report = asyncio.run(soak.run())
    print(report)
    report.write(options.report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
