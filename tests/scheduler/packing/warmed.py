"""What is compiled, or read from the disk, after :func:`warm_up`: ``python -m tests.scheduler.packing.warmed``.

Prints what is, a line for each signature; nothing, if all is well. In a process of its own, since one that runs
tests has compiled this and that.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from numba.core.registry import CPUDispatcher

import scheduler.packing
from scheduler.packing import Shortage, pack, warm_up
from scheduler.packing.solve import place
from scheduler.placement import Placement, Running
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot
from tests.scheduler.packing import machines, rich

Tasks = dict[str, TaskRequest]
LARGE = 220
"""Agents of a cluster that is looked at with an index."""


def dispatchers() -> Iterator[tuple[str, CPUDispatcher]]:
    """Yield all compiled functions of packing, by name."""
    for module in pkgutil.iter_modules(scheduler.packing.__path__, "scheduler.packing."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, CPUDispatcher):
                yield f"{module.name}.{name}", value


def cut(function: CPUDispatcher) -> bool:
    """Whether only compiled functions can call it."""
    return bool(function.targetoptions.get("no_cpython_wrapper", False))


def signatures() -> set[tuple[str, str]]:
    """Return what is compiled now; of functions for Python that are not, the name alone."""
    found = set()
    for name, function in dispatchers():
        found |= {(name, str(s)) for s in function.signatures or ([] if cut(function) else [""])}
    return found


def pack_in_every_way(agents: Sequence[AgentSnapshot], tasks: Tasks) -> None:
    """Pack tasks alone, from where that ended, for those who do not ask why, and beside themselves."""
    answer = pack(agents, tasks, iterations=60, capacity=agents)
    str(answer)
    before = answer.partial if isinstance(answer, Shortage) else answer
    pack(agents, tasks, iterations=0)
    pack(agents, tasks, iterations=60, start=before, seed=1)
    place(agents, tasks, iterations=60, start=before)
    running = [
        Running(tasks[name], assignment, sibling=n % 2 == 0)
        for n, (name, assignment) in enumerate(before.assignments.items())
    ]
    pack(agents, tasks, iterations=60, running=running)


@seed(1)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(rich.clusters(), rich.clusters(rich.split_caches), machines.clusters()),
    st.one_of(rich.graphs(5), machines.graphs(5)),
)
def whatever_is_asked_for(agents: tuple[AgentSnapshot, ...], tasks: Tasks) -> None:
    """Pack what has all that agents and tasks can have."""
    pack_in_every_way(agents, tasks)


def extremes() -> None:
    """Pack nothing on nothing, and on a large cluster."""
    pack((), {})
    pack((), {"a": TaskRequest()})
    agent = machines.make_agent()
    pack([agent], {})
    many = [replace(agent, agent_id=f"{n}-id", host=str(n)) for n in range(LARGE)]
    tasks = {f"t{n}": TaskRequest.of(cores=1, cpus=1) for n in range(LARGE)}
    assert isinstance(pack(many, tasks), Placement)
    pack(many, dict.fromkeys("abc", TaskRequest.of(cores=1000)))


def main() -> int:
    """Pack, and print what was compiled since the warming up."""
    warm_up()
    before = signatures()
    whatever_is_asked_for()
    extremes()
    after = signatures()
    for name, signature in sorted((after - before) | {one for one in after if not one[1]}):
        print(name, signature or "was never called")
    return 0


if __name__ == "__main__":
    sys.exit(main())
