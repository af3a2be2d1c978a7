"""Why a graph cannot be placed: as data first, as text second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from scheduler.placement import Placement
from scheduler.quantities import Millis, format_millis

ADMISSION: Final = "admission"
"""Of a lack: what is asked of the agent itself, its host, subsystem, rack and the like."""
_SHOWN = 10
"""Lines of one kind in the text; the data has all."""
_NAMES = 4
"""Names in one sentence; the data has all."""


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that a task asks for and one agent cannot give."""

    resource: str
    """In words: ``cores on one NUMA node``."""
    asked: Millis
    free: Millis
    unit: str = ""
    fact: str = ""
    """Said instead of amounts, where it is not a matter of amounts: ``no interface on cbf``."""

    @property
    def by(self) -> Millis:
        """How much is missing."""
        return self.asked - self.free

    def __str__(self) -> str:
        if self.fact:
            return self.fact
        asked, free = amount_text(self.asked, self.unit), amount_text(self.free, self.unit)
        return f"{self.resource}: asks for {asked}, {free} free, {amount_text(self.by, self.unit)} missing"


@dataclass(frozen=True, slots=True)
class Nearest:
    """The agent on which a task comes nearest to fitting, and what is missing there."""

    agent_id: str
    host: str
    lacks: tuple[Lack, ...]

    def __str__(self) -> str:
        return f"nearest is agent {self.host} ({'; '.join(map(str, self.lacks))})"


@dataclass(frozen=True, slots=True)
class TooBig:
    """A task that would not fit even if it were alone, and the resource that shows it best."""

    task: str
    lack: Lack | None
    """What no agent at all has enough of; `free` is the most that one has. None: no single resource, see
    `nearest`."""
    host: str
    """The agent that has most of it."""
    nearest: Nearest | None
    """None when there is no agent."""

    def __str__(self) -> str:
        return self.told_of((self.task,))

    def told_of(self, tasks: Sequence[str]) -> str:
        """Say it for people, of several tasks of which the same is true."""
        names = listed(tasks)
        if self.lack is None:
            near = (
                f"no agent has room, {self.nearest}"
                if self.nearest
                else "there is no agent that takes tasks"
            )
            return f"{names}: {near}"
        if self.lack.resource == ADMISSION:
            return f"{names}: no agent that takes tasks will do: {self.lack.fact}"
        if self.lack.fact:
            return f"{names}: {self.lack.fact} on any agent that may run it"
        asked = amount_text(self.lack.asked, self.lack.unit)
        most = amount_text(self.lack.free, self.lack.unit)
        one = self.lack.resource.partition(" on ")[2]
        where = f"the most free on {one}" if one else "the most free on one agent"
        asks = "asks" if len(tasks) == 1 else "each ask"
        return f"{self.lack.resource}: {names} {asks} for {asked}, {where} is {most} (agent {self.host})"


def told_together(tasks: Sequence[TooBig]) -> list[str]:
    """Say it of all, one line for those of which the same is true."""
    alike: dict[object, list[TooBig]] = {}
    for task in tasks:
        alike.setdefault((task.lack, task.host, task.nearest), []).append(task)
    return [group[0].told_of([task.task for task in group]) for group in alike.values()]


@dataclass(frozen=True, slots=True)
class Total:
    """One resource over the whole cluster."""

    resource: str
    asked: Millis
    """By all tasks."""
    free: Millis
    """On all agents."""
    largest: Millis
    """On the one agent that has most."""
    host: str
    unit: str = ""

    @property
    def short(self) -> bool:
        """Whether more is asked for than is there."""
        return self.asked > self.free

    def __str__(self) -> str:
        return (
            f"{self.resource}: all tasks together ask for {amount_text(self.asked, self.unit)}, "
            f"{amount_text(self.free, self.unit)} free on all agents"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Why a graph was not placed. ``str()`` of it is for people."""

    n_tasks: int
    partial: Placement
    """The fullest placement found; nobody should act on it."""
    unplaced: tuple[str, ...]
    """Tasks that it leaves out."""
    never: tuple[TooBig, ...] = ()
    """Tasks that no agent could take even when empty. Only known where the capacity is."""
    too_big: tuple[TooBig, ...] = ()
    """Tasks that no agent can take now, though some could when empty (as far as that is known)."""
    totals: tuple[Total, ...] = ()
    nearest: Mapping[str, tuple[Nearest, ...]] = field(default_factory=dict)
    """By unplaced task: where it comes nearest beside the partial placement, the nearest first. The first
    tasks only, if many."""

    @property
    def proven(self) -> bool:
        """Whether no search, however long, could have placed the graph on what is free now."""
        return bool(self.never or self.too_big or any(total.short for total in self.totals))

    @property
    def hopeless(self) -> str:
        """What of this the cluster could not give even when empty, for people; empty where nothing is known."""
        return "\n".join(
            some([f"{line}; even with the cluster empty" for line in told_together(self.never)])
        )

    def __str__(self) -> str:
        first = f"{len(self.unplaced)} of {self.n_tasks} tasks cannot be placed."
        return "\n".join((first, *self.lines()))

    def lines(self) -> Iterator[str]:
        """Yield the particulars, for people."""
        never = told_together(self.never)
        yield from some([f"Never: {line}; even with the cluster empty" for line in never])
        yield from some(told_together(self.too_big))
        yield from some([str(total) for total in self.totals if total.short])
        if not self.proven:
            yield "Each task fits by itself, and the totals suffice, but no way was found to fit all."
        yield from self.nearest_lines()

    def nearest_lines(self) -> Iterator[str]:
        """Yield what is missing where the tasks come nearest, those that say the same in one line."""
        known = {task.task for task in (*self.never, *self.too_big)}
        tasks: dict[str, list[str]] = {}
        for name, near in self.nearest.items():
            if name not in known and near:
                tasks.setdefault(str(near[0]), []).append(name)
        yield from some([f"{listed(names)}: {text}" for text, names in tasks.items()])


def some(lines: list[str]) -> Iterator[str]:
    """Yield the first lines of one kind, and how many more there are."""
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"… and {len(lines) - _SHOWN} more of this kind"


def listed(names: Sequence[str], what: str = "") -> str:
    """List names for a sentence: a few, and how many there are of them (of `what`) if there are more."""
    if len(names) <= _NAMES:
        return ", ".join(names)
    first = ", ".join(names[: _NAMES - 1])
    if what:
        return f"{len(names)} {what}s ({first}, …)"
    return f"{first} and {len(names) - _NAMES + 1} more"


def amount_text(amount: Millis, unit: str) -> str:
    """Write an amount with its unit, if it has one."""
    return f"{format_millis(amount)} {unit}".rstrip()
