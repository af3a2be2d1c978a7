"""Placing graphs on agents: pure functions, no I/O, no asyncio, no Mesos. See ``docs/packing.md``."""

from __future__ import annotations

from scheduler.packing.check import missing, violations
from scheduler.packing.shortage import Lack, Nearest, Shortage, TooBig, Total
from scheduler.packing.solve import ITERATIONS, pack, warm_up

__all__ = [
    "ITERATIONS",
    "Lack",
    "Nearest",
    "Shortage",
    "TooBig",
    "Total",
    "missing",
    "pack",
    "violations",
    "warm_up",
]
