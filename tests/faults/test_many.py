"""Large graphs: what is done for all of their tasks is done in pieces."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

from scheduler.breath import BREATH
from scheduler.graph import PhysicalGraph
from scheduler.journal import MemoryJournal, TaskRecord
from scheduler.requests import TaskRequest
from scheduler.task import TaskState
from tests.faults.virtual import Program, World, in_virtual_time
from tests.scheduler.programs import physical, shell


class Counting(MemoryJournal):
    """A journal that counts the bytes that a store would be given."""

    written = 0

    async def record_graph(self, graph: PhysicalGraph) -> None:
        self.written += len(json.dumps(graph.to_json()))
        await super().record_graph(graph)

    async def record_task(self, record: TaskRecord) -> None:
        self.written += len(json.dumps(record.to_json()))
        await super().record_task(record)


@in_virtual_time
async def test_what_a_batch_writes_grows_with_its_nodes_and_no_faster(tmp_path: Path) -> None:
    """Each node that was placed wrote the places of all: of 1 000 nodes, 160 MB."""
    request = TaskRequest.of(cpus=0.01, mem_mib=1)
    written = []
    for count in (12, 48):
        nodes = [shell(f"n{n:02d}", "x", request=request) for n in range(count)]
        journal = Counting()
        async with World(tmp_path / str(count)) as world, world.scheduler(journal) as scheduler:
            world.programs.update((node.name, Program(runs=1.0)) for node in nodes)
            result = await scheduler.run_batch(physical("b", *nodes), timeout=600)
            assert result.succeeded
            assert {record.state for record in (await journal.load()).tasks.values()} == set()
        written.append(journal.written)
    assert written[1] < 4.2 * written[0]


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
