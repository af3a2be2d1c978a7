from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.constraints import Apart, AtMost, Constraint, DataAt, Rule, Together
from scheduler.errors import GraphError
from scheduler.graph import (
    Edge,
    EdgeKind,
    LogicalGraph,
    PhysicalGraph,
    ReadyCheck,
    ReadyKind,
    TaskTemplate,
    instantiate,
)
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from scheduler.validation import MAX_EDGES, MAX_TASKS, problems

names = st.from_regex(r"[a-z][a-z0-9_.-]{0,10}", fullmatch=True)


amounts = st.integers(0, 10**6)
facts = st.sampled_from(["host", "rack", "island", "os"])


def some(items: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, unique=True, max_size=most).map(tuple)


gpus = st.builds(
    GpuRequest,
    st.just(1000),
    amounts,
    affinity=st.booleans(),
    name=st.none() | st.sampled_from(["*A100*", "NVIDIA-L40?"]),
    min_capability=st.none() | st.tuples(st.integers(0, 12), st.integers(0, 9)),
    exclusive=st.booleans(),
)
nics = st.builds(
    NicRequest,
    names,
    amounts,
    amounts,
    affinity=st.booleans(),
    ibverbs=st.booleans(),
    sends=some(names, 2),
    receives=some(names, 2),
)


@st.composite
def requests(draw: st.DrawFn, groups: Sequence[str]) -> TaskRequest:
    group = st.sampled_from(groups)
    cores = draw(some(names, 2))
    return TaskRequest(
        cpus=1 + draw(amounts),
        mem=draw(amounts),
        cores=cores,
        whole_cores=bool(cores) and draw(st.booleans()),
        one_l3=bool(cores) and draw(st.booleans()),
        numa_share=draw(st.integers(0, 1000)),
        ports=draw(some(names, 3)),
        gpus=draw(some(gpus, 2)),
        nics=draw(some(nics, 1)),
        volumes=draw(some(st.builds(VolumeRequest, names, amounts), 1)),
        constraints=draw(some(st.builds(Constraint, facts, st.sampled_from(Rule), names), 2)),
        data=draw(some(st.builds(DataAt, facts, st.just(("v", "w")), st.booleans()), 2)),
        groups=draw(some(names, 2)),
        together=draw(some(st.builds(Together, group, facts), 1)),
        apart=draw(some(st.builds(Apart, group, facts), 1)),
        at_most=draw(some(st.builds(AtMost, group, st.integers(1, 9), facts), 1)),
    )


@st.composite
def graphs(draw: st.DrawFn) -> LogicalGraph:
    """Any graph that can be run."""
    order = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    tasks: list[TaskTemplate] = []
    for name in order:
        request = draw(requests(order))
        ports = [f"{{ports[{port}]}}" for port in request.ports]
        ready = ReadyCheck(ReadyKind.PORTS, request.ports) if request.ports else ReadyCheck()
        tasks.append(
            TaskTemplate(
                name=name,
                kind=draw(names),
                command=("run", "{task.id}", "{{literal}}", *ports),
                env={"WHERE": "{host}", "BLOCK": "{capture_block}"},
                request=request,
                ready=ready,
                critical=draw(st.booleans()),
                image="engine" if request.gpus else None,
                gpu_images={"*A100*": "engine:sm80"} if request.gpus else {},
                max_run_time=draw(st.none() | st.floats(1, 1000)),
            )
        )
    kinds = st.sampled_from(EdgeKind)
    pairs = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), kinds), max_size=8))
    edges = tuple(
        Edge(order[a], order[b], kind)
        for a, b, kind in pairs
        if b < a < len(order) or (kind is EdgeKind.PORT and max(a, b) < len(order))
    )
    return LogicalGraph(draw(names), tuple(tasks), edges)


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_a_graph_survives_its_way_through_json(logical: LogicalGraph) -> None:
    assert LogicalGraph.from_json(json.loads(json.dumps(logical.to_json()))) == logical
    physical = instantiate(logical, "array_1-0", {"capture_block": "123"})
    stored = json.loads(json.dumps(physical.to_json()))
    assert PhysicalGraph.from_json(stored) == physical


@settings(max_examples=50, deadline=None)
@given(graphs(), st.text(max_size=3), st.text(max_size=3))
def test_every_task_id_is_one_that_mesos_takes(logical: LogicalGraph, a: str, b: str) -> None:
    ids = set()
    for attempt in range(3):
        graph = instantiate(logical, "g", {"capture_block": ""})
        for _ in range(attempt):
            graph = graph.again()
        ids |= {task.task_id for task in graph.tasks.values()}
    assert len(ids) == 3 * len(logical.tasks)
    assert all(0 < len(i) <= 255 and "/" not in i and i not in (".", "..") for i in ids)
    for graph_id in (a, b, "x/y", "", "x.y", "a" * 101):
        if not graph_id.isalnum() or not graph_id.isascii():
            with pytest.raises(GraphError):
                instantiate(logical, graph_id, {"capture_block": ""})


