"""Placing a whole graph, or saying why not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scheduler.constraints import Together
from scheduler.packing.answer import assignments
from scheduler.packing.arrays import (
    FIRST,
    HUMBLEST,
    N_CORES,
    NOWHERE,
    TIGHTEST,
    Best,
    Bytes,
    Ints,
    Plan,
)
from scheduler.packing.ejection import search
from scheduler.packing.explain import explain
from scheduler.packing.flat import Problem, flatten
from scheduler.packing.greedy import insert_all
from scheduler.packing.indexed import LARGE, insert_all_indexed, make_index
from scheduler.packing.proof import hopeless
from scheduler.packing.relaxed import NEVER, relax
from scheduler.packing.resume import resumed
from scheduler.packing.shortage import Shortage
from scheduler.packing.sweep import columns_of, insert_all_swept, mark_fits_alone
from scheduler.placement import Placement, Running
from scheduler.quantities import Ranges, Resources
from scheduler.requests import GpuRequest, NicRequest, TaskRequest, VolumeRequest
from scheduler.topology import AgentSnapshot, Gpu, Nic, NumaNode, Topology, Volume

ITERATIONS: Final = 600_000
"""Steps of the searches by default, of some 6 µs each on 50 agents."""
RELAXED: Final = 20_000
"""Steps of the search of relaxed plans in one round; four in five, where few are left."""
EJECTIONS: Final = 5_000
"""Steps of the search by ejection in one round. A round that has not come to an end by then rarely does."""
CANDIDATES: Final = 4_000_000
"""Candidate places that are kept, for all tasks together: 32 MB."""
SHAKE: Final = 0.3
"""How far the order of tasks of a new start is from that of their sizes."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to search; see :func:`pack`."""

    seed: int
    iterations: int
    seconds: float | None


def pack(
    agents: Sequence[AgentSnapshot],
    tasks: Mapping[str, TaskRequest],
    *,
    seed: int = 0,
    iterations: int = ITERATIONS,
    seconds: float | None = None,
    capacity: Sequence[AgentSnapshot] | None = None,
    start: Placement | None = None,
    running: Sequence[Running] = (),
) -> Placement | Shortage:
    """Place all tasks on the agents, or none.

    The answer depends on nothing but the arguments (unless `seconds` is given). The compiled parts run without
    the GIL, so that a thread can do this while an event loop runs.

    Parameters
    ----------
    agents
        What is free, agent by agent.
    tasks
        Requests by task name.
    seed
        Of the random numbers of the search.
    iterations
        Steps of the search when greedy orders fail; 0 for greedy orders only.
    seconds
        Wall time after which no other round of the search is begun, however many steps are left.
    capacity
        All agents of the cluster as they would be with nothing running; where it is given, tasks that could
        never be placed are told apart from those that cannot be placed now.
    start
        The fullest plan of an earlier attempt (`Shortage.partial`): what of it still holds is where the search
        begins when greedy orders fail. Give another `seed` then, lest the same ways be tried again.
    running
        What runs on the agents already. What it draws is not free any more; what counts are its multicast
        groups, and for siblings the relations to them.

    Returns
    -------
    Placement or Shortage
        Every task's assignment, or why they do not all fit.
    """
    problem = flatten(agents, tasks, running, capacity or ())
    plan, missing = _greedy(problem, searched=iterations > 0)
    best = Best(plan.where, plan.device)
    if missing and iterations > 0 and not hopeless(problem, _left_out(plan)):
        effort = Effort(seed, iterations, seconds)
        best, missing = _search(problem, plan, missing, effort, start, _Rooms.of(problem))
    placement = Placement(assignments(problem, best.where, best.device))
    return explain(agents, tasks, placement, capacity) if missing else placement


