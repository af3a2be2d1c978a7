"""What is shown of a product."""

from __future__ import annotations

from dataclasses import replace

from scheduler.task import TaskState
from scheduler.views import TaskView
from sdpcontroller.control import CaptureBlockState, ProductRecord, ProductState
from sdpcontroller.products.keeper import Keeper
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
    assert told[-1].tasks.keys() == {"ingest", "imager"}
    keeper.show_tasks([replace(batch, state=dead)])
    assert told[-1].tasks.keys() == {"ingest"}
    keeper.show_tasks([batch])
    assert told[-1].tasks.keys() == {"ingest", "imager"}
    over = Block(state=CaptureBlockState.DEAD)
    await keeper.change("over", lambda kept: kept.with_block("1", over))
    assert told[-1].tasks.keys() == {"ingest"}
