"""Large graphs: what is done for all of their tasks is done in pieces."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from scheduler.breath import BREATH
from scheduler.requests import TaskRequest
from scheduler.task import TaskState
from tests.faults.virtual import World, in_virtual_time
from tests.scheduler.programs import physical, shell


@in_virtual_time
async def test_a_large_graph_is_told_to_end_a_few_tasks_at_a_time(tmp_path: Path) -> None:
    request = TaskRequest.of(cpus=0.01, mem_mib=1)
    tasks = [shell(f"t{n}", "x", request=request) for n in range(3 * BREATH)]
    async with World(tmp_path) as world, world.scheduler() as scheduler:
        await scheduler.launch(physical("g", *tasks), timeout=60)
        stopping = asyncio.create_task(scheduler.stop("g"))
        told = [0]
        for _ in range(40):
            await asyncio.sleep(0)
            views = scheduler.tasks("g").values()
            told.append(sum(view.state is TaskState.STOPPING for view in views))
        assert told[-1] == len(tasks)
        assert max(after - before for before, after in itertools.pairwise(told)) <= BREATH
        await stopping
        assert world.running() == {}
