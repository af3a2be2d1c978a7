"""The relaxation as a linear programme: how many tasks of each class go where, in fractions.

Variables: of each class, how many tasks are in each group (and there on each node, if they need one); how many
of their wants are served by which alike devices; how many are left out, which is minimised. Rows: each pool
gives no more than it has; no more of a class than its `copies` are in a group; of tasks that keep apart, or
are at most so many in a zone, no more than there are zones for. Because tasks cannot be cut up, a pool also
gives no more *pieces* than it has room for: of at least t, a slot with f free holds no more than ⌊f/t⌋, and
what asks for k·t or more counts k times (a Chvátal-Gomory cut).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from scheduler.packing.flat import needs_node
from scheduler.packing.pools import Devices, Group, Pool, TaskClass, own_of
from scheduler.quantities import Millis
from scheduler.requests import GpuRequest, NicRequest, TaskRequest

MOST_CUTS: Final = 400
"""Rows for pieces, over all pools; those that lose most room are taken."""
MOST_ENTRIES: Final = 400_000
"""Entries of all these rows: where thousands of different tasks draw on each pool, there are fewer."""
FEW: Final = 8
"""A threshold is worth a cut only if fewer pieces than this go into the largest slot."""

Want: TypeAlias = GpuRequest | NicRequest


class Item(NamedTuple):
    """One variable's draw on a pool."""

    column: int
    amount: Millis
    times: int


class _Cut(NamedTuple):
    """A row for pieces that could be made."""

    loss: float
    """The part of the pool that is no use for them."""
    group: int
    pool: Pool
    items: Sequence[Item]
    piece: Millis
    room: int
    """For how many."""


@dataclass(frozen=True, slots=True)
class Column:
    """A variable."""

    task_class: int
    most: float
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """``Σ coefficients · variables ≤ limit`` (or ``=``), and what it speaks of."""

    coefficients: Mapping[int, float]
    limit: float
    groups: tuple[int, ...] = ()
    pool: Pool | None = None
    piece: Millis = 0
    """Threshold of a row for pieces; 0 for one of amounts, or of copies where there is no pool."""
    relation: str = ""
    """What a row for zones is for, in words."""


@dataclass(slots=True)
class Programme:
    """A linear programme: minimise ``cost`` under rows, variables from 0 to ``most``."""

    columns: list[Column] = field(default_factory=list)
    limits: list[Row] = field(default_factory=list)
    equations: list[Row] = field(default_factory=list)
    draws: dict[int, tuple[int, Pool, list[Item]]] = field(default_factory=dict)
    """By identity of the pool: its group, itself, and who draws on it."""

    def column(self, task_class: int, most: float, cost: float = 0.0) -> int:
        """Add a variable."""
        self.columns.append(Column(task_class, most, cost))
        return len(self.columns) - 1

    def draw(
        self, group: int, pool: Pool | None, column: int, amount: Millis, times: int = 1
    ) -> None:
        """Let a variable draw on a pool; None is one without limit."""
        if pool is not None and amount > 0:
            entry = self.draws.setdefault(id(pool), (group, pool, []))
            entry[2].append(Item(column, amount, times))


def formulate(classes: Sequence[TaskClass], groups: Sequence[Group]) -> Programme:
    """Write the programme; the first equations are those of the classes, in their order."""
    programme = Programme()
    links: list[Row] = []
    placed: list[list[int]] = []
    for number, task_class in enumerate(classes):
        count = len(task_class.tasks)
        everywhere = [programme.column(number, count, cost=1.0)]
        for g, group in enumerate(groups):
            if group.copies[number]:
                here = _in_group(programme, links, number, task_class, g, group)
                everywhere += here
                if here and group.copies[number] < count:
                    ones = dict.fromkeys(here, 1.0)
                    programme.limits.append(Row(ones, group.copies[number], (g,)))
        programme.equations.append(Row(dict.fromkeys(everywhere, 1.0), count))
        placed.append(everywhere[1:])
    programme.equations += links
    programme.limits += _zones(classes, groups, placed)
    programme.limits += [_amounts_row(*drawn) for drawn in programme.draws.values()]
    programme.limits += _cuts(cut for drawn in programme.draws.values() for cut in _pieces(*drawn))
    return programme


def _zones(
    classes: Sequence[TaskClass], groups: Sequence[Group], placed: Sequence[Sequence[int]]
) -> Iterator[Row]:
    """Yield rows for tasks of a group that a zone takes only so many of, where they say so themselves."""
    members: dict[tuple[str, int, str, bool], dict[int, str]] = {}
    for number, task_class in enumerate(classes):
        request = task_class.request
        limits = [(r.group, 1, r.fact, True, str(r)) for r in request.apart]
        limits += [(r.group, r.most, r.fact, False, str(r)) for r in request.at_most]
        for group, most, fact, apart, text in limits:
            if group in request.groups:
                members.setdefault((group, most, fact, apart), {})[number] = text
    for (_, most, fact, apart), numbers in members.items():
        if apart and sum(len(classes[number].tasks) for number in numbers) == 1:
            continue  # one task is apart wherever it is, also in no zone
        able = tuple(
            g for g, group in enumerate(groups) if any(group.copies[number] for number in numbers)
        )
        zones = {agent.fact(fact) for g in able for agent in groups[g].agents} - {None}
        ones = {column: 1.0 for number in numbers for column in placed[number]}
        if ones:
            yield Row(ones, most * len(zones), able, relation=next(iter(numbers.values())))


