"""A controller dies at every named place, and the next one goes on: (a) to (g) hold every time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.bench.bench import Bench
from tests.faults.bench.observer import Observer, check

pytestmark = pytest.mark.slow

AT_FIRST = ("subscribe.granted", "subscribe.recorded")
"""Places that only the very first controller comes to."""


def crash_points() -> list[str]:
    """Every place, and those that are passed for one task after the other a second time."""
    command = [sys.executable, "-m", "sdpcontroller.cli.main", "master", "--list-crash-points"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    points = [line.split()[0] for line in lines]
    again = [f"{line.split()[0]}:2" for line in lines if "one more" in line]
    rest = [point for point in points if point not in AT_FIRST]
    return [*AT_FIRST, *rest, *again]


class Walk:
    """Goes through an observation again and again, each time with a controller that dies somewhere else."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.bystander = Observer(bench, "q", self.mend)
        self.observer = Observer(bench, "p", self.mend)
        self.crashed = False
        self.following = ""
        """Where the next controller dies too."""

    async def mend(self) -> None:
        """See that it was the crash that was asked for; let the next controller go on."""
        assert await self.bench.ended("A") == -signal.SIGKILL, self.last_words()
        self.crashed = True
        following, self.following = self.following, ""
        await self.bench.start(crash_at=following)
        if following:  # twice in a row
            return
        await check(self.bench, self.bystander, self.observer)

    def last_words(self) -> str:
        return self.bench.controllers["A"].log.read_text()[-3000:]

    async def observe(self) -> None:
        await self.observer.configure()
        await self.observer.capture_init()
        await self.observer.capture_done()
        await self.observer.deconfigure()

    async def at(self, point: str, following: str = "") -> None:
        self.crashed, self.following = False, following
        if self.bench.controllers["A"].pid:
            await self.bench.signal("A", signal.SIGTERM)
            assert self.bench.controllers["A"].status == 0, self.last_words()
        await self.bench.start(crash_at=point)
        began = time.monotonic()
        await self.observe()
        await check(self.bench, self.bystander, self.observer)
        sys.stderr.write(f"{point} {time.monotonic() - began:.2f}\n")
        assert self.crashed and not self.following, f"{point} was never reached"


PARTS = 6


@pytest.mark.parametrize("part", range(PARTS))
async def test_every_one(tmp_path: Path, part: int) -> None:
    async with Bench(tmp_path) as bench:
        walk = Walk(bench)
        if part == 0:
            await walk.at(*AT_FIRST)
        else:
            await bench.start()
        await walk.bystander.configure()
        await walk.bystander.capture_init()
        for point in crash_points()[len(AT_FIRST) + part :: PARTS]:
            await walk.at(point)
        assert await walk.bystander._own_tasks() == walk.bystander.expected.tasks
        await walk.bystander.capture_done()
        assert len(walk.bystander.cbids) == 1
        await walk.bystander.deconfigure()
        await check(bench, walk.bystander, walk.observer)
        assert bench.stalls() == []
