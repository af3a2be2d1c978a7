"""Placing graphs on agents: pure functions, no I/O, no asyncio, no Mesos. See ``docs/packing.md``."""

from __future__ import annotations

from scheduler.packing.check import missing, violations
from scheduler.packing.circumstances import Circumstances, Idle, Occupant
from scheduler.packing.diagnose import FIRST_STEPS, MORE_STEPS, diagnose, pack_or_explain, warm_up
from scheduler.packing.explanation import Explanation, Verdict
from scheduler.packing.readings import read_all
from scheduler.packing.shortage import Lack, Nearest, Shortage, TooBig, Total
from scheduler.packing.solve import ITERATIONS, pack, place

__all__ = [
    "FIRST_STEPS",
    "ITERATIONS",
    "MORE_STEPS",
    "Circumstances",
    "Explanation",
    "Idle",
    "Lack",
    "Nearest",
    "Occupant",
    "Shortage",
    "TooBig",
    "Total",
    "Verdict",
    "diagnose",
    "missing",
    "pack",
    "pack_or_explain",
    "place",
    "read_all",
    "violations",
    "warm_up",
]
