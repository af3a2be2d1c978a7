"""The smallest changes with which a graph would fit; each is told only after it was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np

from scheduler.packing.circumstances import Circumstances, Occupant, pooled, with_freed
from scheduler.packing.dimensions import Dimension, dimensions, plain, unit_of, without
from scheduler.packing.explanation import (
    AskLess,
    AskPart,
    Binding,
    BringBack,
    Drop,
    FreeTasks,
    MoreAgents,
    Remedy,
    Withheld,
)
from scheduler.packing.pools import TaskClass, classes_of, fits_alone
from scheduler.packing.shortage import Nearest
from scheduler.quantities import Millis, Ranges, Resources
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

Tasks = Mapping[str, TaskRequest]
Fits = Callable[[Sequence[AgentSnapshot], Tasks, int], bool]
"""Whether tasks fit on agents, as far as a search of so many steps can tell."""

STEPS: Final = 100
"""Steps of the search with which a change is tried."""
THOROUGH: Final = 3000
"""Steps where everything else depends on one answer."""
MOST_TRIALS: Final = 30
"""Changes that are tried of one kind, if nothing else is said."""
ROOMY: Final = 100_000
"""Tasks times agents up to which all these trials end within a second; of more, fewer are made."""
KINDS: Final = 4
"""Kinds of agents of which more are tried, and kinds of tasks of which smaller ones are."""
MOST_KINDS: Final = 500
"""Different requests of which a part is tried together."""
MOST_MORE: Final = 16
"""Agents that are added at most."""
PARTS: Final = 16
"""A smaller request is told to this part of what is asked, or to its step."""
LIKELY: Final = 2
"""Amounts between two such parts that are tried as well: those that are free somewhere."""
MOST_VARIANTS: Final = 1000
"""Agents that are looked at with something freed."""


class Trials:
    """Tries changes, and counts them."""

    def __init__(self, fits: Fits, most: int = MOST_TRIALS) -> None:
        self._fits = fits
        self._most = most
        self.made = 0

    @property
    def exhausted(self) -> bool:
        """Whether no more may be made."""
        return self.made >= self._most

    def allow(self, more: int) -> None:
        """Let so many more be made, and no others."""
        self._most = self.made + more

    def fit(self, agents: Sequence[AgentSnapshot], tasks: Tasks, steps: int = STEPS) -> bool:
        """Whether the tasks fit; False once there were too many trials."""
        if self.exhausted:
            return False
        self.made += 1
        return self._fits(agents, tasks, steps)


@dataclass(frozen=True, slots=True)
class Case:
    """A graph that does not fit."""

    agents: Sequence[AgentSnapshot]
    tasks: Tasks
    unplaced: Sequence[str]
    circumstances: Circumstances
    bindings: Sequence[Binding] = ()
    nearest: Mapping[str, Sequence[Nearest]] = field(default_factory=dict)


def remedies(case: Case, trials: Trials) -> tuple[Remedy, ...]:
    """Look for changes that help, the easiest kind first."""
    scale = scale_of(case)
    found: list[Remedy] = []
    for kind, most in ((_bring_back, 5), (_free, 18), (_more_agents, 8), (_smaller, 20)):
        trials.allow(int(most * scale))
        found += kind(case, trials)
    return tuple(found)


def scale_of(case: Case) -> float:
    """Return which part of the trials is made: fewer of a larger problem."""
    return min(1.0, ROOMY / max(1, len(case.tasks) * len(case.agents)))


# ---------------------------------------------------------------------- agents that are withheld


def _bring_back(case: Case, trials: Trials) -> Iterator[Remedy]:
    """Try each idle agent by itself, then all."""
    known = [(idle, idle.agent) for idle in case.circumstances.idle if idle.agent is not None]
    alone = 0
    for idle, agent in known[:KINDS]:
        if trials.fit(beside(case.agents, [agent]), case.tasks):
            alone += 1
            yield BringBack((Withheld(idle.host, idle.reason),))
    every = [agent for _, agent in known]
    if not alone and len(known) > 1 and trials.fit(beside(case.agents, every), case.tasks):
        yield BringBack(tuple(Withheld(idle.host, idle.reason) for idle, _ in known))


def beside(agents: Sequence[AgentSnapshot], more: Sequence[AgentSnapshot]) -> list[AgentSnapshot]:
    """Add agents, or the rest of agents of which a part is there."""
    holds = {agent.agent_id: agent.free for agent in more}
    rest = Occupant(name="idle", holds=holds)
    return with_freed(agents, more, [rest])


# ---------------------------------------------------------------------- tasks that run


def _free(case: Case, trials: Trials) -> Iterator[Remedy]:
    found = smallest_release(case.agents, case.tasks, case.circumstances, trials)
    if found:
        yield the_end_of(found, case)


def the_end_of(occupants: Sequence[Occupant], case: Case) -> FreeTasks:
    """Tell their end."""
    hosts = {a.agent_id: a.host for a in (*(case.circumstances.capacity or ()), *case.agents)}
    where = dict.fromkeys(hosts.get(i, i) for occupant in occupants for i in occupant.holds)
    names = tuple(occupant.name for occupant in occupants)
    return FreeTasks(names, tuple(where), all(o.preemptible for o in occupants))


def smallest_release(
    agents: Sequence[AgentSnapshot], tasks: Tasks, circumstances: Circumstances, trials: Trials
) -> list[Occupant]:
    """Return occupants whose end makes room: those that may be ended first, then of the lowest priority.

    Of equal ones, those come first without which some agent has room for a task that has none now. As few as
    possible of that order are taken; then whoever need not end is let stay. Empty, if the end of all makes no
    room.
    """
    order = release_order(agents, tasks, circumstances)

    def enough(occupants: Sequence[Occupant], steps: int = STEPS) -> bool:
        return trials.fit(with_freed(agents, circumstances.capacity, occupants), tasks, steps)

    if not order or not enough(order, THOROUGH):
        return []
    low, high = 0, len(order)  # the first `high` are enough, the first `low` are not
    while high - low > 1:
        middle = (low + high) // 2
        if enough(order[:middle]):
            high = middle
        else:
            low = middle
    return _without_needless(order[:high], enough, trials)


def release_order(
    agents: Sequence[AgentSnapshot], tasks: Tasks, circumstances: Circumstances
) -> list[Occupant]:
    """Return all occupants, those first that are easiest to do without: see :func:`smallest_release`."""
    useful = _useful(agents, tasks, circumstances)
    return sorted(
        circumstances.occupants,
        key=lambda o: (not o.preemptible, o.priority, o.name not in useful, _size(o)),
    )


def _without_needless(
    taken: list[Occupant], enough: Callable[[Sequence[Occupant]], bool], trials: Trials
) -> list[Occupant]:
    """Let occupants stay, many at once first, while the end of the others is enough."""
    size = len(taken) // 2
    while size and not trials.exhausted:
        start = 0
        while start < len(taken) and not trials.exhausted:
            rest = [*taken[:start], *taken[start + size :]]
            if rest and enough(rest):
                taken = rest
            else:
                start += size
        size //= 2
    return taken


def _useful(
    agents: Sequence[AgentSnapshot], tasks: Tasks, circumstances: Circumstances
) -> set[str]:
    """Name occupants without which an agent has room for a task that it has none for now."""
    now = {a.agent_id: replace(a, free=Resources()) for a in circumstances.capacity or ()}
    now |= {agent.agent_id: agent for agent in agents}
    held = [
        (occupant.name, now[agent_id], resources)
        for occupant in circumstances.occupants
        for agent_id, resources in occupant.holds.items()
        if agent_id in now
    ][:MOST_VARIANTS]
    classes = classes_of(tasks)
    before = fits_alone([agent for _, agent, _ in held], classes)
    freed = [replace(agent, free=pooled(agent.free, more)) for _, agent, more in held]
    helps = np.any(fits_alone(freed, classes) > before, axis=0)
    return {name for (name, *_), helpful in zip(held, helps.tolist(), strict=True) if helpful}


def _size(occupant: Occupant) -> int:
    """How much of it there is: what holds little is easier to do without."""
    return sum(len(held.ranges.get("cores", Ranges())) for held in occupant.holds.values())


# ---------------------------------------------------------------------- agents that there are not


def _more_agents(case: Case, trials: Trials) -> Iterator[Remedy]:
    """Look for each kind of agent how many more would do."""
    found: list[MoreAgents] = []
    for agent in useful_kinds(case):
        most = min([MOST_MORE, *(remedy.count - 1 for remedy in found)])
        count = fewest(most, partial(_fits_with_copies, case, trials, agent))
        if count is not None:
            found.append(MoreAgents(agent.host, count))
    yield from sorted(found, key=lambda remedy: remedy.count)[:2]


def useful_kinds(case: Case) -> list[AgentSnapshot]:
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
    return trials.fit([*case.agents, *copies(agent, count)], case.tasks)


def copies(agent: AgentSnapshot, count: int) -> list[AgentSnapshot]:
    """Return so many agents like one."""
    return [
        replace(agent, agent_id=f"{agent.agent_id} + {n}", host=f"{agent.host} + {n}", offer_ids=())
        for n in range(count)
    ]


def fewest(most: int, enough: Callable[[int], bool]) -> int | None:
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
    """Let all tasks that ask for the same as one that is left over ask for less, or for less of a kind.

    Only what is short somewhere is tried.
    """
    left = set(case.unplaced)
    classes = classes_of(case.tasks)
    concerned = [c for c in classes if left.intersection(c.tasks)]
    for task_class in concerned[:KINDS]:
        for constraint, request in without(task_class.request):
            if trials.fit(case.agents, changed_tasks(case.tasks, [(task_class, request)])):
                yield Drop(task_class.tasks, constraint)
        short = short_of(case, task_class)
        for dimension in dimensions(task_class.request):
            if dimension.resource in short:
                yield from _ask_less(case, task_class, dimension, trials)
    for binding in case.bindings[:KINDS]:
        competing = [c for c in classes if set(binding.tasks).intersection(c.tasks)]
        if 1 < len(competing) <= MOST_KINDS:
            yield from _ask_part(case, competing, binding, trials)


def short_of(case: Case, task_class: TaskClass) -> set[str]:
    """Name what is short where tasks of a class come nearest, and what binds them."""
    short: set[str] = set()
    for binding in case.bindings:
        if set(binding.tasks).intersection(task_class.tasks):
            short.update(_resources(binding.resource))
    for name in task_class.tasks:
        nearest = case.nearest.get(name, ())
        short.update(
            r for near in nearest for lack in near.lacks for r in _resources(lack.resource)
        )
    if "cpus" in short and task_class.request.cores:
        short.add("cores")
    return short


def _resources(resource: str) -> Iterator[str]:
    """Name the resource of a lack or a pool as dimensions do, for each network that it serves."""
    of, way, networks = plain(resource).rpartition(" of ")
    yield from (f"{of}{way}{network}" for network in networks.split("/"))


def changed_tasks(
    tasks: Tasks, changes: Iterable[tuple[TaskClass, TaskRequest]]
) -> dict[str, TaskRequest]:
    """Let the tasks of classes ask for something else, by the class' names of cores and ports."""
    changed = dict(tasks)
    for task_class, request in changes:
        changed |= dict.fromkeys(task_class.tasks, request)
    return changed


