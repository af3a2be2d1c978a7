"""The scheduler's journal in the configuration database."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from scheduler.breath import together
from scheduler.errors import JournalError
from scheduler.graph import PhysicalGraph
from scheduler.journal import (
    GraphPhase,
    JournalState,
    TaskRecord,
    placement_from_json,
)
from scheduler.placement import Placement
from scheduler.task import TaskState
from sdpcontroller.errors import StoreError
from sdpcontroller.store.records import Form, Row, Table
from sdpcontroller.store.redis_store import Store

T = TypeVar("T")

_FRAMEWORK_ID: Final = TypeAdapter[str | None](str | None)
_TEXTS: Final = TypeAdapter(dict[str, str])


def _never(placement: Placement) -> dict[str, Any]:
    raise AssertionError(f"the place of each task is in its own record: {placement}")


FRAMEWORK: Final[Form[str | None]] = Form(
    "framework",
    write=lambda framework_id: {"framework_id": framework_id},
    read=lambda document: _FRAMEWORK_ID.validate_python(document["framework_id"], strict=True),
)
GRAPHS: Final = Form("graph", write=PhysicalGraph.to_json, read=PhysicalGraph.from_json, large=True)
PHASES: Final[Form[GraphPhase]] = Form(
    "graph_phase",
    write=lambda phase: {"phase": phase.value},
    read=lambda document: GraphPhase(document["phase"]),
)
TASKS: Final = Form(
    "task",
    write=TaskRecord.to_json,
    read=TaskRecord.from_json,
    schema=2,
    migrations={1: dict},  # had no place: that was told by the graph's placement
)
PLACEMENTS: Final = Form("placement", write=_never, read=placement_from_json)
"""Whole graphs' places, as they were written in schema 2; they go with their graphs."""
DRAINED: Final[Form[Mapping[str, str]]] = Form(
    "drained",
    write=lambda hosts: {"hosts": dict(hosts)},
    read=lambda document: _TEXTS.validate_python(document["hosts"]),
)

JOURNAL_FORMS: Final[tuple[Form[Any], ...]] = (
    FRAMEWORK,
    GRAPHS,
    PHASES,
    PLACEMENTS,
    TASKS,
    DRAINED,
)
"""All that the journal keeps."""


class StoreJournal:
    """Keeps what :class:`scheduler.journal.Journal` describes in a :class:`Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._framework = Table(store, FRAMEWORK)
        self._graphs = Table(store, GRAPHS)
        self._phases = Table(store, PHASES)
        self._placements = Table(store, PLACEMENTS)
        self._tasks = Table(store, TASKS)
        self._drained = Table(store, DRAINED)

    async def record_framework_id(self, framework_id: str | None) -> None:
        """Keep the id under which Mesos knows us; None after it was given up."""
        event = f"framework id {framework_id}" if framework_id else "framework id given up"
        await _journalled(self._framework.put("id", framework_id, event=event))

    async def record_graph(self, graph: PhysicalGraph) -> None:
        """Keep a graph."""
        event = f"{len(graph.tasks)} tasks of {graph.logical.name}"
        await _journalled(self._graphs.put(graph.graph_id, graph, event=event))

    async def record_phase(self, graph_id: str, phase: GraphPhase) -> None:
        """Keep what is being done with a graph."""
        await _journalled(self._phases.put(graph_id, phase, event=phase.value))

    async def record_drained(self, drained: Mapping[str, str]) -> None:
        """Keep which hosts get no new tasks, and why."""
        event = f"drained: {', '.join(sorted(drained)) or 'none'}"
        await _journalled(self._drained.put("hosts", drained, event=event))

    async def record_task(self, record: TaskRecord) -> None:
        """Keep the newest state of a task."""
        event = record.state.value if record.death is None else str(record.death)
        if record.state is TaskState.PLACED:
            event = f"placed on {record.host}"
        await _journalled(self._tasks.put(record.task_id, record, event=event))

    async def forget_graph(self, graph_id: str) -> None:
        """Drop a graph with all that was kept of it; the graph itself last."""
        # A graph's id has no dot: no other graph has a task with such an id.
        task_ids = [
            key
            for key in await _journalled(self._store.keys(TASKS.table))
            if key.startswith(f"{graph_id}.")
        ]
        await _journalled(together(self._tasks.delete(key, event="forgotten") for key in task_ids))
        await _journalled(self._placements.delete(graph_id, event="forgotten"))
        await _journalled(self._phases.delete(graph_id, event="forgotten"))
        await _journalled(self._graphs.delete(graph_id, event="forgotten"))

    async def load(self) -> JournalState:
        """Return everything that was kept."""
        framework = await _journalled(self._framework.get("id"))
        drained = await _journalled(self._drained.get("hosts"))
        return JournalState(
            None if framework is None else framework.value,
            _values(await _journalled(self._graphs.load())),
            _values(await _journalled(self._placements.load())),
            _values(await _journalled(self._tasks.load())),
            _values(await _journalled(self._phases.load())),
            {} if drained is None else drained.value,
        )


def _values(rows: Mapping[str, Row[T]]) -> dict[str, T]:
    return {key: row.value for key, row in rows.items()}


async def _journalled(act: Awaitable[T]) -> T:
    """Turn the store's exception into the one that the scheduler knows."""
    try:
        return await act
    except StoreError as exc:
        raise JournalError(str(exc)) from exc
