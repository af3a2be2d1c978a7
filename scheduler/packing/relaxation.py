"""What a linear relaxation proves: whether tasks must be left out, and which resources bind.

The solver's answer is not trusted: for any prices of the rows, what the tasks cost at least, less what all that
is free is worth, is how many tasks are left out at least (weak duality). That sum is made here, from the
solver's prices, and only if it is above zero is anything called proven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scheduler.packing.arrays import Floats
from scheduler.packing.dimensions import amounts, unit_of
from scheduler.packing.explanation import Binding
from scheduler.packing.pools import Group, TaskClass, classes_of, groups_of, limit_of
from scheduler.packing.programme import Column, Programme, Row, formulate
from scheduler.quantities import Millis
from scheduler.requests import TaskRequest
from scheduler.topology import AgentSnapshot

MOST_COLUMNS: Final = 40_000
"""Larger programmes are not solved: it would take longer than people wait."""
SECONDS: Final = 0.5
"""The solver gives up after this."""
CERTAIN: Final = 1e-6
"""Sums of rounded numbers above this are above zero."""
TELLING: Final = 0.02
"""Rows whose part of the price is less are not told."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """What the relaxation tells."""

    left_out: float = 0.0
    """At least so many tasks cannot be placed; 0 proves nothing."""
    filled: float | None = None
    """Where nothing is left out: any placement fills the fullest pool at least to this part."""
    bindings: tuple[Binding, ...] = ()
    """What binds, by its part of the price: what proves it, or else what is fullest."""
    solved: bool = True
    """Whether there was an answer in time."""

    @property
    def infeasible(self) -> bool:
        """Whether it is proven that not all tasks fit."""
        return self.left_out > 0


def relax(agents: Sequence[AgentSnapshot], tasks: Mapping[str, TaskRequest]) -> Relaxation:
    """Solve the relaxation of placing these tasks on these agents."""
    classes = classes_of(tasks)
    groups = groups_of(agents, classes)
    if groups is None:
        return Relaxation(solved=False)
    programme = formulate(classes, groups)
    if len(programme.columns) > MOST_COLUMNS:
        return Relaxation(solved=False)
    prices = _solve(programme)
    if prices is None:
        return Relaxation(solved=False)
    left_out = _lower_bound(programme, prices)
    if left_out > CERTAIN:
        return Relaxation(left_out, None, _bindings(programme, prices, classes, groups))
    return _fullest(programme, classes, groups)


@dataclass(frozen=True, slots=True)
class _Prices:
    value: float
    rows: Floats
    """(limits,) at least zero."""
    equations: Floats


def _solve(programme: Programme) -> _Prices | None:
    """Return the optimum and its prices; None without an answer in time."""
    from scipy.optimize import linprog  # half a second of imports, which only failures need

    found = linprog(
        [column.cost for column in programme.columns],
        A_ub=_matrix(programme.limits, len(programme.columns)),
        b_ub=[row.limit for row in programme.limits],
        A_eq=_matrix(programme.equations, len(programme.columns)),
        b_eq=[row.limit for row in programme.equations],
        bounds=[(0, column.most) for column in programme.columns],
        method="highs",
        options={"time_limit": SECONDS},
    )
    if found.status != 0:
        return None
    rows = np.maximum(-found.ineqlin.marginals, 0.0)
    return _Prices(float(found.fun), rows, found.eqlin.marginals)


def _matrix(rows: Sequence[Row], n_columns: int) -> Any:  # scipy has no types
    from scipy.sparse import csr_array

    indptr = np.cumsum([0, *(len(row.coefficients) for row in rows)])
    indices = np.fromiter((i for row in rows for i in row.coefficients), np.int64, indptr[-1])
    data = np.fromiter((v for row in rows for v in row.coefficients.values()), float, indptr[-1])
    return csr_array((data, indices, indptr), shape=(len(rows), n_columns))


def _lower_bound(programme: Programme, prices: _Prices) -> float:
    """Return what the objective is at least, by weak duality."""
    n = len(programme.columns)
    reduced = np.array([column.cost for column in programme.columns])
    reduced += _matrix(programme.limits, n).T @ prices.rows
    reduced -= _matrix(programme.equations, n).T @ prices.equations
    most = np.array([column.most for column in programme.columns])
    earned = np.array([row.limit for row in programme.equations]) @ prices.equations
    worth = np.array([row.limit for row in programme.limits]) @ prices.rows
    return float(earned - worth + np.minimum(reduced, 0.0) @ most)


def _fullest(
    programme: Programme, classes: Sequence[TaskClass], groups: Sequence[Group]
) -> Relaxation:
    """Say how full the fullest pool is at least when all tasks are placed, and which that is."""
    columns = [Column(c.task_class, 0.0 if c.cost else c.most) for c in programme.columns]
    z = len(columns)
    columns.append(Column(-1, 1.0, cost=1.0))
    limits = [
        Row({**row.coefficients, z: -row.limit}, 0.0, row.groups, row.pool)
        if row.pool is not None and not row.piece
        else row
        for row in programme.limits
    ]
    fuller = Programme(columns, limits, programme.equations)
    prices = _solve(fuller)
    if prices is None:
        return Relaxation(solved=False)
    return Relaxation(0.0, prices.value, _bindings(fuller, prices, classes, groups))


def _bindings(
    programme: Programme,
    prices: _Prices,
    classes: Sequence[TaskClass],
    groups: Sequence[Group],
) -> tuple[Binding, ...]:
    """Say which resources the prices are paid for, the dearest first."""
    paid: dict[tuple[str, int], list[tuple[float, Row]]] = {}
    for price, row in zip(prices.rows, programme.limits, strict=True):
        if price > CERTAIN:
            resource = row.pool.resource if row.pool is not None else row.relation
            worth = price * (row.limit if row.piece or row.pool is None else 1.0)
            paid.setdefault((resource, row.piece), []).append((worth, row))
    in_want = {n for n, price in enumerate(prices.equations[: len(classes)]) if price > CERTAIN}
    total = sum(worth for rows in paid.values() for worth, _ in rows)
    if not total:  # they fit nowhere, however much room there is: `too_big` tells of those
        return ()
    found = []
    for (resource, piece), rows in paid.items():
        share = sum(worth for worth, _ in rows) / total
        of_rows = [row for _, row in rows]
        used = {programme.columns[c].task_class for row in of_rows for c in row.coefficients}
        concerned = [classes[n] for n in sorted(used & in_want)]
        if share >= TELLING and concerned:
            found.append(_binding(resource, piece, share, of_rows, concerned, groups))
    return tuple(sorted(found, key=lambda binding: -binding.share))


def _binding(
    resource: str,
    piece: Millis,
    share: float,
    rows: Sequence[Row],
    concerned: Sequence[TaskClass],
    groups: Sequence[Group],
) -> Binding:
    numbers = dict.fromkeys(g for row in rows for g in row.groups)
    relation = next((row.relation for row in rows), "")
    if relation:
        resource = ""
    room = sum(int(row.limit) for row in rows) if piece or not resource else 0
    if (
        not resource
        and not relation
        and len(concerned) == 1
        and (limit := limit_of(groups, concerned[0]))
    ):
        resource, room = limit
        piece = min((a for a in amounts(concerned[0].request, resource) if a), default=0)
    asked = [len(c.tasks) * sum(amounts(c.request, resource)) for c in concerned if resource]
    pieces = [
        len(c.tasks) * sum(amount // piece for amount in amounts(c.request, resource))
        for c in concerned
        if piece
    ]
    return Binding(
        resource=resource,
        unit=unit_of(resource),
        share=share,
        tasks=tuple(task for c in concerned for task in c.tasks),
        hosts=tuple(agent.place for n in numbers for agent in groups[n].agents),
        asked=sum(asked),
        free=sum(row.pool.free for row in rows if row.pool is not None),
        piece=piece,
        pieces_asked=sum(pieces) if piece else sum(len(c.tasks) for c in concerned),
        pieces_free=room,
        relation=relation,
    )
