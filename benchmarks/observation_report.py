"""The report of :mod:`benchmarks.observation`: as text, and as a page beside its pictures."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpcontroller.cli.demo_report import legs

if TYPE_CHECKING:
    from benchmarks.observation import Session
    from benchmarks.observation_images import ForeignImage

_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .8em; border-bottom: 1px solid #ccc }
td:not(:first-child), th:not(:first-child) { text-align: right }
img { max-width: 100%; border: 1px solid #ccc } pre { overflow-x: auto; background: #f4f4f4; padding: 1em }"""

Table = tuple[list[str], list[list[str]]]
"""Headings and rows."""


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _heaps(summary: dict[str, Any]) -> Table:
    rows = [[leg, *map(str, counts)] for leg, *counts in legs(summary["heaps"])]
    return ["heaps", "sent", "received", "lost"], rows


def _sources(summary: dict[str, Any], session: Session, foreign: ForeignImage) -> Table:
    theirs = {row.name: row for row in foreign.sources}
    rows = []
    for ours in summary["image"]["sources"]:
        other = theirs.get(ours["name"])
        rows.append(
            [
                ours["name"] or "(not in the sky)",
                _number(ours["model_jy"], ".4f"),
                _number(abs(session.fluxes[ours["name"]]) if ours["name"] else None, ".4f"),
                _number(ours["found_jy"], ".4f"),
                _number(ours["offset_pixels"], ".2f"),
                _number(other and other.found, ".4f"),
                _number(other and other.offset, ".2f"),
            ]
        )
    return [
        "source",
        "sky [Jy]",
        "fitted [Jy]",
        "ours [Jy]",
        "off [px]",
        "wsclean [Jy]",
        "off [px]",
    ], rows


def _facts(summary: dict[str, Any], session: Session, foreign: ForeignImage) -> list[str]:
    quality = summary["image"]["quality"]
    raw, calibrated = session.phase
    return [
        f"{summary['observation']}, capture block {summary['capture_block']}; "
        f"ready {summary['time_to_ready_s']:.1f} s after product-configure",
        f"katdal: {100 * session.lost:.4f} % of the samples lost; phases of the calibrator scatter by "
        f"{raw:.1f}° raw, {calibrated:.2f}° calibrated; its flux density is {session.flux_ratio:.4f} of "
        "the model's",
        f"our image: rms {1e6 * quality['rms']:.0f} µJy/beam; wsclean's: {1e6 * foreign.rms:.0f} µJy/beam",
    ]


def text(output: Path, session: Session, foreign: ForeignImage, problems: Sequence[str]) -> str:
    """Return the report as lines."""
    summary = json.loads((output / "summary.json").read_text())
    lines = _facts(summary, session, foreign)
    for headings, rows in (_heaps(summary), _sources(summary, session, foreign)):
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        lines.append("")
        for row in (headings, *rows):
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    problems = [*summary["problems"], *problems]
    lines += ["", *(f"Problem: {problem}" for problem in problems or ())]
    lines += [] if problems else ["Everything is as it must be."]
    return "\n".join(lines)


def write(output: Path, session: Session, foreign: ForeignImage, problems: Sequence[str]) -> Path:
    """Write ``report.html`` beside the pictures; return its path."""
    summary = json.loads((output / "summary.json").read_text())
    parts = [f"<h1>{html.escape(summary['observation'])}</h1>"]
    parts += [f"<p>{html.escape(fact)}</p>" for fact in _facts(summary, session, foreign)]
    parts += [
        f"<p><b>Problem:</b> {html.escape(problem)}</p>"
        for problem in [*summary["problems"], *problems]
    ]
    parts += [_html(_heaps(summary)), _html(_sources(summary, session, foreign))]
    for title, name in (
        ("The operator's display in mid-capture", "display.png"),
        ("Our image", "image.png"),
        (f"{foreign.version}: the converted data set", "wsclean.png"),
    ):
        if (output / name).exists():
            parts.append(f'<h2>{html.escape(title)}</h2><img src="{name}" alt="{name}">')
    parts.append(f"<h2>katdal's view</h2><pre>{html.escape(session.text)}</pre>")
    page = output / "report.html"
    head = f'<!doctype html><meta charset="utf-8"><title>Observation</title><style>{_STYLE}</style>'
    page.write_text("\n".join([head, *parts]) + "\n")
    return page


def _html(table: Table) -> str:
    headings, rows = table
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
