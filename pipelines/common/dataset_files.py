"""Where the files of a data set are, in one volume: ``DATA/<cbid>/<cbid>_<stream>.rdb`` and its like.

katdal looks for the chunks two directories above the telescope state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

OF_DUMP: Final = "chunk_info_of_dump"
"""Key of the capture-stream view, from the beginning of a block: `chunk_info` as it would be of one dump."""
OF_BLOCK: Final = "chunk_info"
"""Key of the capture-stream view, when the data are complete: what katdal reads."""


def chunk_prefix(cbid: str, stream: str) -> str:
    """Name of the directory of a block's chunks; katdal's names have no underscores."""
    return f"{cbid}-{stream}".replace("_", "-")


def rdb_path(root: Path, cbid: str, stream: str) -> Path:
    """Where the telescope state of a block goes: what opens the data set."""
    return root / cbid / f"{cbid}_{stream}.rdb"


def lite_rdb_path(root: Path, cbid: str, stream: str) -> Path:
    """Where the telescope state of a block that goes on is: what opens what there is of it."""
    return root / cbid / f"{cbid}_{stream}.lite.rdb"