def test_two_graphs_never_make_the_same_task_id() -> None:
    one = LogicalGraph("a", (simple("a.0"),))
    other = LogicalGraph("b", (simple("0"),))
    ids = [instantiate(one, "x").tasks["a.0"].task_id]
    with pytest.raises(GraphError):
        ids.append(instantiate(other, "x.a").tasks["0"].task_id)


def test_a_graph_recorded_before_a_field_was_known_is_still_read() -> None:
    """As ``to_json`` wrote it in the first version."""
    gpu = {"compute": 500, "mem": 1000, "affinity": True}
    nic = {"network": "cbf", "bandwidth_in": 1, "bandwidth_out": 2, "affinity": False}
    request = {"cpus": 5, "mem": 7, "disk": 0, "cores": ["rx"], "ports": ["p"], "gpus": [gpu]}
    request |= {"nics": [nic], "volumes": [{"name": "data", "disk": 3}]}
    task = {"name": "t", "kind": "k", "command": ["run"], "request": request, "env": {}}
    graph = LogicalGraph.from_json({"name": "g", "tasks": [task], "edges": []})
    assert graph.task("t").request == TaskRequest(
        cpus=5,
        mem=7,
        cores=("rx",),
        ports=("p",),
        gpus=(GpuRequest(500, 1000, affinity=True),),
        nics=(NicRequest("cbf", 1, 2),),
        volumes=(VolumeRequest("data", 3),),
    )


def test_a_document_with_a_wrong_request_is_refused_with_its_path() -> None:
    request = {"gpus": [{"compute": -1, "mem": 0}]}
    task = {"name": "t", "kind": "k", "command": ["run"], "request": request}
    with pytest.raises(GraphError, match=r"tasks\.0\.request\.gpus\.0\n.*compute is 0\.001 below"):
        LogicalGraph.from_json({"name": "g", "tasks": [task]})


def simple(name: str = "a", **changes: object) -> TaskTemplate:
    fields: dict[str, object] = {
        "name": name,
        "kind": "test",
        "command": ("true",),
        "request": TaskRequest.of(cpus=0.1),
        **changes,
    }
    return TaskTemplate(**fields)  # type: ignore[arg-type]  # the tests give what the types forbid


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(EdgeKind))))
def test_exactly_the_cycles_that_would_hang_are_refused(
    pairs: list[tuple[int, int, EdgeKind]],
) -> None:
    tasks = tuple(simple(f"t{n}") for n in range(5))
    graph = LogicalGraph("g", tasks, tuple(Edge(f"t{a}", f"t{b}", k) for a, b, k in pairs))
    orders = (
        (EdgeKind.READY, EdgeKind.FINISHED, EdgeKind.ENDED),
        (EdgeKind.KILL,),
        (EdgeKind.RESOLVED,),
    )
    ordered = [nx.DiGraph([(a, b) for a, b, k in pairs if k in kinds]) for kinds in orders]
    if all(map(nx.is_directed_acyclic_graph, ordered)):
        graph.validate()
    else:
        with pytest.raises(GraphError, match=r"has the cycle .* → "):
            graph.validate()


def test_a_cycle_is_shown() -> None:
    edges = [Edge("a", "b", EdgeKind.READY), Edge("b", "c", EdgeKind.FINISHED)]
    edges.append(Edge("c", "a", EdgeKind.READY))
    graph = LogicalGraph("g", (simple("a"), simple("b"), simple("c")), tuple(edges))
    with pytest.raises(GraphError, match="a → b → c → a"):
        graph.validate()


def test_what_edges_make_known_may_be_named_and_nothing_else() -> None:
    asked = TaskRequest.of(ports=("p",), gpus=(GpuRequest.of(0.5, 1),))
    b = simple("b", request=asked, env={"GROUP": "x"})
    fields = {
        EdgeKind.PORT: "{endpoint[b:p]}",
        EdgeKind.RESOURCES: "{of[b:gpu[0].uuid]}",
        EdgeKind.RESOLVED: "{env[b:GROUP]}",
    }
    for kind, field in fields.items():
        for other in fields:
            graph = LogicalGraph("g", (simple("a", command=(field,)), b), (Edge("a", "b", other),))
            if other is kind:
                graph.validate()
            else:
                with pytest.raises(GraphError, match=rf"that this one has a {kind.name} edge to"):
                    graph.validate()


