"""What is kept of a product in the configuration database: all that a successor needs to go on with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter

from scheduler.graph import PhysicalGraph
from sdpcontroller.control import CaptureBlockState, ProductRecord, ProductState, TaskRecord
from sdpcontroller.errors import CommandError
from sdpcontroller.products import machine
from sdpcontroller.store.records import Form
from sdpcontroller.workflows.plan import Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What is kept of one capture block."""

    state: CaptureBlockState
    override: str | None = None
    """JSON that is merged over the product's configuration for this block."""
    batch: str = ""
    """Id of the graph of its postprocessing; its record is in :data:`BATCHES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptProduct:
    """What is kept of one product."""

    name: str
    state: ProductState
    config: str
    """The document, overrides included."""
    given: str = ""
    """The document as it was given, where an override was merged over it."""
    multicast: Mapping[str, str] = field(default_factory=dict)
    """First address of each stream that needs some."""
    graph_id: str = ""
    """Id of its graph, chosen before anything is launched."""
    roles: Roles | None = None
    """Of the tasks of that graph."""
    telstate: tuple[str, int] | None = None
    """Endpoint of the telescope state, once all that programs read there was written."""
    blocks: Mapping[str, Block] = field(default_factory=dict)
    """By capture block id, oldest first."""
    current_block: str | None = None
    """The block that is begun, captures or drains."""
    reason: str = ""
    """Why it is in its state, for people."""
    queue: str = ""
    """In which its graph waits for its place; empty before one is chosen, and from an earlier version."""

    @property
    def batches(self) -> frozenset[str]:
        """Ids of the batch graphs of its blocks."""
        return frozenset(block.batch for block in self.blocks.values() if block.batch)

    def shown(self, tasks: Mapping[str, TaskRecord]) -> ProductRecord:
        """Return what everybody may know, with what is known of its tasks."""
        return ProductRecord(
            name=self.name,
            state=self.state,
            config=self.config,
            capture_blocks={cbid: block.state for cbid, block in self.blocks.items()},
            current_block=self.current_block,
            reason=self.reason,
            telstate=self.telstate,
            tasks=tasks,
            queue=self.queue,
        )

    def in_state(self, state: ProductState, **changes: Any) -> KeptProduct:
        """Return it in another state, or raise ``CommandError``: the only place that sets the state."""
        machine.check_product(self.name, self.state, state)
        return dataclasses.replace(self, state=state, **changes)

    def dead(self, reason: str = "") -> KeptProduct:
        """Return it dead: what follows the last record, and is in none."""
        return dataclasses.replace(self, state=ProductState.DEAD, reason=reason or self.reason)

    def with_block(self, cbid: str, block: Block, **changes: Any) -> KeptProduct:
        """Return it with a capture block as given, or raise ``CommandError``; a dead one is dropped."""
        blocks = dict(self.blocks)
        if cbid in blocks:
            machine.check_capture_block(cbid, blocks[cbid].state, block.state)
        blocks[cbid] = block
        if block.state is CaptureBlockState.DEAD:
            del blocks[cbid]
        return dataclasses.replace(self, blocks=blocks, **changes)

    def block(self, cbid: str) -> Block:
        """Return a capture block, or raise ``CommandError``."""
        try:
            return self.blocks[cbid]
        except KeyError:
            raise CommandError(f"product {self.name} has no capture block {cbid}") from None


_KEPT: Final = TypeAdapter(KeptProduct)


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """Read what was kept when a controller that started took its predecessor's products down."""
    blocks = {cbid: {"state": state} for cbid, state in document["capture_blocks"].items()}
    return {
        "name": document["name"],
        "state": document["state"],
        "config": json.dumps(document["config"]),
        "graph_id": document["graph_id"] or "",
        "blocks": blocks,
        "current_block": document["current_block"],
        "reason": document["reason"],
    }


PRODUCTS: Final = Form(
    "product",
    write=lambda kept: _KEPT.dump_python(kept, mode="json"),
    read=_KEPT.validate_python,
    schema=2,
    migrations={1: _from_version_1},
)
"""The table of all products that are not dead, by name."""


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """The postprocessing of one capture block."""

    product: str
    cbid: str
    graph: PhysicalGraph
    queue: str = ""
    """In which its tasks wait; empty from an earlier version."""


def _write_batch(batch: KeptBatch) -> dict[str, Any]:
    return {
        "product": batch.product,
        "cbid": batch.cbid,
        "graph": batch.graph.to_json(),
        "queue": batch.queue,
    }


def _read_batch(document: dict[str, Any]) -> KeptBatch:
    graph = PhysicalGraph.from_json(document["graph"])
    queue = str(document.get("queue", ""))
    return KeptBatch(str(document["product"]), str(document["cbid"]), graph, queue)


BATCHES: Final = Form("batch", write=_write_batch, read=_read_batch, large=True)
"""The table of the batch graphs that are to run, by graph id: written before the block that needs them."""
