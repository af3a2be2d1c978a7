"""Pieces of HTML: tables, bars, cells. What comes in as text is escaped here, what is called a cell is HTML."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from scheduler.quantities import Ranges, format_millis

MAX_CELLS = 128
"""Members of a range that are drawn one by one; of more only how many there are."""


def moment(unix: float) -> str:
    """Write a moment."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "plain"
) -> Iterator[str]:
    """Yield a table; a column whose title begins with ``#`` holds numbers."""
    kinds = [" class='number'" if title.startswith("#") else "" for title in head]
    titles = (f"<th{k}>{t.removeprefix('#')}</th>" for k, t in zip(kinds, head, strict=True))
    yield f"<table class='{kind}'><tr>" + "".join(titles) + "</tr>"
    for row in rows:
        shown = (f"<td{k}>{cell}</td>" for k, cell in zip(kinds, row, strict=True))
        yield "<tr>" + "".join(shown) + "</tr>"
    yield "</table>"


def tile(name: str, value: str) -> str:
    """Write a figure."""
    return f"<div class='tile'><b>{escape(value)}</b><span class='soft'>{escape(name)}</span></div>"


def tag(text: str, kind: str = "") -> str:
    """Write a small label."""
    return f"<span class='tag {escape(kind)}'>{escape(text)}</span>"


def bar(total: int, used: int, offered: int) -> str:
    """Draw how much of something is used and offered."""
    if total <= 0:
        return ""
    parts = (("used", used), ("offered", offered))
    widths = ((kind, 100 * amount / total) for kind, amount in parts)
    inner = "".join(f"<i class='{kind}' style='width:{w:.1f}%'></i>" for kind, w in widths if w)
    return f"<div class='bar'>{inner}</div>"


def cells(total: Ranges, offered: Ranges, holders: Mapping[int, str]) -> str:
    """Draw each member of a range, with who holds it."""
    if len(total) > MAX_CELLS:
        used = sum(member in total for member in holders)
        return bar(len(total), used, len(offered))
    drawn = []
    for member in total:
        kind = "used" if member in holders else "offered" if member in offered else ""
        title = (
            f"{member}: {holders[member]}" if member in holders else f"{member}: {kind or 'free'}"
        )
        drawn.append(f"<i class='{kind}' title='{escape(title, quote=True)}'></i>")
    return f"<div class='cells'>{''.join(drawn)}</div>"


def scalar(amount: int) -> str:
    """Write thousandths so that a person can take them in: ``100 G``."""
    units = amount / 1000
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if units >= size:
            return f"{units / size:.4g}{unit}"
    return format_millis(amount)
