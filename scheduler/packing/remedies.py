"""The smallest changes with which a graph would fit; each is told only after it was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from scheduler.packing.circumstances import Circumstances, Occupant, with_freed
from scheduler.packing.dimensions import Dimension, dimensions, unit_of, without
from scheduler.packing.explanation import (
    AskLess,
    BringBack,
    Drop,
    FreeTasks,
    MoreAgents,
    Remedy,
    Withheld,
)
from scheduler.packing.pools import TaskClass, classes_of
from scheduler.quantities import Ranges
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

Tasks = Mapping[str, TaskRequest]
Fits = Callable[[Sequence[AgentSnapshot], Tasks], bool]
"""Whether tasks fit on agents, as far as a short search can tell."""

MOST_TRIALS: Final = 80
"""Changes that are tried at most: the bound of the time that all this takes."""
KINDS: Final = 4
"""Kinds of agents of which more are tried, and kinds of tasks of which smaller ones are."""
MOST_MORE: Final = 16
"""Agents that are added at most."""
PARTS: Final = 64
"""A smaller request is told to this part of what is asked, or to its step."""


class Trials:
    """Tries changes, and counts them."""

    def __init__(self, fits: Fits) -> None:
        self._fits = fits
        self.made = 0

    @property
    def exhausted(self) -> bool:
        """Whether no more may be made."""
        return self.made >= MOST_TRIALS

    def fit(self, agents: Sequence[AgentSnapshot], tasks: Tasks) -> bool:
        """Whether the tasks fit; False once there were too many trials."""
        if self.exhausted:
            return False
        self.made += 1
        return self._fits(agents, tasks)


@dataclass(frozen=True, slots=True)
class Case:
    """A graph that does not fit."""

    agents: Sequence[AgentSnapshot]
    tasks: Tasks
    unplaced: Sequence[str]
    circumstances: Circumstances


def remedies(case: Case, trials: Trials) -> tuple[Remedy, ...]:
    """Look for changes that help, the easiest kind first."""
    kinds = (_bring_back, _free, _more_agents, _smaller)
    return tuple(remedy for kind in kinds for remedy in kind(case, trials))


# ---------------------------------------------------------------------- agents that are withheld


def _bring_back(case: Case, trials: Trials) -> Iterator[Remedy]:
    """Try each idle agent by itself, then all."""
    known = [(idle, idle.agent) for idle in case.circumstances.idle if idle.agent is not None]
    alone = 0
    for idle, agent in known[:KINDS]:
        if trials.fit(_beside(case.agents, [agent]), case.tasks):
            alone += 1
            yield BringBack((Withheld(idle.host, idle.reason),))
    every = [agent for _, agent in known]
    if not alone and len(known) > 1 and trials.fit(_beside(case.agents, every), case.tasks):
        yield BringBack(tuple(Withheld(idle.host, idle.reason) for idle, _ in known))


def _beside(agents: Sequence[AgentSnapshot], more: Sequence[AgentSnapshot]) -> list[AgentSnapshot]:
    """Add agents, or the rest of agents of which a part is there."""
    holds = {agent.agent_id: agent.free for agent in more}
    rest = Occupant(name="idle", holds=holds)
    return with_freed(agents, more, [rest])


# ---------------------------------------------------------------------- tasks that run


def _free(case: Case, trials: Trials) -> Iterator[Remedy]:
    found = smallest_release(case.agents, case.tasks, case.circumstances, trials)
    if found:
        hosts = {a.agent_id: a.host for a in (*(case.circumstances.capacity or ()), *case.agents)}
        where = dict.fromkeys(hosts.get(i, i) for occupant in found for i in occupant.holds)
        names = tuple(occupant.name for occupant in found)
        yield FreeTasks(names, tuple(where), all(o.preemptible for o in found))


def smallest_release(
    agents: Sequence[AgentSnapshot], tasks: Tasks, circumstances: Circumstances, trials: Trials
) -> list[Occupant]:
    """Return occupants whose end makes room: those that may be ended first, then of the lowest priority.

    As few as possible of that order are taken; then each of them, the dearest first, is let stay if it can.
    Empty, if the end of all makes no room.
    """
    order = sorted(circumstances.occupants, key=lambda o: (not o.preemptible, o.priority, _size(o)))

    def enough(occupants: Sequence[Occupant]) -> bool:
        return trials.fit(with_freed(agents, circumstances.capacity, occupants), tasks)

    if not order or not enough(order):
        return []
    low, high = 0, len(order)  # the first `high` are enough, the first `low` are not
    while high - low > 1:
        middle = (low + high) // 2
        if enough(order[:middle]):
            high = middle
        else:
            low = middle
    taken = order[:high]
    for occupant in reversed(taken[:-1]):  # without the last it was not enough
        rest = [other for other in taken if other is not occupant]
        if trials.exhausted:
            break
        if enough(rest):
            taken = rest
    return taken


def _size(occupant: Occupant) -> int:
    """How much of it there is: what holds little is easier to do without."""
    return sum(len(held.ranges.get("cores", Ranges())) for held in occupant.holds.values())


# ---------------------------------------------------------------------- agents that there are not


def _more_agents(case: Case, trials: Trials) -> Iterator[Remedy]:
    """Look for each kind of agent how many more would do."""
    found: list[MoreAgents] = []
    for agent in _kinds(case):
        most = min([MOST_MORE, *(remedy.count - 1 for remedy in found)])
        count = _fewest(most, partial(_fits_with_copies, case, trials, agent))
        if count is not None:
            found.append(MoreAgents(agent.host, count))
    yield from sorted(found, key=lambda remedy: remedy.count)[:2]


def _kinds(case: Case) -> list[AgentSnapshot]:
    """Return one empty agent of each kind, the humblest first."""
    kinds: dict[object, AgentSnapshot] = {}
    for agent in case.circumstances.capacity or ():
        topology = agent.topology
        parts = (
            tuple(len(node.cores) for node in topology.numa),
            tuple((gpu.name, gpu.numa, gpu.mem_mib) for gpu in topology.gpus),
            tuple((nic.networks, nic.numa, nic.speed_mbps) for nic in topology.nics),
            tuple((volume.name, volume.disk_mib) for volume in topology.volumes),
            topology.subsystems,
            agent.free.scalars.get("cpus", 0) // 1000,
            agent.free.scalars.get("mem", 0) // 2**30,
        )
        kinds.setdefault(parts, agent)
    needs = [case.tasks[name] for name in case.unplaced]
    useful = [a for a in kinds.values() if any(_may_serve(a, request) for request in needs)]
    return sorted(useful, key=lambda a: a.topology.effective_priority)[:KINDS]


def _may_serve(agent: AgentSnapshot, request: TaskRequest) -> bool:
    """Whether a new agent of that kind could be of use for a task: not if the task wants a certain host."""
    networks = {network for nic in agent.topology.nics for network in nic.networks}
    return (
        request.host is None
        and (not request.gpus or bool(agent.topology.gpus))
        and all(nic.network in networks for nic in request.nics)
    )


def _fits_with_copies(case: Case, trials: Trials, agent: AgentSnapshot, count: int) -> bool:
    copies = (
        replace(agent, agent_id=f"{agent.agent_id} + {n}", host=f"{agent.host} + {n}", offer_ids=())
        for n in range(count)
    )
    return trials.fit([*case.agents, *copies], case.tasks)


def _fewest(most: int, enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number up to `most` that is enough; more are taken to be enough as well."""
    if most < 1:
        return None
    high = 1
    while not enough(high):
        if high == most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


