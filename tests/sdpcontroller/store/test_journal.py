from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.errors import JournalError
from scheduler.graph import Edge, EdgeKind, LogicalGraph, PhysicalGraph, TaskTemplate, instantiate
from scheduler.journal import Journal, MemoryJournal, TaskRecord
from scheduler.placement import Assignment
from scheduler.recovery import restore
from scheduler.requests import NicRequest, TaskRequest
from scheduler.task import Death, Outcome, TaskState
from sdpcontroller.errors import StoreError
from sdpcontroller.store import Store
from sdpcontroller.store.journal import JOURNAL_FORMS, StoreJournal
from sdpcontroller.store.schema import check, migrate

Connect = Callable[..., Awaitable[Store]]

graph_ids = st.sampled_from(["g1", "g2", "g3"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def graphs(draw: st.DrawFn) -> PhysicalGraph:
    request = TaskRequest.of(
        cpus=draw(st.integers(0, 8)) / 8,
        cores=draw(st.integers(0, 2)),
        ports=("katcp",),
        nics=[NicRequest.of("cbf", in_mbps=draw(st.integers(0, 9)), affinity=draw(st.booleans()))],
    )
    text = draw(texts.filter(lambda text: not set(text) & set("{}\0")))
    tasks = tuple(
        TaskTemplate(name=f"t{i}", kind="k", command=("run", text), request=request)
        for i in range(draw(st.integers(1, 3)))
    )
    edges = tuple(Edge("t0", t.name, EdgeKind.READY) for t in tasks[1:])
    graph = instantiate(LogicalGraph("graph", tasks, edges), draw(graph_ids), {"block": "17"})
    return draw(st.sampled_from([graph, graph.again(["t0"])]))


assignments = st.builds(
    Assignment,
    task=st.just("t"),
    agent_id=texts,
    host=texts,
    numa=st.none() | st.integers(0, 3),
    cores=st.lists(st.integers(0, 99), max_size=3).map(tuple),
    ports=st.lists(st.integers(1, 65535), max_size=2).map(tuple),
    numa_mem=st.booleans(),
)
records = st.builds(
    lambda task, **fields: TaskRecord(graph_id=task[:2], task_id=task, **fields),
    task=st.sampled_from(["g1.t0.0", "g1.t0.1", "g2.t0.0"]),
    name=st.just("t0"),
    state=st.sampled_from(TaskState),
    agent_id=texts,
    host=texts,
    token=texts,
    death=st.none() | st.builds(Death, st.sampled_from(Outcome), texts, exit_status=st.none()),
    assignment=st.none() | assignments,
)
acts = st.one_of(
    st.tuples(st.just("record_framework_id"), st.none() | texts),
    st.tuples(st.just("record_graph"), graphs()),
    st.tuples(st.just("record_task"), records),
    st.tuples(st.just("forget_graph"), graph_ids),
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(acts, max_size=12))
async def test_it_keeps_what_a_journal_in_memory_keeps(connect: Connect, acts: list[Any]) -> None:
    prefix = (await connect())._prefix
    memory: Journal = MemoryJournal()
    stored: Journal = StoreJournal(await connect(prefix))
    for name, *arguments in acts:
        await getattr(memory, name)(*arguments)
        await getattr(stored, name)(*arguments)
    successor = StoreJournal(await connect(prefix))
    assert await successor.load() == await memory.load()


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("framework", {}),
        ("framework", {"framework_id": 5}),
        ("framework", []),
        ("graph", {"graph_id": "g"}),
        ("graph", []),
        ("placement", {"assignments": {"t": {"cores": "many"}}}),
        ("task", {"graph_id": "g", "state": "asleep"}),
        ("task", 3),
    ],
)
async def test_what_it_cannot_read_is_refused_whole(store: Store, table: str, value: Any) -> None:
    await store.put(table, "id", value, event="damaged")
    journal = StoreJournal(store)
    with pytest.raises(JournalError):
        await journal.load()


async def test_a_graph_is_forgotten_with_all_its_tasks_and_nothing_else(store: Store) -> None:
    journal = StoreJournal(store)
    for graph_id in ("g1", "g2"):
        task = TaskTemplate(name="t", kind="k", command=("run",), request=TaskRequest.of(cpus=1))
        await journal.record_graph(instantiate(LogicalGraph("l", (task,)), graph_id))
        await store.put("placement", graph_id, {"assignments": {}}, event="by an earlier program")
        for attempt in range(2):
            await journal.record_task(
                TaskRecord(
                    graph_id=graph_id,
                    name="t",
                    task_id=f"{graph_id}.t.{attempt}",
                    state=TaskState.READY,
                )
            )
    await journal.forget_graph("g1")
    state = await journal.load()
    assert list(state.graphs) == list(state.placements) == ["g2"]
    assert sorted(state.tasks) == ["g2.t.0", "g2.t.1"]


async def test_the_places_of_a_graph_that_an_earlier_program_recorded_are_still_known(
    connect: Connect,
) -> None:
    """As schema 2 had them: one record for the places of a graph, none in those of its tasks."""
    store = await connect()
    old = {"task": "t", "agent_id": "S0", "host": "h", "numa": 1, "cores": [2], "ports": [31000]}
    old |= {"gpus": [], "nics": [], "volumes": [], "numa_mem": True, "volume_disk": [], "role": ""}
    old |= {"held_cores": [], "whole_gpu_mem": []}
    record = {"graph_id": "g", "name": "t", "task_id": "g.t.0", "state": "ready", "agent_id": "S0"}
    record |= {"host": "h", "address": "10.0.0.1", "agent_url": "", "token": "", "death": None}
    record |= {"shared": {}, "late_values": None, "preempted": False}
    template = TaskTemplate(name="t", kind="k", command=("run",), request=TaskRequest.of(cpus=1))
    await StoreJournal(store).record_graph(instantiate(LogicalGraph("l", (template,)), "g"))
    await store.put("placement", "g", {"assignments": {"t": old}}, event="placed on h")
    await store.put("task", "g.t.0", record, event="ready")
    await store.client.set(store.key("schema"), 2)
    await check(store, JOURNAL_FORMS)
    await migrate(store, JOURNAL_FORMS)
    (run,) = await restore(await StoreJournal(store).load())
    known = Assignment("t", "S0", "h", numa=1, cores=(2,), ports=(31000,), numa_mem=True)
    assert run.entries["t"].assignment == run.placed["t"] == known


async def test_a_store_that_is_gone_is_a_journal_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise StoreError("cannot write: Redis is gone")

    for name in ("put", "get", "load", "delete"):
        monkeypatch.setattr(store, name, gone)
    journal = StoreJournal(store)
    for act in (journal.load(), journal.record_framework_id("f"), journal.forget_graph("g")):
        with pytest.raises(JournalError, match="Redis is gone"):
            await act