def place(
    agents: Sequence[AgentSnapshot],
    tasks: Mapping[str, TaskRequest],
    *,
    iterations: int,
    start: Placement | None = None,
    running: Sequence[Running] = (),
) -> Placement | None:
    """Place all tasks like :func:`pack`, for those who do not ask why not."""
    problem = flatten(agents, tasks, running)
    plan, missing = _greedy(problem, searched=iterations > 0)
    best = Best(plan.where, plan.device)
    if missing and iterations > 0 and not hopeless(problem, _left_out(plan)):
        effort = Effort(0, iterations, None)
        # a few steps do not pay for looking at all places of all tasks first
        rooms = _Rooms.of(problem, relaxed=iterations >= RELAXED)
        best, missing = _search(problem, plan, missing, effort, start, rooms)
    return None if missing else Placement(assignments(problem, best.where, best.device))


def _orders(problem: Problem, *, searched: bool) -> Iterator[tuple[Ints, int]]:
    """Yield orders of the tasks and rules, in the order in which they are tried.

    First fit comes last, and only where no search follows: what it finds when the others fail, which is rare,
    a search finds, and what it does not costs as much as the beginning of one.
    """
    by_size = np.argsort(-problem.demand.size, kind="stable")
    yield by_size, HUMBLEST
    if len(np.unique(problem.cluster.rank)) > 1:  # otherwise it is the same
        yield by_size, TIGHTEST
    if not searched:
        yield np.argsort(-problem.demand.task[:, N_CORES], kind="stable"), FIRST


def _keep(plan: Plan) -> Best:
    return Best(plan.where.copy(), plan.device.copy())


def _left_out(plan: Plan) -> Ints:
    return np.flatnonzero(plan.where == NOWHERE)


def _greedy(problem: Problem, *, searched: bool) -> tuple[Plan, int]:
    """Return the fullest of the greedy plans, and how many tasks it lacks."""
    best, fewest = None, len(problem.tasks) + 1
    for order, rule in _orders(problem, searched=searched):
        plan = problem.empty_plan()
        missed = _insert_all(problem, plan, order, rule)
        if missed < fewest:
            best, fewest = plan, missed
        if missed == 0:
            break
    assert best is not None  # noqa: S101 - for the type checker: there is an order, and it lacks fewer
    return best, fewest


def _search(
    problem: Problem,
    plan: Plan,
    fewest: int,
    effort: Effort,
    start: Placement | None,
    rooms: _Rooms,
) -> tuple[Best, int]:
    """Search from a plan or that of an earlier attempt, then from shaken greedy ones, until one is full.

    Ends with the fullest when the effort is used up.
    """
    generator = np.random.default_rng(effort.seed)
    end = np.inf if effort.seconds is None else time.monotonic() + effort.seconds
    steps, best = effort.iterations, _keep(plan)
    plans = _starts(problem, plan if start is None else resumed(problem, start), generator)
    while fewest and steps > 0 and time.monotonic() < end:
        found, missed, used = _round(problem, next(plans), rooms, generator, steps)
        if missed < fewest:
            best, fewest = found, missed
        steps -= used
    return best, fewest


def _starts(problem: Problem, plan: Plan, generator: np.random.Generator) -> Iterator[Plan]:
    """Yield a plan, then greedy ones in orders that are not quite those of the sizes."""
    size = problem.demand.size
    while True:
        yield plan
        noise = 1 + SHAKE * generator.random(len(size))
        plan = problem.empty_plan()
        _insert_all(problem, plan, np.argsort(-size * noise), TIGHTEST)


