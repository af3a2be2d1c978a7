"""Several changes with which a graph would fit together, where no single one is enough.

Every change goes so far, in steps of its own: so many more agents, so many tasks ended, so much less asked for.
First all are made as far as they go. If the graph fits then, changes are left out while it does, the hardest
kinds first; if more than two stay, pairs are tried. Last, each that is left is made as small as the others
allow. What is told was placed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Final, Protocol, TypeAlias

from scheduler.packing.circumstances import Idle, Occupant, with_freed
from scheduler.packing.dimensions import Dimension, dimensions, unit_of, without
from scheduler.packing.explanation import (
    AskLess,
    BringBack,
    Change,
    Drop,
    MoreAgents,
    Together,
    Withheld,
)
from scheduler.packing.pools import TaskClass, classes_of
from scheduler.packing.remedies import (
    KINDS,
    MOST_MORE,
    PARTS,
    Case,
    Trials,
    beside,
    copies,
    fewest,
    release_order,
    scale_of,
    short_of,
    the_end_of,
    useful_kinds,
)
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

MOST_TRIALS: Final = 60
"""Combinations that are tried; each takes about as long as trying one change."""
PAIRS: Final = 20
"""Of these, pairs where more than two changes seem to be needed."""
MOST_PARTS: Final = 4
"""Changes in one combination at most: more is another cluster, or another graph."""


@dataclass(frozen=True, slots=True)
class _Problem:
    """A problem that changes are made to."""

    agents: Sequence[AgentSnapshot]
    requests: Mapping[TaskClass, TaskRequest]
    """What the tasks of a class ask for now."""

    def tasks(self, unchanged: Mapping[str, TaskRequest]) -> dict[str, TaskRequest]:
        """Return the requests of all tasks."""
        changed = dict(unchanged)
        for task_class, request in self.requests.items():
            if request is not task_class.request:
                changed |= dict.fromkeys(task_class.tasks, request)
        return changed

    def asking(self, task_class: TaskClass, request: TaskRequest) -> _Problem:
        """Let the tasks of a class ask for something else."""
        return _Problem(self.agents, {**self.requests, task_class: request})


class _Step(Protocol):
    """One kind of change, that goes so far."""

    @property
    def most(self) -> int:
        """How far it goes."""
        ...

    def make(self, problem: _Problem, far: int) -> _Problem:
        """Make it, so far."""
        ...

    def told(self, far: int) -> Change:
        """Say it."""
        ...


_Extent: TypeAlias = Mapping[_Step, int]
"""Changes, and how far each goes."""


def together(case: Case, trials: Trials) -> tuple[Together, ...]:
    """Look for changes that help together; empty when none were found."""
    trials.allow(int(MOST_TRIALS * scale_of(case)))
    classes = classes_of(case.tasks)
    start = _Problem(case.agents, {c: c.request for c in classes})

    def enough(extent: _Extent) -> bool:
        problem = start
        for step, far in extent.items():
            problem = step.make(problem, far)
        return trials.fit(problem.agents, problem.tasks(case.tasks))

    steps = list(_steps(case, classes))
    all_the_way = {step: step.most for step in steps}
    if len(steps) < 2 or not enough(all_the_way):
        return ()
    found = _fewest_steps(all_the_way, enough, trials)
    if not 2 <= len(found) <= MOST_PARTS:
        return ()
    found = _smallest(found, enough)
    return (Together(tuple(step.told(far) for step, far in found.items())),)


def _fewest_steps(
    extent: dict[_Step, int], enough: Callable[[_Extent], bool], trials: Trials
) -> dict[_Step, int]:
    """Leave out changes while the others are enough, the last first; then look whether two of any are."""
    kept = dict(extent)
    for step in reversed(extent):
        rest = {other: far for other, far in kept.items() if other is not step}
        if rest and enough(rest):
            kept = rest
    if len(kept) > 2:
        for two in list(combinations(extent, 2))[:PAIRS]:
            if not trials.exhausted and enough(pair := {step: step.most for step in two}):
                return pair
    return kept


def _smallest(extent: dict[_Step, int], enough: Callable[[_Extent], bool]) -> dict[_Step, int]:
    """Make each change as small as the others allow, in their order."""
    found = dict(extent)
    for step in extent:
        far = fewest(step.most, partial(_enough_so_far, enough, found, step))
        found[step] = step.most if far is None else far
    return found


def _enough_so_far(
    enough: Callable[[_Extent], bool], extent: _Extent, step: _Step, far: int
) -> bool:
    return enough({**extent, step: far})


# ---------------------------------------------------------------------- the changes, the easiest first


def _steps(case: Case, classes: Sequence[TaskClass]) -> Iterator[_Step]:
    for idle in case.circumstances.idle[:KINDS]:
        if idle.agent is not None:
            yield _Back(idle, idle.agent)
    if order := release_order(case.agents, case.tasks, case.circumstances):
        yield _Ended(order, case)
    for agent in useful_kinds(case):
        yield _More(agent)
    left = set(case.unplaced)
    for task_class in [c for c in classes if left.intersection(c.tasks)][:KINDS]:
        short = short_of(case, task_class)
        for dimension in dimensions(task_class.request):
            less = _Less(task_class, dimension)
            if dimension.resource in short and less.most:
                yield less
        for constraint, _ in without(task_class.request):
            yield _GivenUp(task_class, constraint)


@dataclass(frozen=True, slots=True, eq=False)
class _Back:
    """A withheld agent is in service again."""

    idle: Idle
    agent: AgentSnapshot
    most: int = 1

    def make(self, problem: _Problem, far: int) -> _Problem:
        return _Problem(beside(problem.agents, [self.agent]), problem.requests)

    def told(self, far: int) -> Change:
        return BringBack((Withheld(self.idle.host, self.idle.reason),))


@dataclass(frozen=True, slots=True, eq=False)
class _Ended:
    """Tasks have ended, those first that are easiest to do without."""

    order: Sequence[Occupant]
    case: Case

    @property
    def most(self) -> int:
        return len(self.order)

    def make(self, problem: _Problem, far: int) -> _Problem:
        capacity = self.case.circumstances.capacity
        return _Problem(with_freed(problem.agents, capacity, self.order[:far]), problem.requests)

    def told(self, far: int) -> Change:
        return the_end_of(self.order[:far], self.case)


@dataclass(frozen=True, slots=True, eq=False)
class _More:
    """There are more agents of a kind."""

    agent: AgentSnapshot
    most: int = MOST_MORE

    def make(self, problem: _Problem, far: int) -> _Problem:
        return _Problem([*problem.agents, *copies(self.agent, far)], problem.requests)

    def told(self, far: int) -> Change:
        return MoreAgents(self.agent.host, far)


@dataclass(frozen=True, slots=True, eq=False)
class _Less:
    """Tasks of a class ask for less of something, down to half: less than that is another program."""

    task_class: TaskClass
    dimension: Dimension

    @property
    def _unit(self) -> int:
        step, asked = self.dimension.step, self.dimension.asked
        return max(step, asked // PARTS // step * step)

    @property
    def most(self) -> int:
        return self.dimension.asked // 2 // self._unit

    def make(self, problem: _Problem, far: int) -> _Problem:
        asks = dimensions(problem.requests[self.task_class])
        same = next(d for d in asks if d.resource == self.dimension.resource)
        less = same.ask(self.dimension.asked - far * self._unit)
        return problem.asking(self.task_class, less)

    def told(self, far: int) -> Change:
        resource, asked = self.dimension.resource, self.dimension.asked
        enough = asked - far * self._unit
        return AskLess(self.task_class.tasks, resource, asked, enough, unit_of(resource))


@dataclass(frozen=True, slots=True, eq=False)
class _GivenUp:
    """Tasks of a class do without a constraint."""

    task_class: TaskClass
    constraint: str
    most: int = 1

    def make(self, problem: _Problem, far: int) -> _Problem:
        request = problem.requests[self.task_class]
        rest = dict(without(request)).get(self.constraint, request)
        return problem.asking(self.task_class, rest)

    def told(self, far: int) -> Change:
        return Drop(self.task_class.tasks, self.constraint)
