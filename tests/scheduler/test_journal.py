from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import JournalError
from scheduler.journal import (
    GraphPhase,
    JournalState,
    MemoryJournal,
    TaskRecord,
    placement_from_json,
)
from scheduler.placement import Assignment, Placement
from scheduler.recovery import restore
from scheduler.requests import GpuRequest, TaskRequest
from scheduler.task import Death, Outcome, TaskState
from tests.scheduler.programs import physical, shell

records = st.builds(
    TaskRecord,
    graph_id=st.text(max_size=5),
    name=st.text(max_size=5),
    task_id=st.text(max_size=5),
    state=st.sampled_from(TaskState),
    token=st.text(max_size=5),
    shared=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    late_values=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    death=st.none()
    | st.builds(
        Death,
        outcome=st.sampled_from(Outcome),
        cause=st.text(max_size=5),
        exit_status=st.none() | st.integers(0, 255),
    ),
)


@given(records)
def test_a_task_record_survives_its_way_through_json(record: TaskRecord) -> None:
    assert TaskRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_place_survives_its_way_through_json() -> None:
    full = Assignment(
        task="a",
        agent_id="S0",
        host="host",
        numa=1,
        cores=(2, 3),
        ports=(31000,),
        gpus=(0,),
        nics=(1,),
        volumes=(0,),
        numa_mem=True,
        volume_disk=(True,),
        role="sdp",
        held_cores=(10, 11),
        whole_gpu_mem=(5000,),
    )
    for assignment in (full, Assignment("a", "S0", "host"), replace(full, numa=0, cores=(0,))):
        record = TaskRecord(
            graph_id="g",
            name="a",
            task_id="g.a.0",
            state=TaskState.PLACED,
            assignment=assignment,
        )
        read = TaskRecord.from_json(json.loads(json.dumps(record.to_json())))
        assert read == record and read.assignment == assignment


def test_a_placement_recorded_before_a_field_was_known_is_still_read() -> None:
    """As it was written in the first version."""
    old = {"task": "a", "agent_id": "S0", "host": "h", "numa": 1, "cores": [2], "ports": []}
    old |= {"gpus": [0], "nics": [], "volumes": [], "numa_mem": True, "volume_disk": []}
    read = placement_from_json({"assignments": {"a": old}}).assignments["a"]
    assert read == Assignment("a", "S0", "h", numa=1, cores=(2,), gpus=(0,), numa_mem=True)
    assert read.resources(TaskRequest.of(cores=1, gpus=[GpuRequest.of(0.5, 1)])).scalars == {
        "cpus": 1000,
        "gpu.0.compute": 500,
        "gpu.0.mem": 1000,
    }


@pytest.mark.parametrize("document", [None, [], {}, {"state": "nonsense"}, {"assignments": 3}])
def test_what_is_no_record_is_refused(document: object) -> None:
    with pytest.raises(JournalError):
        TaskRecord.from_json(document)
    if not isinstance(document, dict) or "assignments" in document:
        with pytest.raises(JournalError):
            placement_from_json(document)


async def test_a_forgotten_graph_leaves_nothing() -> None:
    journal = MemoryJournal()
    graph = physical("g", shell("a", "true"))
    await journal.record_graph(graph)
    await journal.record_task(
        TaskRecord(graph_id="g", name="a", task_id="g.a.0", state=TaskState.PLACED)
    )
    await journal.record_phase("g", GraphPhase.UP)
    await journal.record_framework_id("fw")
    await journal.record_drained({"host": "its fan is loud"})
    await journal.forget_graph("g")
    assert await journal.load() == JournalState("fw", drained={"host": "its fan is loud"})


async def test_where_a_task_is_and_was_is_known_from_its_records_old_and_new() -> None:
    """One of each: recorded by this program; by one before; told by an attempt before; by the old placement."""
    graph = physical("g", *(shell(name, "true") for name in "abcd")).again(("c", "d"))

    def task(name: str, attempt: int, assignment: Assignment | None) -> TaskRecord:
        return TaskRecord(
            graph_id="g",
            name=name,
            task_id=f"g.{name}.{attempt}",
            state=TaskState.READY,
            agent_id="S0",
            assignment=assignment,
        )

    new = {name: Assignment(name, "S0", "host", ports=(n,)) for n, name in enumerate("abcd")}
    old = Placement({name: Assignment(name, "S0", "host", ports=(9,)) for name in "abcd"})
    records = [task("a", 0, new["a"]), task("b", 0, None), task("c", 0, new["c"])]
    tasks = {record.task_id: record for record in records}
    (run,) = await restore(JournalState("fw", {"g": graph}, {"g": old}, tasks))
    known = old.assignments
    assert run.placed == {"a": new["a"], "b": known["b"], "c": new["c"], "d": known["d"]}
    held = {name: entry.assignment for name, entry in run.entries.items()}
    assert held == {"a": new["a"], "b": known["b"], "c": None, "d": None}


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        (("ready", "ready"), True),
        (("ready", "dead"), True),
        (("ready", "starting"), False),
        (("waiting", "placed"), False),
        ((None, None), False),
        (("stopping", "ready"), False),
    ],
)
async def test_the_phase_of_a_graph_without_a_record_of_it_is_guessed_from_its_tasks(
    states: tuple[str | None, str | None], whole: bool
) -> None:
    request = TaskRequest.of(ports=("p",))
    graph = physical("g", shell("a", "true", request=request), shell("b", "true"))
    tasks = {
        f"g.{name}.0": TaskRecord(
            graph_id="g",
            name=name,
            task_id=f"g.{name}.0",
            state=TaskState(state),
            agent_id="S0",
            address="10.0.0.1",
        )
        for name, state in zip("ab", states, strict=True)
        if state is not None
    }
    placement = Placement({n: Assignment(n, "S0", "host", ports=(5,) * (n == "a")) for n in "ab"})
    (run,) = await restore(JournalState("fw", {"g": graph}, {"g": placement}, tasks))
    assert run.phase is (GraphPhase.UP if whole else GraphPhase.LAUNCHING)
    for phase in GraphPhase:
        state = JournalState("fw", {"g": graph}, {"g": placement}, tasks, {"g": phase})
        assert (await restore(state))[0].phase is phase
    if states[0] is not None:
        assert run.entries["a"].view().ports == {"p": ("10.0.0.1", 5)}
    assert all((e.life.death is not None) == e.dead for e in run.entries.values())
