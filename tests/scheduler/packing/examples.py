"""The examples of ``docs/explanations.md``, explained for real: ``python -m tests.scheduler.packing.examples``.

Prints the document with its examples as they are now; with ``--write``, writes it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from scheduler.constraints import Apart, Constraint, Rule
from scheduler.packing import Circumstances, Explanation, Idle, Occupant, pack_or_explain
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "explanations.md"
_BLOCK: Final = re.compile(
    r"(<!-- example: (?P<name>[a-z-]+) -->\n```text\n)(?P<text>.*?)(```\n)", re.S
)


def gpu_node(host: str, rack: str = "r1") -> AgentSnapshot:
    """One GPU and one 100 Gb/s interface on the first of two nodes of 8 cores."""
    topology = Topology(
        numa=(NumaNode(Ranges(((0, 7),))), NumaNode(Ranges(((8, 15),)))),
        gpus=(Gpu(name="A40", numa=0, mem_mib=49152, compute_capability=(8, 6)),),
        nics=(Nic(name="e0", networks=("cbf",), address="10.0.0.1", numa=0, speed_mbps=100_000),),
        rack=rack,
    )
    return agent(host, topology, cpus=16, mem_mib=131072)


def plain(host: str) -> AgentSnapshot:
    """32 cores on one node."""
    return agent(
        host, Topology(numa=(NumaNode(Ranges(((0, 31),))),), rack="r2"), cpus=32, mem_mib=262144
    )


def agent(host: str, topology: Topology, *, cpus: int, mem_mib: int) -> AgentSnapshot:
    own = Resources(
        {"cpus": 1000 * cpus, "mem": 1000 * mem_mib, "disk": 10**9},
        {"ports": Ranges(((31000, 31999),))},
    )
    free = own + topology.resources()
    return AgentSnapshot(
        agent_id=host, host=host, topology=topology, free=free, address="127.0.0.1"
    )


WHOLE: Final = [gpu_node("gpu1"), gpu_node("gpu2"), gpu_node("gpu3", "r2"), plain("cpu1")]


def beam(*, mem: float = 16384, cores: int = 2) -> TaskRequest:
    gpu = GpuRequest.of(0.2, mem, affinity=True)
    nic = NicRequest.of("cbf", in_mbps=20_000, affinity=True)
    return TaskRequest.of(cpus=1, cores=cores, mem_mib=8192, gpus=[gpu], nics=[nic])


def imaging(host: str, *, mem: float = 24576, priority: int = 0) -> Occupant:
    held = Resources(
        {"cpus": 4000, "mem": 32768000, "gpu.0.compute": 500, "gpu.0.mem": int(1000 * mem)}
    )
    name = f"1700000000-imager.{host}.0"
    return Occupant(name=name, priority=priority, preemptible=True, holds={host: held}, ends_by=1e9)


def beside(agents: Sequence[AgentSnapshot], running: Sequence[Occupant]) -> list[AgentSnapshot]:
    """Return what is free beside what runs."""
    held = {i: r for occupant in running for i, r in occupant.holds.items()}
    return [replace(a, free=a.free - held.get(a.agent_id, Resources())) for a in agents]


def explained(
    agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest], around: Circumstances
) -> Explanation:
    found = pack_or_explain(agents, tasks, around)
    assert isinstance(found, Explanation)
    return found


# ---------------------------------------------------------------------- the examples


def too_large() -> Explanation:
    tasks = {f"beam.{n}": beam(cores=12) for n in range(2)}
    return explained(WHOLE, tasks, Circumstances(capacity=WHOLE))


def too_many() -> Explanation:
    tasks = {f"beam.{n}": beam() for n in range(11)}
    return explained(WHOLE, tasks, Circumstances(capacity=WHOLE))


def not_now() -> Explanation:
    running = [imaging("gpu1"), imaging("gpu2"), imaging("gpu3")]
    tasks = {f"beam.{n}": beam() for n in range(5)}
    around = Circumstances(capacity=WHOLE, occupants=running)
    return explained(beside(WHOLE, running), tasks, around)


def drained() -> Explanation:
    tasks = {f"beam.{n}": beam() for n in range(8)}
    idle = [Idle(host="gpu3", reason="drained: new fans", agent=WHOLE[2])]
    return explained([*WHOLE[:2], WHOLE[3]], tasks, Circumstances(capacity=WHOLE, idle=idle))


def conditions() -> Explanation:
    newer = GpuRequest.of(0.5, 8192, min_capability="9.0")
    tasks = {"fft": TaskRequest.of(mem_mib=1024, gpus=[newer]), "log": TaskRequest.of(mem_mib=64)}
    return explained(WHOLE, tasks, Circumstances(capacity=WHOLE))


def attributes() -> Explanation:
    seven = [Constraint("rack", Rule.EQUAL, "r7")]
    tasks = {"archive": TaskRequest.of(mem_mib=1024, constraints=seven)}
    return explained(WHOLE, tasks, Circumstances(capacity=WHOLE))


def relations() -> Explanation:
    apart = [Apart("copies")]
    tasks = {
        f"copy.{n}": TaskRequest.of(cores=2, mem_mib=1024 + n, groups=["copies"], apart=apart)
        for n in range(5)
    }
    return explained(WHOLE, tasks, Circumstances(capacity=WHOLE))


def two_troubles() -> Explanation:
    """More beams than there are GPUs for, and a task that is too large for any agent."""
    tasks = {f"beam.{n}": beam() for n in range(11)}
    tasks["archive"] = TaskRequest.of(cores=40, mem_mib=1024)
    return explained(WHOLE, tasks, Circumstances(capacity=WHOLE))


def two_kinds() -> Explanation:
    """Too few agents of either kind."""
    tasks = {f"beam.{n}": beam() for n in range(10)}
    tasks |= {f"archive.{n}": TaskRequest.of(cores=30, mem_mib=1024) for n in range(2)}
    return explained(WHOLE, tasks, Circumstances(capacity=WHOLE))


EXAMPLES: Final[Mapping[str, Callable[[], Explanation]]] = {
    "too-large": too_large,
    "too-many": too_many,
    "not-now": not_now,
    "drained": drained,
    "conditions": conditions,
    "attributes": attributes,
    "relations": relations,
    "two-troubles": two_troubles,
    "two-kinds": two_kinds,
}


def document(text: str) -> str:
    """Return the document with its examples as they are now."""
    return _BLOCK.sub(lambda m: f"{m[1]}{EXAMPLES[m['name']]()}\n{m[4]}", text)


def named(text: str) -> Iterator[str]:
    """Yield the names of the examples in the document."""
    yield from (match["name"] for match in _BLOCK.finditer(text))


if __name__ == "__main__":
    now = document(DOCUMENT.read_text(encoding="utf-8"))
    if "--write" in sys.argv:
        DOCUMENT.write_text(now, encoding="utf-8")
    else:
        print(now)
