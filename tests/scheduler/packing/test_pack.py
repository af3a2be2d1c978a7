"""Placements keep every rule, all of the graph is placed or nothing, and the answer is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.packing import Instance, read_instances
from scheduler.packing import Shortage, missing, pack, placing, violations
from scheduler.packing.arrays import AGENT, NOWHERE, PLENTY
from scheduler.packing.flat import flatten
from scheduler.placement import Placement
from scheduler.quantities import Ranges
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing.machines import clusters, feasible, graphs, make_agent
from tests.scheduler.packing.reached import reached

INSTANCES = Path(__file__).parents[3] / "../shared/data/packing/instances.jsonl.gz"

Cluster = tuple[AgentSnapshot, ...]
Tasks = dict[str, TaskRequest]

put = reached(placing.put)
remove = reached(placing.remove)


@settings(max_examples=120, deadline=None)
@given(clusters(), graphs(5))
def test_a_placement_keeps_every_rule_and_is_whole_or_not_given(
    agents: Cluster, tasks: Tasks
) -> None:
    answer = pack(agents, tasks, iterations=300)
    placement = answer.partial if isinstance(answer, Shortage) else answer
    assert violations(agents, tasks, placement) == []
    left_out = missing(tasks, placement)
    if isinstance(answer, Shortage):
        assert left_out == list(answer.unplaced)
        assert left_out
    else:
        assert not left_out


@settings(max_examples=120, deadline=None)
@given(clusters(max_agents=2), graphs(3))
def test_what_can_be_placed_is_placed_and_what_is_proven_cannot(
    agents: Cluster, tasks: Tasks
) -> None:
    answer = pack(agents, tasks, iterations=2000)
    if feasible(agents, tasks):
        assert isinstance(answer, Placement)
    else:
        assert isinstance(answer, Shortage)
        assert str(answer)
    if isinstance(answer, Shortage) and answer.proven:
        assert not feasible(agents, tasks)


@settings(max_examples=60, deadline=None)
@given(clusters(), graphs(4), st.integers(0, 2**32))
def test_the_same_input_has_the_same_answer(agents: Cluster, tasks: Tasks, seed: int) -> None:
    assert pack(agents, tasks, seed=seed, iterations=200) == pack(
        agents, tasks, seed=seed, iterations=200
    )


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(6)), st.permutations(range(3)))
def test_an_easy_graph_fits_in_any_order(task_order: list[int], agent_order: list[int]) -> None:
    agents = [make_agent(str(n)) for n in agent_order]
    near = GpuRequest.of(0.5, 50, affinity=True)
    tasks = {f"t{n}": TaskRequest.of(cores=1 + n % 2, gpus=[near]) for n in task_order}
    assert isinstance(pack(agents, tasks), Placement)


@settings(max_examples=60, deadline=None)
@given(
    clusters(), graphs(5), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=30)
)
def test_taking_a_task_away_gives_back_exactly_what_it_drew(
    agents: Cluster, tasks: Tasks, moves: list[tuple[int, int]]
) -> None:
    problem = flatten(agents, tasks)
    plan = problem.empty_plan()
    for move, where in moves:
        task, place = move % len(tasks), where % len(problem.cluster.places)
        if plan.where[task] != NOWHERE:
            remove(problem.cluster, plan, task)
        elif _concerns(problem.demand.task[task], place):
            put(problem.cluster, problem.demand, plan, task, place)
        assert (plan.free >= 0).all()
        drawn = np.zeros_like(plan.free)
        for t in range(len(tasks)):
            used = slice(0, plan.draws[t])
            np.add.at(drawn, plan.slot[t, used], plan.amount[t, used])
        assert (plan.free + drawn == problem.free).all()
        _check_lists(problem.cluster.places[:, AGENT], plan.where, plan.first, plan.links)


def _concerns(row: np.ndarray, place: int) -> bool:
    return bool(row[2] <= place < row[3])


def _check_lists(
    agent_of: np.ndarray, where: np.ndarray, first: np.ndarray, links: np.ndarray
) -> None:
    """Each agent's list holds its tasks, each once, linked both ways."""
    for agent, head in enumerate(first):
        found, task, before = [], head, NOWHERE
        while task != NOWHERE:
            assert links[task, 1] == before
            found.append(task)
            before, task = task, links[task, 0]
        placed = [t for t, place in enumerate(where) if place != NOWHERE]
        assert sorted(found) == [t for t in placed if agent_of[where[t]] == agent]


