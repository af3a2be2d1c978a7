"""Two hundred faults at random: eight soaks with a seed each; ``make soak`` does as many as one likes.

A soak waits more than it computes, a tenth of a core in all: several run beside each other, each with a world
of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SEEDS = range(8)
FAULTS = 25
TOGETHER = 4


async def soak(folder: Path, seed: int) -> str:
    """Run one; return what it says, empty when all is well."""
    report = folder / f"{seed}.json"
    options = ("--faults", FAULTS, "--seed", seed, "--report", report, "--keep", folder / str(seed))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak", *map(str, options)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )
    text, _ = await process.communicate()
    sys.stderr.write(text.decode())
    done = sum(json.loads(report.read_text())["faults"].values()) if report.exists() else 0
    return "" if process.returncode == 0 and done == FAULTS else text.decode()[-3000:]


@pytest.mark.parametrize("first", SEEDS[::TOGETHER])
async def test_faults_at_random(tmp_path: Path, first: int) -> None:
    seeds = range(first, first + TOGETHER)
    failures = [text for text in await asyncio.gather(*(soak(tmp_path, n) for n in seeds)) if text]
    assert not failures, "\n\n".join(failures)
