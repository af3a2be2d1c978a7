"""The garbage collector looks at few objects at a time."""

from __future__ import annotations

import gc

from scheduler.collector import MANY, look_if_many


class Reading:
    """Looked at by the collector, and freed without it."""


def test_young_ones_that_take_the_place_of_old_ones_are_looked_at_in_time() -> None:
    look_if_many()
    readings = [Reading() for _ in range(3 * MANY)]
    gc.collect()
    for number in range(len(readings)):
        readings[number] = Reading()
    count, _, _ = gc.get_count()
    young = len(gc.get_objects(generation=0))
    assert count < MANY < young  # the collector itself sees no reason to look
    look_if_many()
    assert len(gc.get_objects(generation=0)) < MANY
    assert len(gc.get_objects(generation=1)) < MANY
