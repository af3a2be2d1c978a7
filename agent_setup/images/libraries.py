"""The system's libraries behind programs and extension modules, as the dynamic loader finds them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agent_setup.errors import ImageError

_AT_A_TIME: Final = 200
_FOUND: Final = re.compile(r"^\t(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_MAGIC: Final = b"\x7fELF"


def is_elf(path: Path) -> bool:
    """Whether a file is a program or library."""
    with path.open("rb") as file:
        return file.read(4) == _MAGIC


def needed_by(files: Iterable[Path]) -> dict[str, Path]:
    """Return the libraries that files are linked with, and the loader, by the path at which they are sought.

    A library that is not found is left out: packages carry modules for what is not installed.

    Raises
    ------
    ImageError
        If the loader cannot be asked.
    """
    wanted = sorted({str(path) for path in files})
    found: dict[str, Path] = {}
    for start in range(0, len(wanted), _AT_A_TIME):
        for name in _asked(wanted[start : start + _AT_A_TIME]):
            found[os.path.normpath(name)] = Path(name).resolve()
    return found


def _asked(files: list[str]) -> Iterator[str]:
    try:
        done = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False)
    except OSError as exc:
        raise ImageError(
            f"ldd, which tells what libraries are needed, cannot be run: {exc}"
        ) from exc
    yield from _FOUND.findall(done.stdout)
