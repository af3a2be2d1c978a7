"""Files that hold a secret: nobody else may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from scheduler.errors import ClusterError


def read_secret(path: Path, what: str) -> str:
    """Read a file that nobody else may read.

    Parameters
    ----------
    path
        The file.
    what
        What is in it, for people.

    Raises
    ------
    ClusterError
        If it cannot be read, or others may read it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ClusterError(f"cannot read {what} in {path}: {exc}") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and os.name == "posix":
        raise ClusterError(f"others may read {what} in {path}: chmod 600 it first")
    return text