def _ask_less(
    case: Case, task_class: TaskClass, dimension: Dimension, trials: Trials
) -> Iterator[AskLess]:
    """Look for the largest smaller amount with which all fit."""

    def fits(amount: Millis) -> bool:
        changed = [(task_class, dimension.ask(amount))]
        return trials.fit(case.agents, changed_tasks(case.tasks, changed))

    asked = dimension.asked
    step = max(dimension.step, asked // PARTS // dimension.step * dimension.step)
    most = step * _most(-(-asked // step), lambda steps: fits(steps * step))
    likely = sorted(_free_of(case, task_class, dimension), reverse=True)
    between = [amount for amount in likely if most < amount < min(most + step, asked)]
    enough = next((amount for amount in between[:LIKELY] if fits(amount)), most)
    if enough:
        unit = unit_of(dimension.resource)
        yield AskLess(task_class.tasks, dimension.resource, asked, enough, unit)


def _free_of(case: Case, task_class: TaskClass, dimension: Dimension) -> set[Millis]:
    """Return what is free where tasks of a class come nearest: the amounts that are most likely enough."""
    lacks = [
        lack
        for name in task_class.tasks
        for near in case.nearest.get(name, ())
        for lack in near.lacks
        if dimension.resource in _resources(lack.resource)
    ]
    # What a task asks for beside the dimension itself (cores are cpus, too) it asks for in any case.
    amounts = [lack.free - max(0, lack.asked - dimension.asked) for lack in lacks]
    return {amount // dimension.step * dimension.step for amount in amounts if amount > 0}


def _ask_part(
    case: Case, competing: Sequence[TaskClass], binding: Binding, trials: Trials
) -> Iterator[AskPart]:
    """Look for the largest part of what binds with which all fit, if all that compete for it ask for that."""
    asking = [c for c in competing if any(_asked(c.request, binding.resource))]

    def fits(parts: int) -> bool:
        """Whether all fit when each that competes asks for so many of :data:`PARTS` of what it asks for."""
        smaller = [(c, asking_part(c.request, binding.resource, parts / PARTS)) for c in asking]
        if any(_gives_up(c.request, less, binding.resource) for c, less in smaller):
            return False
        return trials.fit(case.agents, changed_tasks(case.tasks, smaller))

    most = _most(PARTS, fits) if asking else 0
    if most:
        yield AskPart(binding.tasks, binding.resource, most / PARTS)


def _asked(request: TaskRequest, resource: str) -> list[Millis]:
    """Return what is asked for of a pool's resource, for each network that it serves."""
    names = set(_resources(resource))
    return [d.asked for d in dimensions(request) if d.resource in names]


def _gives_up(request: TaskRequest, less: TaskRequest, resource: str) -> bool:
    """Whether nothing is left of something that was asked for."""
    both = zip(_asked(request, resource), _asked(less, resource), strict=True)
    return any(asked and not left for asked, left in both)


def asking_part(request: TaskRequest, resource: str, part: float) -> TaskRequest:
    """Ask for a part of what is asked for of a pool's resource, rounded down."""
    for name in _resources(resource):
        for dimension in dimensions(request):
            if dimension.resource == name and dimension.asked:
                amount = int(dimension.asked * part) // dimension.step * dimension.step
                request = dimension.ask(amount)
    return request


def _most(end: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number found, below `end`, for which something holds; 0, if there is none."""
    low, high = 0, end
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