def test_no_graph_and_no_cluster() -> None:
    assert pack([make_agent()], {}) == Placement({})
    assert pack([], {}) == Placement({})
    answer = pack([], {"a": TaskRequest.of(cores=1, gpus=[GpuRequest.of(0.1, 1)])})
    assert isinstance(answer, Shortage)
    assert answer.unplaced == ("a",)
    assert "a: there is no agent" in str(answer)


def test_cores_come_from_one_node_and_memory_with_them() -> None:
    agent = make_agent(cores=(3, 3), node_mem=10)
    request = TaskRequest.of(cores=["rx", "tx"], mem_mib=6)
    answer = pack([agent], {"a": request, "b": request})
    assert isinstance(answer, Placement)
    assert {a.numa for a in answer.assignments.values()} == {0, 1}
    assert all(a.numa_mem for a in answer.assignments.values())
    assert isinstance(pack([agent], {"a": request, "b": request, "c": request}), Shortage)
    assert isinstance(pack([agent], {"a": TaskRequest.of(cores=4)}), Shortage), (
        "six, but not on one"
    )


def test_a_device_with_affinity_hangs_on_the_node_of_the_cores() -> None:
    agent = make_agent(cores=(1, 3), gpu_nodes=(0, 1))
    near = TaskRequest.of(cores=2, gpus=[GpuRequest.of(0.6, 0, affinity=True)])
    answer = pack([agent], {"a": near})
    assert isinstance(answer, Placement)
    assert (answer.assignments["a"].numa, answer.assignments["a"].gpus) == (1, (1,))
    unknown = make_agent(cores=(4,), gpu_nodes=(None,), networks=())
    assert isinstance(pack([unknown], {"a": near}), Shortage), "its node is not known"


def test_shares_belong_to_one_device() -> None:
    agent = make_agent(gpu_nodes=(0, 0))
    half = TaskRequest.of(gpus=[GpuRequest.of(0.6, 10)])
    assert isinstance(pack([agent], {"a": half, "b": half}), Placement)
    answer = pack(
        [agent], {"a": half, "b": half, "c": TaskRequest.of(gpus=[GpuRequest.of(0.5, 1)])}
    )
    assert isinstance(answer, Shortage), "0.8 are free, but 0.4 on each"
    assert not answer.too_big


def test_several_requests_of_a_task_may_share_an_interface_or_not_fit_on_it() -> None:
    agent = make_agent(networks=(("cbf", "sdp"),))
    small = [NicRequest.of("cbf", in_mbps=400), NicRequest.of("sdp", in_mbps=600)]
    answer = pack([agent], {"a": TaskRequest.of(nics=small)})
    assert isinstance(answer, Placement)
    assert answer.assignments["a"].nics == (0, 0)
    large = [NicRequest.of("cbf", in_mbps=600), NicRequest.of("sdp", in_mbps=600)]
    answer = pack([agent], {"a": TaskRequest.of(nics=large)})
    assert isinstance(answer, Shortage)
    (lack,) = answer.nearest["a"][0].lacks
    assert lack.resource == "bandwidth in on all interfaces of cbf/sdp"


def test_a_choice_of_devices_that_leads_nowhere_is_taken_back() -> None:
    """The tightest GPU for the first request is the only one for the second."""
    agent = make_agent(cores=(4,), gpu_nodes=(0, 0), gpu_0_compute=500, gpu_1_compute=600)
    wants = [GpuRequest.of(0.5, 0), GpuRequest.of(0.1, 0), GpuRequest.of(0.5, 0)]
    answer = pack([agent], {"a": TaskRequest.of(gpus=wants)})
    assert isinstance(answer, Placement)
    assert violations([agent], {"a": TaskRequest.of(gpus=wants)}, answer) == []