# ---------------------------------------------------------------------- requests that are smaller


def _smaller(case: Case, trials: Trials) -> Iterator[Remedy]:
    """Let all tasks that ask for the same as one that is left over ask for less, or for less of a kind."""
    left = set(case.unplaced)
    concerned = [c for c in classes_of(case.tasks) if left.intersection(c.tasks)]
    for task_class in concerned[:KINDS]:
        for constraint, request in without(task_class.request):
            if trials.fit(case.agents, _changed(case.tasks, task_class, request)):
                yield Drop(task_class.tasks, constraint)
        for dimension in dimensions(task_class.request):
            enough = _enough(case, task_class, dimension, trials)
            if enough is not None:
                asked, unit = dimension.asked, unit_of(dimension.resource)
                yield AskLess(task_class.tasks, dimension.resource, asked, enough, unit)


def _changed(tasks: Tasks, task_class: TaskClass, request: TaskRequest) -> dict[str, TaskRequest]:
    """Let the tasks of a class ask for something else, by the class' names of cores and ports."""
    return {**tasks, **dict.fromkeys(task_class.tasks, request)}


def _enough(case: Case, task_class: TaskClass, dimension: Dimension, trials: Trials) -> int | None:
    """Return the largest smaller amount found with which all fit; None if even nothing is too much."""

    def fits(amount: int) -> bool:
        return trials.fit(case.agents, _changed(case.tasks, task_class, dimension.ask(amount)))

    if dimension.asked <= 0 or not fits(0):
        return None
    step = max(dimension.step, dimension.asked // PARTS // dimension.step * dimension.step)
    low, high = 0, -(-dimension.asked // step)  # in steps: `low` fits, `high` does not
    while high - low > 1 and not trials.exhausted:
        middle = (low + high) // 2
        if fits(middle * step):
            low = middle
        else:
            high = middle
    return low * step