@dataclass(frozen=True, slots=True)
class _Rooms:
    """Where the searches keep what they know of the places of each task."""

    candidates: Ints
    """(tasks, any)"""
    fits: Bytes | None
    """(tasks, places), or None where the search of relaxed plans is not for this problem."""

    @classmethod
    def of(cls, problem: Problem, *, relaxed: bool = True) -> _Rooms:
        """Return the rooms of a problem; without `relaxed`, or where it does not pay, `fits` is None."""
        n_tasks, n_places = len(problem.tasks), len(problem.cluster.places)
        columns = min(n_places, max(CANDIDATES // n_tasks, 1))
        candidates = np.empty((n_tasks, columns), np.int64)
        tied = problem.demand.tie.shape[1] > 0
        if not relaxed or tied or n_tasks * n_places > CANDIDATES:
            return cls(candidates, None)
        return cls(candidates, places_of_each(problem))


def places_of_each(problem: Problem) -> Bytes:
    """Mark in (tasks, places) where each task fits when nothing else is placed."""
    fits = np.empty((len(problem.tasks), len(problem.cluster.places)), np.uint8)
    columns = columns_of(problem.cluster, problem.free)
    mark_fits_alone(problem.cluster, problem.demand, problem.empty_plan(), columns, fits)
    return fits


def _round(
    problem: Problem, plan: Plan, rooms: _Rooms, generator: np.random.Generator, steps: int
) -> tuple[Best, int, int]:
    """Search from one plan: the fullest found, how many tasks it lacks, and the steps that took."""
    cluster, demand, free = problem.cluster, problem.demand, problem.free
    random = generator.integers(1, 2**63, 1, np.uint64)
    used = 0
    if rooms.fits is not None:
        used = min(RELAXED, max(steps - EJECTIONS, 4 * steps // 5))
        relaxed = _copy(plan)
        until = np.where(rooms.fits, 0, NEVER)
        if relax(cluster, demand, relaxed, free, until, random, used):
            return _keep(relaxed), 0, used
    found = _keep(plan)
    ejections = min(EJECTIONS, steps - used)
    missed = search(cluster, demand, plan, found, free, rooms.candidates, random, ejections)
    return found, missed, used + ejections


def _copy(plan: Plan) -> Plan:
    return Plan(*(array.copy() for array in plan))


def _insert_all(problem: Problem, plan: Plan, order: Ints, rule: int, large: int = LARGE) -> int:
    """Insert tasks in order, on large clusters with an index; return how many are left out."""
    cluster, demand = problem.cluster, problem.demand
    index = make_index(cluster, demand, plan, large)
    if index is not None:
        return insert_all_indexed(cluster, demand, plan, index, order, rule)
    if rule == FIRST:
        return insert_all(cluster, demand, plan, order, rule)
    return insert_all_swept(cluster, demand, plan, columns_of(cluster, plan.free), order, rule)


def warm_up() -> None:
    """Compile everything, or read it from the disk: once, off the event loop, before the first graph."""
    topology = Topology(
        numa=(NumaNode(Ranges(((0, 1),))),),
        gpus=(Gpu(name="warm-up", numa=0, mem_mib=1),),
        nics=(Nic(name="lo", networks=("warm-up",), address="127.0.0.1", numa=0),),
        volumes=(Volume(name="warm-up", path="/"),),
    )
    free = Resources({"cpus": 2000, "gpu.0.compute": 1000}, {"cores": Ranges(((0, 1),))})
    agents = [
        AgentSnapshot(agent_id=i, host=i, topology=topology, free=free, address="127.0.0.1")
        for i in ("1", "2")
    ]
    small = TaskRequest(
        cores=("0",),
        gpus=(GpuRequest(600, 0), GpuRequest(0, 0)),
        nics=(NicRequest("warm-up", 0, 0),),
        volumes=(VolumeRequest("warm-up"),),
    )
    # the small ones cannot share a GPU, so that no agent has two cores left; the totals do not show that
    tasks = {"a": small, "b": small, "c": TaskRequest(cores=("0", "1"))}
    answer = pack(agents, tasks, iterations=10)
    near = TaskRequest(ports=("a",), together=(Together("b", "host"),))
    pack(agents, {"a": near, "b": TaskRequest()})
    problem = flatten(agents, tasks)
    resumed(problem, answer.partial if isinstance(answer, Shortage) else answer)
    _insert_all(problem, problem.empty_plan(), np.arange(3), HUMBLEST, large=0)
    _insert_all(problem, problem.empty_plan(), np.arange(3), FIRST)
