"""Machines with all that an agent can have, graphs that ask for all of it, and every way to place them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from scheduler.constraints import Apart, AtMost, Constraint, DataAt, Rule, Together
from scheduler.packing import violations
from scheduler.placement import Assignment, Placement
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology


def siblings(cpus: Sequence[int], width: int) -> tuple[Ranges, ...]:
    """Take so many neighbours for one physical core; the last may have less."""
    return tuple(Ranges.of_values(cpus[i : i + width]) for i in range(0, len(cpus), width))


def machine(
    host: str = "a",
    *,
    nodes: Sequence[Sequence[int]] = ((0, 1, 2, 3),),
    smt: int = 2,
    l3: Sequence[Sequence[int]] = (),
    taken: Sequence[int] = (),
    gpus: Sequence[Gpu] = (),
    nics: Sequence[Nic] = (),
    rack: str | None = None,
    gpu_mem: Sequence[int] = (),
    **attributes: str,
) -> AgentSnapshot:
    """Make an agent; `taken` are cores that something else runs on, `gpu_mem` is what is free, MiB."""
    topology = Topology(
        numa=tuple(NumaNode(Ranges.of_values(cpus)) for cpus in nodes),
        smt=tuple(group for cpus in nodes for group in siblings(cpus, smt)) if smt > 1 else (),
        l3=tuple(Ranges.of_values(group) for group in l3),
        gpus=tuple(gpus),
        nics=tuple(nics),
        rack=rack,
    )
    scalars = {"cpus": 16_000, "mem": 64_000, "disk": 64_000}
    for n, gpu in enumerate(gpus):
        mem = gpu_mem[n] if n < len(gpu_mem) else gpu.mem_mib or 0
        scalars |= {f"gpu.{n}.compute": 1000, f"gpu.{n}.mem": 1000 * mem}
    for n in range(len(nics)):
        scalars |= {f"nic.{n}.in": 1_000_000, f"nic.{n}.out": 1_000_000}
    free = topology.cores - Ranges.of_values(taken)
    return AgentSnapshot(
        agent_id=f"{host}-id",
        host=host,
        topology=topology,
        free=Resources(scalars, {"cores": free, "ports": Ranges(((5000, 5009),))}),
        address="127.0.0.1",
        attributes=attributes,
    )


def interface(number: int = 0, *, loopback: bool = False, verbs: bool = True) -> Nic:
    """Make an interface on the network ``cbf``."""
    return Nic(
        name=f"e{number}",
        networks=("cbf",),
        address="10.0.0.1",
        infiniband=("/dev/infiniband/uverbs0",) if verbs else (),
        multicast_loopback=loopback,
    )


A100 = Gpu(name="NVIDIA-A100-SXM4-80GB", compute_capability=(8, 0), mem_mib=100)
L40 = Gpu(name="NVIDIA-L40", compute_capability=(8, 9), mem_mib=100)
OLD = Gpu(name="Tesla-K80", mem_mib=100)

machines = st.builds(
    machine,
    nodes=st.sampled_from([((0, 1, 2, 3),), ((0, 1, 2), (3, 4)), ((0, 1), (2, 3))]),
    smt=st.sampled_from([1, 2, 2]),
    l3=st.just(()),
    taken=st.sampled_from([(), (), (0,), (1, 2)]),
    gpus=st.lists(st.sampled_from([A100, L40, OLD]), max_size=2),
    nics=st.lists(st.booleans(), max_size=2).map(
        lambda loops: [interface(n, loopback=loop) for n, loop in enumerate(loops)]
    ),
    rack=st.sampled_from(["r1", "r2", "r2", None]),
    gpu_mem=st.sampled_from([(), (50,)]),
    os=st.sampled_from(["debian-12", "debian-13"]),
)
"""Machines of which each node is one cache."""

split_caches = st.builds(
    lambda cpus, **others: machine(nodes=cpus[0], l3=cpus[1], **others),
    cpus=st.sampled_from(
        [
            (((0, 1, 2, 3),), ((0, 1), (2, 3))),
            (((0, 1, 2, 3), (4, 5)), ((0, 1), (2, 3), (4, 5))),
            (((0, 1, 2, 3, 4),), ((0, 1, 2, 3),)),
        ]
    ),
    smt=st.sampled_from([1, 2]),
    taken=st.sampled_from([(), (0,), (3,)]),
)
"""Machines with several caches on a node."""


def named(found: Sequence[AgentSnapshot]) -> tuple[AgentSnapshot, ...]:
    return tuple(replace(a, agent_id=f"{n}-id", host=str(n)) for n, a in enumerate(found))


def clusters(
    kind: st.SearchStrategy[AgentSnapshot] = machines, most: int = 3
) -> st.SearchStrategy[tuple[AgentSnapshot, ...]]:
    """A few machines with names of their own."""
    return st.lists(kind, min_size=1, max_size=most).map(named)


groups = st.sampled_from(["t0", "t1", "g", "g"])
facts = st.sampled_from(["host", "host", "rack"])
multicast = st.sampled_from([(), ("239.0.0.1",), ("239.0.0.2",), ("239.0.0.1", "239.0.0.2")])
core_requests = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"cores": st.integers(1, 2), "whole_cores": st.booleans(), "one_l3": st.booleans()}
    ),
    st.fixed_dictionaries(
        {"cores": st.integers(0, 2), "numa_share": st.sampled_from([0.3, 0.5, 1.0])}
    ),
)
gpu_requests = st.one_of(
    st.builds(
        GpuRequest.of,
        st.sampled_from([0.0, 0.5]),
        st.sampled_from([0, 40]),
        name=st.sampled_from([None, "*a100*", "nvidia-*"]),
        min_capability=st.sampled_from([None, "8.0", "8.6"]),
    ),
    st.just(GpuRequest.of(1, 0, exclusive=True)),
)
nic_requests = st.builds(
    NicRequest.of,
    st.just("cbf"),
    in_mbps=st.sampled_from([0, 600]),
    ibverbs=st.booleans(),
    sends=multicast,
    receives=multicast,
)
relations = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([(), ("g",)]),
        "together": st.lists(st.builds(Together, groups, facts), max_size=1),
        "apart": st.lists(st.builds(Apart, groups, facts), max_size=1),
        "at_most": st.lists(st.builds(AtMost, groups, st.integers(1, 2), facts), max_size=1),
    }
)
conditions = st.fixed_dictionaries(
    {
        "constraints": st.lists(
            st.sampled_from(
                [
                    Constraint("rack", Rule.EQUAL, "r2"),
                    Constraint("rack", Rule.NOT, "r1"),
                    Constraint("os", Rule.LIKE, "debian-1[3-9]"),
                ]
            ),
            max_size=1,
        ),
        "data": st.lists(
            st.builds(DataAt, st.just("rack"), st.just(("r1",)), st.booleans()), max_size=1
        ),
    }
)


def sometimes(
    kind: st.SearchStrategy[Mapping[str, object]],
) -> st.SearchStrategy[Mapping[str, object]]:
    return st.one_of(st.just({}), kind)


@st.composite
def requests(draw: st.DrawFn) -> TaskRequest:
    """Ask for two or three kinds of things at once."""
    return TaskRequest.of(
        cpus=draw(st.sampled_from([0, 0.5])),
        gpus=draw(st.lists(gpu_requests, max_size=1)),
        nics=draw(st.lists(nic_requests, max_size=2)),
        **draw(core_requests),
        **draw(sometimes(relations)),
        **draw(sometimes(conditions)),
    )


def graphs(
    most: int, kind: st.SearchStrategy[TaskRequest] | None = None
) -> st.SearchStrategy[dict[str, TaskRequest]]:
    """A few tasks by name."""
    found = st.lists(requests() if kind is None else kind, min_size=1, max_size=most)
    return found.map(lambda all_: {f"t{n}": request for n, request in enumerate(all_)})


# ---- every way


def _core_choices(agent: AgentSnapshot, request: TaskRequest) -> Iterator[dict[str, object]]:
    """Yield every set of cores that could be right; the check says which are."""
    if not request.cores and not request.numa_share:
        yield {}
        return
    free = set(agent.free.ranges.get("cores", Ranges()))
    for number, node in enumerate(agent.topology.numa):
        here = sorted(free & set(node.cores))
        for cores in itertools.combinations(here, len(request.cores)):
            rest = [cpu for cpu in here if cpu not in cores]
            for n_held in range(len(rest) + 1):
                for held in itertools.combinations(rest, n_held):
                    yield {"numa": number, "cores": cores, "held_cores": held}


def _choices(agent: AgentSnapshot, name: str, request: TaskRequest) -> Iterator[Assignment]:
    gpus = itertools.product(range(len(agent.topology.gpus)), repeat=len(request.gpus))
    nics = itertools.product(range(len(agent.topology.nics)), repeat=len(request.nics))
    devices = list(itertools.product(gpus, nics))
    for cores in _core_choices(agent, request):
        for of_gpus, of_nics in devices:
            exclusive = any(gpu.exclusive for gpu in request.gpus)
            whole = tuple(
                agent.free.scalars.get(f"gpu.{n}.mem", 0) if gpu.exclusive else 0
                for gpu, n in zip(request.gpus, of_gpus, strict=True)
            )
            yield Assignment(
                task=name,
                agent_id=agent.agent_id,
                host=agent.host,
                gpus=of_gpus,
                nics=of_nics,
                whole_gpu_mem=whole if exclusive else (),
                **cores,  # type: ignore[arg-type]
            )


def feasible(agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest]) -> bool:
    """Whether the tasks can be placed at all: by trying everything, judged by the check."""
    alone = {
        name: [
            choice
            for agent in agents
            for choice in _choices(agent, name, request)
            if not violations(agents, {name: request}, Placement({name: choice}))
        ]
        for name, request in tasks.items()
    }
    order = sorted(tasks, key=lambda name: len(alone[name]))

    def fit(placed: dict[str, Assignment]) -> bool:
        if len(placed) == len(order):
            return True
        name = order[len(placed)]
        for choice in alone[name]:
            tried = {**placed, name: choice}
            if not violations(agents, tasks, Placement(tried)) and fit(tried):
                return True
        return False

    return fit({})
