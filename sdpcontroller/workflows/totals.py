"""What tasks ask for, in columns for people, and the sums of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scheduler.requests import TaskRequest

Row = Mapping[str, float]
"""Amount by column; the unit is in the column's name where it needs one."""


def row(request: TaskRequest) -> Row:
    """Return what one task asks for."""
    way: dict[str, float] = {}
    for nic in request.nics:
        for name, amount in (("in", nic.bandwidth_in), ("out", nic.bandwidth_out)):
            if amount:
                key = f"{nic.network} {name}, Mbit/s"
                way[key] = way.get(key, 0) + amount / 1000
    return {
        "CPUs": request.cpus / 1000,
        "cores": len(request.cores),
        "memory, MiB": request.mem / 1000,
        "GPUs": sum(gpu.compute for gpu in request.gpus) / 1000,
        **way,
    }


def totals(rows: Iterable[Row]) -> dict[str, float]:
    """Add up rows, column by column."""
    total: dict[str, float] = {}
    for one in rows:
        for column, amount in one.items():
            total[column] = round(total.get(column, 0) + amount, 3)
    return total


def in_words(amounts: Row) -> str:
    """Say it in one line: what is asked for at all."""
    return "; ".join(f"{column} {amount:,.10g}" for column, amount in amounts.items() if amount)
