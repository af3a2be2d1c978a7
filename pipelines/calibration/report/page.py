"""The page of a report: one file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from pipelines.calibration.report.place import STYLE, report_path
from pipelines.calibration.report.plots import Plot, plots
from pipelines.calibration.report.record import BlockRecord, ScanRecord
from pipelines.common.files import replacing


def write_report(root: Path, record: BlockRecord) -> Path:
    """Write the report of a block and return its path. Blocks, for seconds: for a worker thread.

    Raises
    ------
    OSError
        It could not be written; nothing is left of it.
    """
    path = report_path(root, record.cbid, record.stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = render(record, plots(record))
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


def render(record: BlockRecord, drawn: Iterable[Plot]) -> str:
    """Return the page."""
    title = f"Calibration of capture block {record.cbid}"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        *_summary(record),
        *_scans(record.scans),
        *(_figure(plot) for plot in drawn),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(record: BlockRecord) -> Iterator[str]:
    reference = f"{record.refant}: {record.why}" if record.refant else "none: no scan was solved"
    band = f"{len(record.freqs)} channels, {record.freqs[0] / 1e6:.2f}–{record.freqs[-1] / 1e6:.2f} MHz"
    rows = [
        ("Stream", f"{record.stream}, {band}"),
        ("Antennas", str(len(record.antennas))),
        ("Reference antenna", reference),
    ]
    if record.polarisation.delay is not None:
        rows.append(("Cross-hand delay", f"{record.polarisation.delay * 1e9:.3f} ns"))
    if record.measured_flux:
        found = ", ".join(f"{name} {flux:.3f} Jy" for name, flux in record.measured_flux.items())
        rows.append(("Measured flux densities", found))
    yield "<table>"
    for name, value in rows:
        yield f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
    yield "</table>"


def _scans(scans: Sequence[ScanRecord]) -> Iterator[str]:
    yield "<h2>Scans of calibrators</h2>"
    if not scans:
        yield "<p>There was none.</p>"
        return
    yield "<table><tr><th>UTC</th><th>Target</th><th>Dumps</th><th>Solutions</th><th>Phase rms [deg]</th></tr>"
    for scan in scans:
        when = datetime.fromtimestamp(scan.start, UTC).strftime("%H:%M:%S")
        found = scan.failure or ", ".join(f"{n} {name}" for name, n in scan.counts.items() if n)
        rms = "" if scan.failure else f"{scan.phase_rms * 57.29578:.2f}"
        cells = (when, scan.name, str(scan.n_dumps), found, rms)
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        yield f'<tr class="bad">{row}</tr>' if scan.failure else f"<tr>{row}</tr>"
    yield "</table>"


def _figure(plot: Plot) -> str:
    data = base64.b64encode(plot.png).decode()
    return (
        f"<h2>{escape(plot.title)}</h2><figure>"
        f'<img alt="{escape(plot.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )
