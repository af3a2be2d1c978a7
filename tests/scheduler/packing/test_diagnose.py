"""What an explanation says is true: each change that it names was tried, and helps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.packing import (
    Circumstances,
    Explanation,
    Idle,
    Occupant,
    Shortage,
    Verdict,
    diagnose,
    pack,
    place,
    remedies,
)
from scheduler.packing.circumstances import with_freed
from scheduler.packing.diagnose import ALONE
from scheduler.packing.dimensions import dimensions, without
from scheduler.packing.explanation import (
    AskLess,
    AskPart,
    BringBack,
    Change,
    Drop,
    FreeTasks,
    MoreAgents,
    Together,
)
from scheduler.packing.remedies import asking_part
from scheduler.placement import Placement
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing import rich
from tests.scheduler.packing.machines import clusters, graphs, make_agent

Tasks = Mapping[str, TaskRequest]


def explained(
    agents: Sequence[AgentSnapshot], tasks: Tasks, circumstances: Circumstances = ALONE
) -> Explanation:
    shortage = pack(agents, tasks, iterations=500, capacity=circumstances.capacity)
    assert isinstance(shortage, Shortage)
    found = diagnose(agents, tasks, shortage, circumstances)
    assert Explanation.from_json(json.loads(json.dumps(found.to_json()))) == found
    return found


def holding(name: str, agent: AgentSnapshot, mem_mib: int, **facts: object) -> Occupant:
    held = Resources({"mem": 1000 * mem_mib})
    return Occupant(name=name, holds={agent.agent_id: held}, **facts)  # type: ignore[arg-type]


def test_never_is_told_of_one_task_and_of_the_graph_as_a_whole() -> None:
    whole = [make_agent("a"), make_agent("b")]
    wide = explained(whole, {"wide": TaskRequest.of(cores=5)}, Circumstances(capacity=whole))
    assert wide.verdict is Verdict.NEVER
    assert "never can" in str(wide)
    assert "wide asks for 5" in wide.hopeless
    tasks = {f"t{n}": TaskRequest.of(mem_mib=600) for n in range(3)}
    many = explained(whole, tasks, Circumstances(capacity=whole))
    assert many.verdict is Verdict.NEVER
    assert many.fits_empty is False
    assert "even with the cluster empty" in many.hopeless


def test_not_now_is_apart_from_never_and_from_not_found() -> None:
    whole = [make_agent("a"), make_agent("b")]
    now = [make_agent("a", mem=500_000), make_agent("b", mem=500_000)]
    tasks = {f"t{n}": TaskRequest.of(mem_mib=600) for n in range(2)}
    found = explained(now, tasks, Circumstances(capacity=whole))
    assert (found.verdict, found.fits_empty) == (Verdict.NOT_NOW, True)
    assert found.left_out == 2
    assert "they can once enough has ended" in str(found)
    assert not found.hopeless


def test_tasks_that_run_are_freed_from_the_lowest_priority_and_no_more_than_needed() -> None:
    whole = make_agent("a", mem=1_000_000)
    now = replace(whole, free=whole.free - Resources({"mem": 900_000}))
    running = [
        holding("observation", whole, 600, priority=10),
        holding("image.1", whole, 100, priority=-1, preemptible=True),
        holding("image.2", whole, 200, priority=-2, preemptible=True),
    ]
    around = Circumstances(capacity=[whole], occupants=running)
    one = explained([now], {"t": TaskRequest.of(mem_mib=250)}, around)
    assert one.displaces == ("image.2",)
    both = explained([now], {"t": TaskRequest.of(mem_mib=350)}, around)
    assert set(both.displaces) == {"image.1", "image.2"}
    assert "run again later" in str(both)
    large = explained([now], {"t": TaskRequest.of(mem_mib=650)}, around)
    assert large.displaces == ("observation",), "the others are let live: they would not be enough"
    assert "run again later" not in str(large)


def test_an_agent_that_is_full_has_no_offer_and_is_seen_all_the_same() -> None:
    whole = make_agent("a")
    (freed,) = with_freed([], [whole], [holding("x", whole, 10)])
    assert (freed.agent_id, freed.free.scalars["mem"]) == (whole.agent_id, 10_000)


def test_what_is_seen_twice_counts_once() -> None:
    whole = make_agent("a")
    held = Resources({"mem": 400_000}, {"cores": Ranges(((0, 1),))})
    ended = Occupant(name="x", holds={whole.agent_id: held})
    (freed,) = with_freed([whole], [whole], [ended])
    assert freed.free == whole.free


def test_so_many_more_agents_of_a_kind() -> None:
    whole = [make_agent("small", gpu_nodes=()), make_agent("gpu", gpu_nodes=(0, 1))]
    tasks = {f"t{n}": TaskRequest.of(gpus=[GpuRequest.of(0.6, 10)]) for n in range(7)}
    found = explained(whole, tasks, Circumstances(capacity=whole))
    assert MoreAgents("gpu", 3) in found.remedies
    assert "3 more agents like gpu" in str(found)
    assert not any(isinstance(r, MoreAgents) and r.like == "small" for r in found.remedies)


def test_a_smaller_request_is_the_largest_that_fits() -> None:
    agent = make_agent("a", gpu_nodes=(0,), gpu_0_mem=12_000)
    tasks = {f"t{n}": TaskRequest.of(gpus=[GpuRequest.of(0.1, 8)]) for n in range(2)}
    found = explained([agent], tasks)
    less = next(r for r in found.remedies if isinstance(r, AskLess))
    assert (less.resource, less.asked, less.enough) == ("gpu.mem", 8000, 6000)
    assert "gpu.mem 6 MiB instead of 8 MiB for t0, t1" in str(found)


def test_what_is_free_is_told_where_it_is_enough_and_nothing_is_never_told() -> None:
    whole = [make_agent("a", cpus=4000)]
    six = explained(whole, {"t": TaskRequest.of(cpus=6)}, Circumstances(capacity=whole))
    assert [str(remedy) for remedy in six.remedies] == ["cpus 4 instead of 6 for t"]
    cores = explained(whole, {"t": TaskRequest.of(cpus=2, cores=3)}, Circumstances(capacity=whole))
    assert {str(remedy) for remedy in cores.remedies} == {
        "cpus 1 instead of 2 for t",
        "cores 2 instead of 3 for t",
    }
    full = [replace(whole[0], free=Resources())]
    none = explained(full, {"t": TaskRequest.of(cpus=1)}, Circumstances(capacity=whole))
    assert [type(remedy) for remedy in none.remedies] == [MoreAgents]


def test_a_part_of_one_core_is_none() -> None:
    """Told were 94 % of the cores, and tried was to ask for no core at all."""
    whole = [make_agent("a", cores=(8,), gpu_nodes=(), cpus=8000)]
    tasks = {"a": TaskRequest.of(cores=1), "b": TaskRequest.of(cores=1, numa_share=1)}
    found = explained(whole, tasks, Circumstances(capacity=whole))
    assert [str(remedy) for remedy in found.remedies] == ["one more agent like a"]
    assert "full" not in str(found) and "What binds" not in str(found), "a quarter is not full"


def test_a_constraint_that_could_be_given_up() -> None:
    agent = make_agent("a", cores=(2, 2), gpu_nodes=(1,))
    tasks = {
        "near": TaskRequest.of(cores=2, gpus=[GpuRequest.of(0.1, 8, affinity=True)]),
        "also": TaskRequest.of(mem_mib=1, cores=2, gpus=[GpuRequest.of(0.2, 8, affinity=True)]),
    }
    found = explained([agent], tasks)
    assert any(isinstance(remedy, Drop) for remedy in found.remedies)
    assert "without affinity of its GPUs" in str(found)


def test_an_agent_that_is_drained_is_named_as_help() -> None:
    drained = make_agent("b")
    around = Circumstances(idle=[Idle(host="b", reason="drained", agent=drained)])
    found = explained([make_agent("a", mem=10_000)], {"t": TaskRequest.of(mem_mib=20)}, around)
    assert found.withheld[0].host == "b"
    assert any(isinstance(remedy, BringBack) for remedy in found.remedies)
    assert "back in service: b (drained)" in str(found)


def test_what_only_a_drained_agent_has_is_not_said_to_wait_for_an_end() -> None:
    here, drained = make_agent("a", subsystems=["cbf"]), make_agent("b", subsystems=["sdp"])
    idle = [Idle(host="b", reason="drained", agent=drained)]
    around = Circumstances(capacity=[here, drained], idle=idle)
    text = str(explained([here], {"t": TaskRequest.of(subsystem="sdp")}, around))
    assert "they can once agents are back in service" in text
    assert (
        "t: no agent that takes tasks will do: asks for subsystem sdp, there it is for cbf only"
        in text
    )


def test_what_needs_an_end_and_an_agent_that_is_away_is_said_to_wait_for_both() -> None:
    """The agent is away, and what it has is held there by what nobody can end."""
    here, away = make_agent("a", gpu_nodes=()), make_agent("b", gpu_nodes=(0,))
    full = replace(away, free=away.free - Resources({"gpu.0.compute": 1000}))
    idle = [Idle(host="b", reason="disconnected", agent=full)]
    around = Circumstances(capacity=[here, away], idle=idle)
    tasks = {"t": TaskRequest.of(gpus=[GpuRequest.of(0.5, 1)])}
    text = str(explained([here], tasks, around))
    assert "they can once enough has ended and agents are back in service" in text
    assert "Not counted: b (disconnected)" in text


def test_the_text_is_bounded() -> None:
    agents = [make_agent(f"a{n}", mem=1_000_000 + n) for n in range(30)]
    tasks = {f"t{n}": TaskRequest.of(cores=3, mem_mib=n) for n in range(200)}
    text = str(explained(agents, tasks))
    assert len(text.splitlines()) < 60
    assert max(map(len, text.splitlines())) < 1000


def test_the_larger_the_problem_the_fewer_changes_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = {f"t{n}": TaskRequest.of(mem_mib=600) for n in range(3)}
    agents = [make_agent("a"), make_agent("b")]
    assert explained(agents, tasks).tried
    monkeypatch.setattr(remedies, "ROOMY", 0)
    found = explained(agents, tasks)
    assert (found.tried, found.remedies) == (0, ())


def changed(
    agents: Sequence[AgentSnapshot], tasks: Tasks, change: Change
) -> tuple[list[AgentSnapshot], dict[str, TaskRequest]]:
    """Do what a change says."""
    match change:
        case MoreAgents(like, count):
            model = next(agent for agent in agents if agent.host == like)
            more = [replace(model, agent_id=f"{like}+{n}", host=f"+{n}") for n in range(count)]
            return [*agents, *more], dict(tasks)
        case AskLess(names, resource, _, enough):
            less = {
                name: next(d for d in dimensions(tasks[name]) if d.resource == resource).ask(enough)
                for name in names
            }
            return list(agents), {**tasks, **less}
        case AskPart(names, resource, part):
            parts = {name: asking_part(tasks[name], resource, part) for name in names}
            return list(agents), {**tasks, **parts}
        case Drop(names, constraint):
            given_up = {name: dict(without(tasks[name]))[constraint] for name in names}
            return list(agents), {**tasks, **given_up}
    raise AssertionError(f"nothing is idle and nothing runs: {change}")


def test_changes_that_help_only_together_are_found_and_none_is_needless() -> None:
    whole = [make_agent("small", gpu_nodes=()), make_agent("gpu", gpu_nodes=(0,))]
    tasks = {f"t{n}": TaskRequest.of(gpus=[GpuRequest.of(0.6, 10)]) for n in range(3)}
    tasks["wide"] = TaskRequest.of(mem_mib=1500)
    found = explained(whole, tasks, Circumstances(capacity=whole))
    (both,) = found.remedies
    assert isinstance(both, Together)
    assert both.changes[0] == MoreAgents("gpu", 2)
    assert isinstance(both.changes[1], AskLess)
    assert both.changes[1].tasks == ("wide",)
    assert "2 more agents like gpu, and mem" in str(found)
    assert "No single change was found that would help. With any one" in str(found)


def test_nothing_is_told_where_not_even_everything_together_helps() -> None:
    whole = [make_agent("a")]
    impossible = {"t": TaskRequest.of(mem_mib=100_000), "u": TaskRequest.of(cores=100)}
    found = explained(whole, impossible, Circumstances(capacity=whole))
    assert not found.remedies
    assert "nor several together" in str(found)


@settings(max_examples=40, deadline=None)
@given(clusters(), graphs(5), graphs(5))
def test_changes_that_help_together_do(
    agents: tuple[AgentSnapshot, ...], one: dict[str, TaskRequest], other: dict[str, TaskRequest]
) -> None:
    tasks = {**one, **{f"{name}'": request for name, request in other.items()}}
    tasks["wide"] = TaskRequest.of(mem_mib=1500)
    answer = pack(agents, tasks, iterations=200, capacity=agents)
    if not isinstance(answer, Shortage):
        return
    for remedy in diagnose(agents, tasks, answer, Circumstances(capacity=agents)).remedies:
        if isinstance(remedy, Together):
            assert len(remedy.changes) >= 2
            then: tuple[list[AgentSnapshot], dict[str, TaskRequest]] = (list(agents), dict(tasks))
            for change in remedy.changes:
                then = changed(*then, change)
            assert isinstance(pack(*then, start=answer.partial), Placement)


@settings(max_examples=40, deadline=None)
@given(rich.clusters(), rich.graphs(6), rich.graphs(4), st.booleans())
def test_what_is_told_is_true_whatever_stands_around(
    agents: tuple[AgentSnapshot, ...],
    tasks: dict[str, TaskRequest],
    others: dict[str, TaskRequest],
    last_is_drained: bool,
) -> None:
    """Some tasks run, and may be ended; an agent may be drained; requests of every kind."""
    free, occupants = occupied(agents, {f"other.{name}": r for name, r in others.items()})
    idle = []
    if last_is_drained and len(free) > 1:
        drained = free.pop()
        idle = [Idle(host=drained.host, reason="drained", agent=drained)]
    answer = pack(free, tasks, iterations=200, capacity=agents)
    if not isinstance(answer, Shortage):
        return
    around = Circumstances(capacity=agents, occupants=occupants, idle=idle)
    found = diagnose(free, tasks, answer, around)
    if found.verdict is not Verdict.NOT_FOUND:
        assert place(free, tasks, iterations=5000) is None, str(found)
    if found.verdict is Verdict.NEVER:
        assert place(agents, tasks, iterations=5000) is None, str(found)
    for remedy in found.remedies:
        then: tuple[list[AgentSnapshot], dict[str, TaskRequest]] = (list(free), dict(tasks))
        for change in remedy.changes if isinstance(remedy, Together) else (remedy,):
            match change:
                case FreeTasks(names):
                    ended = [o for o in occupants if o.name in names]
                    then = with_freed(then[0], agents, ended), then[1]
                case BringBack():
                    then = [*then[0], *(one.agent for one in idle if one.agent)], then[1]
                case MoreAgents(like, count):
                    model = next(agent for agent in agents if agent.host == like)
                    then = [*then[0], *remedies.copies(model, count)], then[1]
                case _:
                    then = changed(*then, change)
        assert isinstance(pack(*then, start=answer.partial), Placement), str(remedy)


def occupied(
    agents: Sequence[AgentSnapshot], tasks: Tasks
) -> tuple[list[AgentSnapshot], list[Occupant]]:
    """Let tasks run, if they find room; return what is free beside them, and who they are."""
    running = place(agents, tasks, iterations=200)
    free = {agent.agent_id: agent for agent in agents}
    occupants = []
    for name, assignment in ({} if running is None else running.assignments).items():
        agent, held = free[assignment.agent_id], assignment.resources(tasks[name])
        free[assignment.agent_id] = replace(agent, free=agent.free - held)
        occupants.append(Occupant(name=name, preemptible=True, holds={agent.agent_id: held}))
    return list(free.values()), occupants


@settings(max_examples=60, deadline=None)
@given(clusters(), graphs(5))
def test_every_change_that_is_told_helps(
    agents: tuple[AgentSnapshot, ...], tasks: dict[str, TaskRequest]
) -> None:
    answer = pack(agents, tasks, iterations=200, capacity=agents)
    if not isinstance(answer, Shortage):
        return
    found = diagnose(agents, tasks, answer, Circumstances(capacity=agents))
    assert found.left_out <= len(answer.unplaced)
    for remedy in found.remedies:
        changes = remedy.changes if isinstance(remedy, Together) else (remedy,)
        then: tuple[list[AgentSnapshot], dict[str, TaskRequest]] = (list(agents), dict(tasks))
        for change in changes:
            then = changed(*then, change)
            if isinstance(change, AskLess):
                assert 0 < change.enough < change.asked, "to ask for nothing is no help"
        assert isinstance(pack(*then, start=answer.partial), Placement), str(remedy)
    assert Explanation.from_json(found.to_json()) == found
    assert str(found)
