"""What cannot be written as Mesos wants it is refused with a reason, and holds nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.errors import LaunchError
from tests.faults.virtual import World, in_virtual_time
from tests.scheduler.programs import physical, shell


@in_virtual_time
async def test_half_a_character_in_a_task_fails_its_launch_and_nothing_else(tmp_path: Path) -> None:
    r"""JSON can say ``"\ud800"``, which no text in UTF-8 can."""
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        bad = replace(shell("a", "x"), env={"NAME": "\ud800"})
        with pytest.raises(LaunchError, match=r"cannot be launched: .*surrogates"):
            await scheduler.launch(physical("bad", bad), timeout=60)
        await scheduler.launch(physical("good", shell("a", "x")), timeout=60)
        assert {name.partition(".")[0] for name in world.running()} == {"good"}
        await scheduler.stop("good")