@pytest.mark.parametrize(
    ("ready", "problem"),
    [
        (ReadyCheck(ReadyKind.HTTP), "no port is named"),
        (ReadyCheck(ReadyKind.HTTP, ("p",), path="http://elsewhere"), "no path"),
        (ReadyCheck(ReadyKind.HTTP, ("p",), path="/a b"), "no path"),
        (ReadyCheck(ReadyKind.SENSOR, ("p",), values=("ok",)), "no name of a KATCP sensor"),
        (ReadyCheck(ReadyKind.SENSOR, ("p",), sensor="/.*/", values=("ok",)), "no name of a"),
        (ReadyCheck(ReadyKind.SENSOR, ("p",), sensor="state"), "no value is named"),
        (ReadyCheck(hold=float("nan")), "must hold"),
        (ReadyCheck(hold=60.0), "less than its launch_timeout"),
    ],
)
def test_a_readiness_that_cannot_be_shown_is_refused(ready: ReadyCheck, problem: str) -> None:
    task = simple("a", request=TaskRequest.of(ports=("p",)), ready=ready)
    with pytest.raises(GraphError, match=problem):
        LogicalGraph("g", (task,)).validate()


def test_all_problems_are_named_at_once() -> None:
    tasks = (
        simple("a", command=("{nonsense}",)),
        simple("a", request=TaskRequest(ports=("p q",), together=(Together("nobody else"),))),
        simple("b/c", launch_timeout=float("nan")),
        simple("d", ready=ReadyCheck(ReadyKind.PORTS, ("q",)), env={"1X": "{"}),
        simple("e", command=()),
        simple("f", request=TaskRequest.of(cpus=0.0001, gpus=[GpuRequest.of(0, 0)])),
    )
    with pytest.raises(GraphError) as caught:
        LogicalGraph("g", tasks, (Edge("a", "nobody", EdgeKind.READY),)).validate(("host",))
    for text in (
        "{nonsense}, which does not exist",
        "there are 2 tasks 'a'",
        "'p q' is no name of a port",
        "on one host with group nobody else, but no task",
        "'nobody', which is no task",
        "task 'b/c': the name must",
        "launch_timeout is nan",
        "the port 'q', which it does not ask for",
        "'1X' is no name of a variable",
        "lonely '{'",
        "the command must have",
        "task 'f': it asks for nothing",
        "'host' cannot be the name of a template value",
    ):
        assert text in str(caught.value)


def test_an_endpoint_needs_a_port_edge() -> None:
    tasks = (
        simple("a", command=("x", "{endpoint[b.0:katcp]}")),
        simple("b.0", request=TaskRequest(ports=("katcp",))),
    )
    LogicalGraph("g", tasks, (Edge("a", "b.0", EdgeKind.PORT),)).validate()
    with pytest.raises(GraphError, match="PORT edge"):
        LogicalGraph("g", tasks, (Edge("a", "b.0", EdgeKind.READY),)).validate()


def test_an_edge_costs_the_same_however_many_tasks_there_are() -> None:
    """The names of all tasks were gone through for every edge: 0.2 s for 2 000 tasks."""

    def seconds(count: int) -> float:
        tasks = tuple(
            TaskTemplate(name=f"t{n}", kind="k", command=("run",), request=TaskRequest.of(cpus=0.1))
            for n in range(count)
        )
        edges = tuple(Edge("t0", f"t{1 + n % 9}", EdgeKind.READY) for n in range(10_000))
        graph = LogicalGraph("g", tasks, edges)
        begun = time.process_time()
        assert not problems(graph)
        return time.process_time() - begun

    few = min(seconds(10) for _ in range(3))
    assert min(seconds(1000) for _ in range(3)) < 5 * few


def test_absurd_sizes_are_refused_at_once() -> None:
    many = tuple(simple(f"t{n}") for n in range(MAX_TASKS + 1))
    edge = Edge("a", "b", EdgeKind.READY)
    for graph in (
        LogicalGraph("g", many),
        LogicalGraph("g", ()),
        LogicalGraph("g", (simple("a"), simple("b")), (edge,) * (MAX_EDGES + 1)),
        LogicalGraph("g", (simple("a", command=("x" * 200_000,)),)),
        LogicalGraph("g", (simple("a", command=("\0",)),)),
    ):
        with pytest.raises(GraphError):
            graph.validate()


@pytest.mark.parametrize(
    "document", [None, [], {}, {"graph_id": "x", "logical": {}, "task_ids": {}, "values": {}}]
)
def test_what_is_no_graph_is_refused(document: object) -> None:
    with pytest.raises(GraphError):
        PhysicalGraph.from_json(document)
    with pytest.raises(GraphError):
        LogicalGraph.from_json(document)
