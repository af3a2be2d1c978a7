"""The scheduler's journal in the configuration database."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

from scheduler.errors import GraphError, JournalError
from scheduler.graph import PhysicalGraph
from scheduler.journal import (
    GraphPhase,
    JournalState,
    TaskRecord,
    placement_from_json,
    placement_to_json,
)
from scheduler.placement import Placement
from sdpcontroller.errors import StoreError
from sdpcontroller.store.redis_store import Store

T = TypeVar("T")

_FRAMEWORK: Final = "framework"
_GRAPHS: Final = "graph"
_PLACEMENTS: Final = "placement"
_TASKS: Final = "task"
_PHASES: Final = "graph_phase"
_DRAINED: Final = "drained"


class StoreJournal:
    """Keeps what :class:`scheduler.journal.Journal` describes in a :class:`Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def record_framework_id(self, framework_id: str | None) -> None:
        """Keep the id under which Mesos knows us; None after it was given up."""
        record = {"framework_id": framework_id}
        event = f"framework id {framework_id}" if framework_id else "framework id given up"
        await self._put(_FRAMEWORK, "id", record, event)

    async def record_graph(self, graph: PhysicalGraph) -> None:
        """Keep a graph."""
        event = f"{len(graph.tasks)} tasks of {graph.logical.name}"
        await self._put(_GRAPHS, graph.graph_id, graph.to_json(), event)

    async def record_phase(self, graph_id: str, phase: GraphPhase) -> None:
        """Keep what is being done with a graph."""
        await self._put(_PHASES, graph_id, {"phase": phase.value}, phase.value)

    async def record_drained(self, drained: Mapping[str, str]) -> None:
        """Keep which hosts get no new tasks, and why."""
        event = f"drained: {', '.join(sorted(drained)) or 'none'}"
        await self._put(_DRAINED, "hosts", {"hosts": dict(drained)}, event)

    async def record_placement(self, graph_id: str, placement: Placement) -> None:
        """Keep where a graph goes."""
        hosts = sorted({a.host for a in placement.assignments.values()})
        await self._put(
            _PLACEMENTS, graph_id, placement_to_json(placement), f"placed on {', '.join(hosts)}"
        )

    async def record_task(self, record: TaskRecord) -> None:
        """Keep the newest state of a task."""
        event = record.state.value if record.death is None else str(record.death)
        await self._put(_TASKS, record.task_id, record.to_json(), event)

    async def forget_graph(self, graph_id: str) -> None:
        """Drop a graph with all that was kept of it; the graph itself last."""
        tasks = await _journalled(self._store.load(_TASKS))
        for task_id, stored in tasks.items():
            if TaskRecord.from_json(stored.value).graph_id == graph_id:
                await _journalled(self._store.delete(_TASKS, task_id, event="forgotten"))
        for table in (_PLACEMENTS, _PHASES, _GRAPHS):
            await _journalled(self._store.delete(table, graph_id, event="forgotten"))

    async def load(self) -> JournalState:
        """Return everything that was kept."""
        framework = await _journalled(self._store.get(_FRAMEWORK, "id"))
        graphs = await _journalled(self._store.load(_GRAPHS))
        placements = await _journalled(self._store.load(_PLACEMENTS))
        tasks = await _journalled(self._store.load(_TASKS))
        phases = await _journalled(self._store.load(_PHASES))
        drained = await _journalled(self._store.get(_DRAINED, "hosts"))
        try:
            return JournalState(
                None if framework is None else _framework_id(framework.value),
                {key: PhysicalGraph.from_json(stored.value) for key, stored in graphs.items()},
                {key: placement_from_json(stored.value) for key, stored in placements.items()},
                {key: TaskRecord.from_json(stored.value) for key, stored in tasks.items()},
                {key: GraphPhase(stored.value["phase"]) for key, stored in phases.items()},
                {} if drained is None else _texts(drained.value["hosts"]),
            )
        except (GraphError, KeyError, TypeError, ValueError) as exc:
            raise JournalError(f"the journal holds what this version cannot read: {exc}") from exc

    async def _put(self, table: str, key: str, record: dict[str, Any], event: str) -> None:
        await _journalled(self._store.put(table, key, record, event=event))


def _texts(record: Any) -> dict[str, str]:
    if not isinstance(record, dict) or not all(isinstance(v, str) for v in record.values()):
        raise JournalError(f"the journal has {record!r} as drained hosts")
    return record


def _framework_id(record: Any) -> str | None:
    found = record["framework_id"]
    if not isinstance(found, str | None):
        raise JournalError(f"the journal has {found!r} as framework id")
    return found


async def _journalled(act: Awaitable[T]) -> T:
    """Turn the store's exception into the one that the scheduler knows."""
    try:
        return await act
    except StoreError as exc:
        raise JournalError(str(exc)) from exc
