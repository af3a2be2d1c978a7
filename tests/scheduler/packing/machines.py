"""Machines and graphs to pack."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from hypothesis import strategies as st

from scheduler.placement import Assignment
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology, Volume


def make_agent(
    host: str = "a",
    *,
    cores: Sequence[int] = (4, 4),
    node_mem: int | None = None,
    gpu_nodes: Sequence[int | None] = (0, 1),
    networks: Sequence[Sequence[str]] = (("cbf",), ("sdp",)),
    disk: int | None = None,
    n_ports: int = 10,
    subsystems: Sequence[str] = (),
    **scalars: int,
) -> AgentSnapshot:
    """Make an agent; what is free of devices: a whole GPU, 1000 Mbit/s; scalars in thousandths."""
    first = itertools.count()
    topology = Topology(
        numa=tuple(NumaNode(Ranges.of_values(itertools.islice(first, n)), node_mem) for n in cores),
        gpus=tuple(Gpu(name="gpu", numa=node, mem_mib=100) for node in gpu_nodes),
        nics=tuple(
            Nic(name=f"e{n}", networks=tuple(of), address="10.0.0.1", numa=n % len(cores))
            for n, of in enumerate(networks)
        ),
        volumes=(Volume(name="data", path="/data", disk_mib=disk),),
        subsystems=tuple(subsystems),
    )
    mine = {"cpus": 16_000, "mem": 1_000_000, "disk": 1_000_000}
    mine |= {f"nic.{n}.{way}": 1_000_000 for n in range(len(networks)) for way in ("in", "out")}
    mine |= {name.replace("_", "."): amount for name, amount in scalars.items()}
    free = Resources(mine, {"ports": Ranges(((5000, 4999 + n_ports),)) if n_ports else Ranges()})
    return AgentSnapshot(
        agent_id=f"{host}-id",
        host=host,
        topology=topology,
        free=Resources({**topology.resources().scalars, **free.scalars}, free.ranges)
        + Resources({}, {"cores": topology.cores}),
        address="127.0.0.1",
    )


agents = st.builds(
    make_agent,
    host=st.just("?"),
    cores=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    node_mem=st.sampled_from([None, 3, 6]),
    gpu_nodes=st.lists(st.sampled_from([0, 0, None]), min_size=1, max_size=2),
    networks=st.lists(
        st.sampled_from([("cbf", "sdp"), ("cbf",), ("sdp",)]), min_size=1, max_size=2
    ),
    disk=st.sampled_from([None, 2]),
    n_ports=st.integers(1, 4),
    subsystems=st.sampled_from([(), (), (), ("sdp",)]),
    cpus=st.integers(3, 9).map(lambda n: 1000 * n),
    mem=st.integers(3, 12).map(lambda n: 1000 * n),
)


@st.composite
def clusters(draw: st.DrawFn, max_agents: int = 3) -> tuple[AgentSnapshot, ...]:
    """A few small agents with names of their own."""
    found = draw(st.lists(agents, min_size=1, max_size=max_agents))
    return tuple(
        AgentSnapshot(
            agent_id=f"{n}-id",
            host=str(n),
            topology=agent.topology,
            free=agent.free,
            address=agent.address,
        )
        for n, agent in enumerate(found)
    )


requests = st.builds(
    TaskRequest.of,
    cpus=st.sampled_from([0, 0.5, 2]),
    mem_mib=st.integers(0, 4),
    cores=st.integers(0, 2),
    ports=st.sampled_from([(), ("a",), ("a", "b")]),
    gpus=st.lists(
        st.builds(
            GpuRequest.of,
            st.sampled_from([0.0, 0.3, 0.6]),
            st.sampled_from([0, 40, 70]),
            affinity=st.booleans(),
        ),
        max_size=2,
    ),
    nics=st.lists(
        st.builds(
            NicRequest.of,
            st.sampled_from(["cbf", "sdp"]),
            in_mbps=st.sampled_from([0, 400, 700]),
            out_mbps=st.sampled_from([0, 600]),
            affinity=st.booleans(),
        ),
        max_size=2,
    ),
    volumes=st.sampled_from([(), (VolumeRequest.of("data", disk_mib=1),)]),
    host=st.sampled_from([*[None] * 7, "0"]),
    subsystem=st.sampled_from(["sdp", "sdp", None]),
)


def graphs(max_tasks: int) -> st.SearchStrategy[dict[str, TaskRequest]]:
    """A few small tasks by name."""
    return st.lists(requests, min_size=1, max_size=max_tasks).map(
        lambda found: {f"t{n}": request for n, request in enumerate(found)}
    )


def choices(agent: AgentSnapshot, request: TaskRequest) -> Iterator[Assignment]:
    """Yield every way to put a task on an agent, as far as rules go; amounts are not looked at."""
    topology, free = agent.topology, agent.free
    serves = not topology.subsystems or request.subsystem in topology.subsystems
    volumes = [n for n, v in enumerate(topology.volumes) if v.name == "data"]
    ports = list(free.ranges.get("ports", Ranges()))
    if not serves or request.host not in (None, agent.host) or len(ports) < len(request.ports):
        return
    wants = [range(len(topology.gpus)) for _ in request.gpus]
    wants += [
        [n for n, nic in enumerate(topology.nics) if want.network in nic.networks]  # type: ignore[misc]
        for want in request.nics
    ]
    for node in range(len(topology.numa)):
        cores = list(topology.numa[node].cores)
        if len(cores) < len(request.cores):
            continue
        for picked in itertools.product(*wants):
            gpus, nics = picked[: len(request.gpus)], picked[len(request.gpus) :]
            near = [
                topology.gpus[d].numa for w, d in zip(request.gpus, gpus, strict=True) if w.affinity
            ]
            near += [
                topology.nics[d].numa for w, d in zip(request.nics, nics, strict=True) if w.affinity
            ]
            if any(place != node for place in near):
                continue
            pinned = bool(request.cores)
            yield Assignment(
                task="",
                agent_id=agent.agent_id,
                host=agent.host,
                numa=node if pinned else None,
                cores=tuple(cores[: len(request.cores)]),
                ports=tuple(ports[: len(request.ports)]),
                gpus=gpus,
                nics=nics,
                volumes=tuple(volumes[:1] * len(request.volumes)),
                numa_mem=pinned and topology.numa[node].mem_mib is not None,
                volume_disk=tuple(
                    topology.volumes[0].disk_mib is not None for _ in request.volumes
                ),
            )


def feasible(agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest]) -> bool:
    """Whether the tasks can be placed at all: by trying everything, with amounts as plain sums."""
    slots: dict[tuple[str, str], int] = {}
    for agent in agents:
        for name, amount in agent.free.scalars.items():
            slots[agent.agent_id, name] = amount
        for name, members in agent.free.ranges.items():
            slots[agent.agent_id, name] = len(members)
        for n, node in enumerate(agent.topology.numa):
            slots[agent.agent_id, f"cores {n}"] = len(node.cores)

    def draws(request: TaskRequest, choice: Assignment) -> dict[tuple[str, str], int]:
        taken = choice.resources(request)
        found = {(choice.agent_id, name): amount for name, amount in taken.scalars.items()}
        found[choice.agent_id, "ports"] = len(choice.ports)
        found[choice.agent_id, f"cores {choice.numa}"] = len(choice.cores)
        return found

    remaining = list(tasks.values())

    def fit(index: int) -> bool:
        if index == len(remaining):
            return True
        request = remaining[index]
        for agent in agents:
            for choice in choices(agent, request):
                taken = {key: n for key, n in draws(request, choice).items() if n}
                if any(slots.get(key, 0) < n for key, n in taken.items()):
                    continue
                for key, n in taken.items():
                    slots[key] -= n
                if fit(index + 1):
                    return True
                for key, n in taken.items():
                    slots[key] += n
        return False

    return fit(0)
