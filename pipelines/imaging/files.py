"""JSON files, which appear whole or not at all, as all others do (`replacing`)."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.common.files import replacing

__all__ = ["replacing", "write_json"]


def write_json(path: Path, document: object) -> None:
    """Write a JSON document for programs and for people."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", "utf-8")