def _in_group(
    programme: Programme, links: list[Row], number: int, of: TaskClass, g: int, group: Group
) -> list[int]:
    """Add the variables of one class in one group; return those that count its tasks."""
    request, count = of.request, len(of.tasks)
    nodes: Sequence[int | None] = range(len(group.cores)) if needs_node(request) else (None,)
    wants = Counter[Want]((*request.gpus, *request.nics))
    columns: list[int] = []
    for node in nodes:
        near = {w: list(_serving(group, w, node)) for w in wants if w.affinity}
        if all(near.values()):
            x = programme.column(number, count)
            columns.append(x)
            _draw_own(programme, request, g, group, node, x)
            for want, devices in near.items():
                links += _serve(programme, g, want, wants[want], devices, [x])
    for want in wants if columns else ():
        if not want.affinity:
            devices = list(_serving(group, want, None))
            links += _serve(programme, g, want, wants[want], devices, columns)
    return columns


def _draw_own(
    programme: Programme, request: TaskRequest, g: int, group: Group, node: int | None, x: int
) -> None:
    for name, amount in own_of(request).items():
        programme.draw(g, group.own[name], x, amount)
    if node is not None and request.cores:
        programme.draw(g, group.cores[node], x, 1000 * len(request.cores))
        programme.draw(g, group.node_mem[node], x, request.mem)
    for volume in request.volumes:
        programme.draw(g, group.volumes.get(volume.name), x, volume.disk)


def _serving(group: Group, want: Want, node: int | None) -> Iterator[Devices]:
    for devices in group.devices:
        if isinstance(want, GpuRequest):
            serves = devices.networks is None
        else:
            serves = devices.networks is not None and want.network in devices.networks
        if serves and (not want.affinity or devices.numa == node):
            yield devices


def _serve(
    programme: Programme,
    g: int,
    want: Want,
    times: int,
    serving: Sequence[Devices],
    tasks: Sequence[int],
) -> Iterator[Row]:
    """Let alike devices serve a want of the tasks that the variables `tasks` count."""
    if len(serving) == 1:
        for x in tasks:
            _draw_device(programme, g, serving[0], want, x, times)
        return
    counted = programme.columns[tasks[0]]
    shares = [programme.column(counted.task_class, counted.most * times) for _ in serving]
    for devices, share in zip(serving, shares, strict=True):
        _draw_device(programme, g, devices, want, share, 1)
    yield Row(dict.fromkeys(shares, 1.0) | dict.fromkeys(tasks, -float(times)), 0.0, (g,))


def _draw_device(
    programme: Programme, g: int, devices: Devices, want: Want, column: int, times: int
) -> None:
    if isinstance(want, GpuRequest):
        first, second = want.compute, want.mem
    else:
        first, second = want.bandwidth_in, want.bandwidth_out
    programme.draw(g, devices.first, column, first, times)
    programme.draw(g, devices.second, column, second, times)


def _amounts_row(g: int, pool: Pool, items: Sequence[Item]) -> Row:
    """Scaled to the pool, so that the numbers of all rows are of one size."""
    scale = max(pool.free, 1)
    coefficients: dict[int, float] = {}
    for item in items:
        share = item.amount * item.times / scale
        coefficients[item.column] = coefficients.get(item.column, 0.0) + share
    return Row(coefficients, pool.free / scale, (g,), pool)


def _pieces(g: int, pool: Pool, items: Sequence[Item]) -> Iterator[_Cut]:
    """Yield the pieces for which a part of the pool is no use."""
    pieces = np.array(sorted({item.amount for item in items}), np.int64)
    sizes, counts = np.unique(np.array(pool.members, np.int64), return_counts=True)
    pieces = pieces[pieces * FEW > max(pool.members, default=0)]
    room = np.zeros(len(pieces), np.int64)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        room += count * (size // pieces)
    for piece, n in zip(pieces.tolist(), room.tolist(), strict=True):
        if n * piece < pool.free:
            yield _Cut(1 - n * piece / pool.free, g, pool, items, piece, n)


def _cuts(every: Iterable[_Cut]) -> Iterator[Row]:
    """Yield rows for pieces, those first that lose most room."""
    left = MOST_ENTRIES
    for cut in sorted(every, key=lambda cut: -cut.loss)[:MOST_CUTS]:
        if len(cut.items) > left:
            return
        left -= len(cut.items)
        coefficients: dict[int, float] = {}
        for item in cut.items:
            if pieces := item.amount // cut.piece * item.times:
                coefficients[item.column] = coefficients.get(item.column, 0.0) + pieces
        yield Row(coefficients, cut.room, (cut.group,), cut.pool, cut.piece)