def test_the_newcomer_gets_the_devices_for_which_others_were_ejected() -> None:
    """Found by the property above: the search turned in circles when it chose devices anew."""
    agent = make_agent(cores=(1,), gpu_nodes=(0, None))
    wants = [GpuRequest.of(0, 40), GpuRequest.of(0, 40, affinity=True)]
    tasks = {"a": TaskRequest.of(gpus=wants), "b": TaskRequest.of(gpus=wants)}
    assert isinstance(pack([agent], tasks), Placement)


def test_agents_of_higher_priority_are_kept_free() -> None:
    plain = make_agent("plain", gpu_nodes=(), networks=())
    scarce = make_agent("scarce")
    for agents in ([plain, scarce], [scarce, plain]):
        answer = pack(agents, {"a": TaskRequest.of(cpus=1)})
        assert isinstance(answer, Placement)
        assert answer.assignments["a"].host == "plain"


def test_host_and_subsystem_are_kept_to() -> None:
    agents = [make_agent("a"), make_agent("b", subsystems=["sdp"])]
    tasks = {
        "on-b": TaskRequest.of(host="b", subsystem="sdp"),
        "anywhere": TaskRequest.of(),
        "of-sdp": TaskRequest.of(subsystem="sdp"),
    }
    answer = pack(agents, tasks)
    assert isinstance(answer, Placement)
    assert answer.assignments["on-b"].host == "b"
    assert answer.assignments["anywhere"].host == "a", "b serves sdp only"
    assert isinstance(pack(agents, {"x": TaskRequest.of(host="c")}), Shortage)
    assert isinstance(pack(agents, {"x": TaskRequest.of(host="b")}), Shortage)


def test_ports_are_distinct_and_real() -> None:
    agent = make_agent(n_ports=0)
    odd = AgentSnapshot(
        agent_id="x",
        host="x",
        topology=agent.topology,
        free=agent.free + type(agent.free)({}, {"ports": Ranges(((0, 3), (65535, 70000)))}),
        address="127.0.0.1",
    )
    tasks = {name: TaskRequest.of(ports=["a", "b"]) for name in "ab"}
    answer = pack([odd], tasks)
    assert isinstance(answer, Placement)
    assert sorted(p for a in answer.assignments.values() for p in a.ports) == [1, 2, 3, 65535]


def test_a_volume_is_drawn_from_only_where_its_space_is_counted() -> None:
    request = TaskRequest.of(volumes=[VolumeRequest.of("data", disk_mib=3)])
    assert isinstance(pack([make_agent()], {"a": request}), Placement)
    assert isinstance(pack([make_agent(disk=3)], {"a": request}), Placement)
    assert isinstance(pack([make_agent(disk=2)], {"a": request}), Shortage)


def test_amounts_beyond_all_machines_neither_fit_nor_overflow() -> None:
    huge = TaskRequest(mem=PLENTY * 1000, cores=("0",))
    answer = pack([make_agent(mem=PLENTY * 2000)], {"a": huge, "b": huge})
    assert isinstance(answer, Shortage)


# ---- instances


def _instances() -> dict[str, Instance]:
    if not INSTANCES.exists():
        return {}
    return {instance.name: instance for instance in read_instances(INSTANCES)}


@pytest.fixture(scope="module")
def instances() -> dict[str, Instance]:
    found = _instances()
    if not found:
        pytest.skip("the packing instances are not there")
    return found


def test_instances_up_to_95_percent_are_all_placed(instances: dict[str, Instance]) -> None:
    tried = 0
    for instance in instances.values():
        load = int(instance.name.split("-")[2]) if instance.feasible else 100
        if load > 95:
            continue
        answer = pack(instance.agents, instance.tasks)
        assert isinstance(answer, Placement), f"{instance.name}: {answer}"
        assert violations(instance.agents, instance.tasks, answer) == []
        assert not missing(instance.tasks, answer)
        tried += 1
    assert tried >= 40


def test_what_exceeds_the_totals_is_proven_at_once(instances: dict[str, Instance]) -> None:
    for instance in instances.values():
        if not instance.feasible:
            answer = pack(instance.agents, instance.tasks)
            assert isinstance(answer, Shortage)
            assert answer.proven
            assert "cores" in [total.resource for total in answer.totals if total.short]
            assert violations(instance.agents, instance.tasks, answer.partial) == []
