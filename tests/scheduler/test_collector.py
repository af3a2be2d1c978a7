"""The garbage collector looks at few objects at a time."""

from __future__ import annotations

import asyncio
import gc

import async_solipsism

from scheduler.collector import PERIOD, ROUND, keep_looking

MANY = 6_000


class Reading:
    """Looked at by the collector, and freed without it."""


async def _replace_readings() -> None:
    readings = [Reading() for _ in range(MANY)]
    gc.collect()
    for number in range(MANY):
        readings[number] = Reading()
    count, _, _ = gc.get_count()
    assert (
        count < MANY / 2 < len(gc.get_objects(generation=0))
    )  # it sees no reason to look by itself
    looking = asyncio.create_task(keep_looking())
    await asyncio.sleep(1.5 * PERIOD)
    assert len(gc.get_objects(generation=0)) < MANY / 2 < len(gc.get_objects(generation=1))
    await asyncio.sleep(ROUND * PERIOD)
    assert len(gc.get_objects(generation=1)) < MANY / 2
    looking.cancel()


def test_young_ones_that_take_the_place_of_old_ones_are_looked_at_in_time() -> None:
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(_replace_readings())
