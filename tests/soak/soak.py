"""Faults at random while products are observed with; after each, (a) to (g) are judged."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.bench.bench import Bench, NobodyError
from tests.faults.bench.observer import Observer
from tests.faults.bench.oracles import accounted, judge, settled
from tests.soak.faults import KINDS, Chaos

PRODUCTS = ("p", "q", "r")


@dataclass
class Report:
    """What came of it."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    controllers: int = 0
    """Controllers that were begun."""
    requests: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    """What products went through."""
    takeovers: list[float] = field(default_factory=list)
    handovers: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        total = sum(self.faults.values())
        lines = [
            f"{total} faults in {self.seconds:.0f} s, seed {self.seed}; "
            f"{self.controllers} controllers, {self.requests} requests",
            *(f"  {kind:<24}{count:>5}" for kind, count in self.faults.most_common()),
            "observing: " + ", ".join(f"{count} {step}" for step, count in self.steps.items()),
            f"standby takes over after kill -9: {_spread(self.takeovers)}",
            f"standby takes over from an end in order: {_spread(self.handovers)}",
            f"violations: {len(self.violations)}",
            *(f"  {violation}" for violation in self.violations[:20]),
        ]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(vars(self), indent=1) + "\n")


def _spread(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return f"{len(seconds)} measured"
    p95 = statistics.quantiles(seconds, n=20)[-1]
    median, worst = statistics.median(seconds), max(seconds)
    return f"median {median:.2f} s, 95 % {p95:.2f} s, worst {worst:.2f} s ({len(seconds)} measured)"


class Soak:
    """One run.

    Parameters
    ----------
    faults
        How many.
    seed
        The same one breaks the same things in the same order (what goes on meanwhile is not repeated).
    kinds
        Of faults, by name.
    """

    def __init__(
        self,
        folder: Path,
        faults: int,
        seed: int,
        say: Callable[[str], None],
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self._folder = folder
        self._faults = faults
        self._rng = random.Random(seed)
        self._say = say
        self._kinds = kinds
        self.report = Report(seed)
        self._upkeep = asyncio.Event()

    async def run(self) -> Report:
        """Break things, and judge; ends early at the first violation."""
        began = time.monotonic()
        async with Bench(self._folder, controllers=2) as bench:
            self.chaos = Chaos(bench, self._rng)
            self._bench = bench
            bench.observed = self._count
            self._observers = [Observer(bench, name, self._mend) for name in PRODUCTS]
            self._upkeep.set()
            keeping = asyncio.create_task(self._keep_controllers())
            kinds = self._order()
            try:
                for number, kind in enumerate(kinds, 1):
                    await self._round(number, kind)
                    if self.report.violations:
                        break
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            self.report.controllers = bench.starts
        self.report.takeovers = self.chaos.takeovers
        self.report.handovers = self.chaos.handovers
        self.report.seconds = time.monotonic() - began
        return self.report

    def _order(self) -> list[str]:
        """Return kinds of faults: each as often as the others, in a random order."""
        kinds: list[str] = []
        while len(kinds) < self._faults:
            turn = list(self._kinds)
            self._rng.shuffle(turn)
            kinds += turn
        return kinds[: self._faults]

    def _count(self, request: str) -> None:
        self.report.requests += 1

    async def _mend(self) -> None:
        await asyncio.sleep(0.05)

    async def _keep_controllers(self) -> None:
        """Begin every controller again that has ended, as a service manager does."""
        while True:
            for name, controller in self._bench.controllers.items():
                if not controller.pid:
                    crash_at, self.chaos.crash_at = self.chaos.crash_at, ""
                    await self._bench.start(name, crash_at)
            await asyncio.sleep(0.1)

    async def _round(self, number: int, kind: str) -> None:
        steps = [asyncio.create_task(self._step(observer)) for observer in self._observers]
        await asyncio.sleep(self._rng.uniform(0.0, 0.8))
        began = time.monotonic()
        self.chaos.lost.clear()
        try:
            async with asyncio.timeout(180):  # nothing waits for ever
                await self.chaos.kinds[kind]()
                await asyncio.gather(*steps)
                if self.chaos.lost:
                    await accounted(self._bench)
                    for observer in self._observers:
                        await observer.take_stock(self.chaos.lost)
                await self._judge(number, kind)
        except Exception as exc:
            self.report.violations.append(f"fault {number} ({kind}): {exc!r}")
        finally:
            for step in steps:
                step.cancel()
            await asyncio.gather(*steps, return_exceptions=True)
        self.report.faults[kind] += 1
        self._say(f"{number:>5} {kind:<24}{time.monotonic() - began:6.1f} s")

    async def _step(self, observer: Observer) -> None:
        """Do what comes next with a product, or leave it in peace."""
        act = self._next(observer)
        if act is None:
            return
        self.report.steps[act] += 1
        await observer.act(act)

    def _next(self, observer: Observer) -> str | None:
        (state,) = observer.expected.states
        choices: dict[str, list[str | None]] = {
            "absent": ["configure"],
            "idle": ["capture_init", "capture_init", "deconfigure"],
            "capturing": ["capture_done", None, None],
            "error": ["deconfigure"],
        }
        return self._rng.choice(choices[state])

    async def _judge(self, number: int, kind: str) -> None:
        while True:
            try:
                await settled(self._bench)
                expected = {o.name: o.expected for o in self._observers}
                violations = await judge(self._bench, expected)
                break
            except NobodyError:  # a controller dies at its crash point
                await self._mend()
        cbids = [cbid for observer in self._observers for cbid in observer.cbids]
        if len(set(cbids)) < len(cbids):
            violations.append("(b) a capture block id was given twice")
        violations += self.chaos.violations
        violations += [f"(g) {stall}" for stall in self._bench.stalls()]
        self.report.violations += [f"fault {number} ({kind}): {text}" for text in violations]


async def end_all(bench: Bench) -> None:
    """End every controller at once."""
    for name, controller in bench.controllers.items():
        if controller.pid:
            await bench.signal(name, signal.SIGKILL)
