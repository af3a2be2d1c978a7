"""Where reports are, and how their pages look."""

from __future__ import annotations

from pathlib import Path
from typing import Final

STYLE: Final = """
body { margin: 0 auto; max-width: 1080px; padding: 1em; font: 14px/1.45 system-ui, sans-serif; color: #1b2733; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 1.6em 0 0.2em; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 0.15em 1.2em 0.15em 0; }
th { color: #5a6b7c; font-weight: 500; } td { font-variant-numeric: tabular-nums; }
tr.bad td { color: #b3261e; } figure { margin: 0; } figcaption { color: #5a6b7c; } img { max-width: 100%; }
"""


def report_path(root: Path, cbid: str, stream: str) -> Path:
    """Return where the report of a block is, beside its data set."""
    return root / cbid / f"{cbid}_{stream}_report.html"
