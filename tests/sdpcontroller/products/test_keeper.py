"""What is shown of a product."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from scheduler.task import TaskState
from scheduler.views import TaskView
from sdpcontroller.control import CaptureBlockState, ProductRecord, ProductState
from sdpcontroller.products.keeper import TELL_PERIOD, Keeper
from sdpcontroller.products.record import Block, KeptProduct
from sdpcontroller.store import Store


async def test_a_task_of_postprocessing_is_shown_as_long_as_it_and_its_block_last(
    store: Store,
) -> None:
    """A block can end without the end of its tasks being told: another controller saw that."""
    told: list[ProductRecord] = []
    block = Block(state=CaptureBlockState.POSTPROCESSING, batch="b")
    kept = KeptProduct(
        name="p", state=ProductState.IDLE, config="{}", graph_id="g", blocks={"1": block}
    )
    keeper = Keeper(store, kept, told.append)
    ready, dead = TaskState.READY, TaskState.DEAD
    task = TaskView(graph_id="g", name="ingest", kind="ingest", task_id="g.ingest.0", state=dead)
    batch = TaskView(graph_id="b", name="imager", kind="imager", task_id="b.imager.0", state=ready)
    keeper.show_tasks([task, batch])
    assert keeper.shown.tasks.keys() == {"ingest", "imager"}
    keeper.show_tasks([replace(batch, state=dead)])
    assert keeper.shown.tasks.keys() == {"ingest"}
    keeper.show_tasks([batch])
    assert keeper.shown.tasks.keys() == {"ingest", "imager"}
    over = Block(state=CaptureBlockState.DEAD)
    await keeper.change("over", lambda kept: kept.with_block("1", over))
    assert told[-1].tasks.keys() == {"ingest"}


async def test_tasks_that_change_together_are_told_together(store: Store) -> None:
    told: list[ProductRecord] = []
    kept = KeptProduct(name="p", state=ProductState.IDLE, config="{}", graph_id="g")
    keeper = Keeper(store, kept, told.append)
    views = [
        TaskView(graph_id="g", name=f"t{n}", kind="t", task_id=f"g.t{n}.0", state=TaskState.READY)
        for n in range(50)
    ]
    for view in views:
        keeper.show_tasks([view])
    assert not told and len(keeper.shown.tasks) == 50  # who asks need not wait
    await asyncio.sleep(2 * TELL_PERIOD)
    assert [len(record.tasks) for record in told] == [50]
    keeper.show_tasks([replace(views[0], state=TaskState.DEAD)])
    await keeper.change("something else")
    assert told[-1].tasks["t0"].state == "dead"
    count = len(told)
    keeper.show_tasks([views[0]])
    keeper.close()
    await asyncio.sleep(2 * TELL_PERIOD)
    assert len(told) == count
