"""Row 21: the store has lost its last writes, as when a machine fails; a successor goes on with the rest.

What Mesos tells in reconciliation is set against the records: states are brought up to date, what has no record
is killed, what has none on the cluster is lost. Each of that is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler.errors import SchedulerError
from scheduler.journal import GraphPhase, JournalState, MemoryJournal
from scheduler.subscription import Timing
from scheduler.task import TaskState
from tests.faults.test_succession import chain, late
from tests.faults.virtual import World, in_virtual_time


class Forgetful(MemoryJournal):
    """A journal that can lose its last writes."""

    def __init__(self) -> None:
        self._past: list[JournalState] = []
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_state":
            self._past.append(value)
        super().__setattr__(name, value)

    def lose(self, count: int) -> None:
        """Be as before the last writes; the framework's id was written long ago."""
        framework_id = self._state.framework_id
        self._state = replace(self._past[-1 - count], framework_id=framework_id)


@pytest.mark.parametrize("lost", [1, 5, 10, 13, 16, 19, 21])
def test_what_runs_is_what_is_known(
    tmp_path: Path, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    @in_virtual_time
    async def story() -> None:
        journal = Forgetful()
        async with World(tmp_path) as world:
            async with world.scheduler(journal) as scheduler:
                await scheduler.launch(chain(), timeout=60, late_values=late)
            before = set(world.running())
            journal.lose(lost)
            async with (
                world.scheduler(journal, timing=Timing(adoption=5.0)) as scheduler,
                asyncio.timeout(1000),
            ):
                if scheduler.phase("g") is GraphPhase.LAUNCHING:
                    with contextlib.suppress(SchedulerError):
                        await scheduler.resume("g", timeout=60, late_values=late)
                await asyncio.sleep(200)
                known = {
                    view.task_id
                    for graph_id in scheduler.graphs()
                    for view in scheduler.tasks(graph_id).values()
                    if view.state is not TaskState.DEAD
                }
                assert set(world.running()) == known
                for task_id in before - known:
                    assert task_id in caplog.text, "what had to end is told"

    story()
