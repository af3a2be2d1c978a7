"""The packing problem as OR-tools' CP-SAT sees it: a yardstick for :mod:`benchmarks.packing`.

Needs the extra ``benchmarks``. The model is exact for instances of that format: one NUMA node for the cores of
a task, one GPU and one interface of the same agent, of the same node with affinity.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ortools.sat.python import cp_model

from scheduler.requests import GpuRequest, NicRequest, TaskRequest
from scheduler.topology import AgentSnapshot, Nic

Place = tuple[int, int]
"""Agent, and node or device of it."""


class _Model:
    def __init__(self, agents: Sequence[AgentSnapshot]) -> None:
        self.agents = agents
        self.model = cp_model.CpModel()
        self.drawn: defaultdict[tuple[int, str], list[cp_model.LinearExprT]] = defaultdict(list)
        """By agent and resource: what is drawn."""

    def add(self, request: TaskRequest) -> None:
        """Let one task be on one node, and its devices beside it."""
        places = [
            (a, n) for a, agent in enumerate(self.agents) for n in range(len(agent.topology.numa))
        ]
        on = {place: self.model.new_bool_var("") for place in places}
        self.model.add_exactly_one(on.values())
        for (a, n), here in on.items():
            self.drawn[a, f"cores {n}"].append(len(request.cores) * here)
            self.drawn[a, "mem"].append(request.mem * here)
        for gpu in request.gpus:
            self._add_device(on, gpu, "gpu", ("compute", "mem"), (gpu.compute, gpu.mem))
        for nic in request.nics:
            amounts = nic.bandwidth_in, nic.bandwidth_out
            self._add_device(on, nic, "nic", ("in", "out"), amounts)

    def _add_device(
        self,
        on: Mapping[Place, cp_model.IntVar],
        request: GpuRequest | NicRequest,
        kind: str,
        fields: tuple[str, str],
        amounts: tuple[int, int],
    ) -> None:
        for a, agent in enumerate(self.agents):
            parts = agent.topology.gpus if kind == "gpu" else agent.topology.nics
            uses = [self.model.new_bool_var("") for _ in parts]
            nodes = range(len(agent.topology.numa))
            self.model.add(sum(uses) == sum(on[a, n] for n in nodes))
            for d, (use, part) in enumerate(zip(uses, parts, strict=True)):
                if isinstance(part, Nic) and not (
                    isinstance(request, NicRequest) and request.network in part.networks
                ):
                    self.model.add(use == 0)
                if request.affinity:
                    self.model.add(use <= on[a, part.numa or 0])
                for field, amount in zip(fields, amounts, strict=True):
                    self.drawn[a, f"{kind}.{d}.{field}"].append(amount * use)

    def limit(self) -> None:
        """Draw no more than there is."""
        for (a, resource), parts in self.drawn.items():
            agent = self.agents[a]
            if resource.startswith("cores "):
                free = len(agent.topology.numa[int(resource[6:])].cores)
            else:
                free = agent.free.scalars.get(resource, 0)
            self.model.add(sum(parts) <= free)


def solve(
    agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest], seconds: float, workers: int
) -> tuple[bool, bool, float]:
    """Return whether the tasks were placed, whether they were proven not to fit, and the CPU seconds."""
    begun = time.process_time()
    problem = _Model(agents)
    for request in tasks.values():
        problem.add(request)
    problem.limit()
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = workers
    status = solver.solve(problem.model)
    placed = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return placed, status == cp_model.INFEASIBLE, time.process_time() - begun
