"""Files compared with what is there, and put in its place at once.

A file is written beside its place, synchronized to the disk and renamed. A directory of one file per name is
built anew beside its place, with what is not ours copied over, and exchanged with the old one by a single
``renameat2(RENAME_EXCHANGE)``: at no moment is a directory missing, or part old and part new. The two
directories ``attributes`` and ``resources`` are exchanged one right after the other; if the power fails between
the two, ``--check`` shows the rest as differences and the next run completes it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_setup.errors import DiscoveryError
from agent_setup.forms import Files, Form, is_ours

DIRECTORIES: Final = ("attributes", "resources")
MAX_FILE: Final = 16 << 20
"""Bytes of an existing file that are compared."""

_ASIDE = ".sdp-agent-config-"
"""In the names of what is built beside its place."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""Of ``fcntl.h`` and ``stdio.h``."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that is not as it should be."""

    path: str
    old: str | None
    """None: it is not there."""
    new: str | None
    """None: it should not be there."""

    def lines(self) -> Iterator[str]:
        """Yield what is told of it: a value that is replaced, or the entries of a list that come and go."""
        place = f"{self.path}: " if self.path else ""
        old, new = _entries(self.old), _entries(self.new)
        if len(old) == len(new) == 1:
            yield f"~ {place}{_shown(old[0])} -> {_shown(new[0])}"
            return
        yield from (f"- {place}{_shown(entry)}" for entry in old if entry not in new)
        yield from (f"+ {place}{_shown(entry)}" for entry in new if entry not in old)


def existing(form: Form, target: Path) -> Files:
    """Return the files of a form that are there and ours.

    Raises
    ------
    DiscoveryError
        If one cannot be read.
    """
    names: Iterable[str]
    if form is Form.DIRECTORY:
        names = sorted(
            f"{folder}/{path.name}"
            for folder in DIRECTORIES
            if (target / folder).is_dir()
            for path in (target / folder).iterdir()
            if is_ours(path.name)
        )
    else:
        names = [""] if form is Form.ENVIRONMENT else ["attributes", "resources.json"]
    return {name: _read(target / name) for name in names if os.path.lexists(target / name)}


def differences(old: Files, new: Files) -> list[Difference]:
    """Return the files that differ, by path."""
    return [
        Difference(path, old.get(path), new.get(path))
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    ]


def publish(form: Form, target: Path, new: Files) -> list[Difference]:
    """Put files in place, where they differ from what is there.

    Returns
    -------
    list
        What was different; nothing is touched where nothing is.

    Raises
    ------
    DiscoveryError
        If the files cannot be written; what is there stays as it is.
    """
    changed = differences(existing(form, target), new)
    try:
        with _undisturbed():
            if form is Form.DIRECTORY:
                touched = {change.path.partition("/")[0] for change in changed}
                _replace_directories(
                    target,
                    {folder: _below(folder, new) for folder in DIRECTORIES if folder in touched},
                )
            else:
                for change in changed:
                    _replace_file(target / change.path, new[change.path])
    except OSError as exc:
        raise DiscoveryError(f"{target}: cannot be written: {exc}") from exc
    return changed


def _entries(text: str | None) -> list[str]:
    """Return the entries of a list, as all our files are: one a line, or with a semicolon between."""
    return [entry for entry in re.split("[;\n]", text or "") if entry.strip()]


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE).decode("utf-8", "replace")
    except OSError as exc:
        raise DiscoveryError(f"{path}: cannot be read: {exc}") from exc


def _below(folder: str, files: Files) -> dict[str, str]:
    return {p.removeprefix(f"{folder}/"): t for p, t in files.items() if p.startswith(f"{folder}/")}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back requests to end until everything is in place: it takes milliseconds.

    Handlers do that, not a mask, which another thread's would not share.
    """
    if threading.current_thread() is not threading.main_thread():  # where Python runs no handlers
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda which, _frame: held.append(which))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for which in held:
            signal.raise_signal(which)


def _replace_file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        _fill(descriptor, text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _synchronize(path.parent)


def _replace_directories(target: Path, folders: Mapping[str, Mapping[str, str]]) -> None:
    """Build all of them first, so that next to no time passes between one and the next exchange."""
    if not folders:
        return
    target.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        _sweep(target)
        try:
            fresh = {folder: _build(target / folder, files) for folder, files in folders.items()}
            for folder, built in fresh.items():
                _put(built, target / folder)
            _synchronize(target)
        finally:
            _sweep(target)  # what was there before, or what failed


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Wait until no other process is writing here."""
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove what was built aside, also by a run that was killed."""
    for folder in DIRECTORIES:
        for left in target.glob(f".{folder}{_ASIDE}*"):
            shutil.rmtree(left, ignore_errors=True)


def _build(path: Path, files: Mapping[str, str]) -> Path:
    """Return a new directory, beside the one whose place it shall take."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}{_ASIDE}", dir=path.parent))
    fresh.chmod(0o755)
    if path.exists():
        _copy_foreign(path, fresh)
    for name, text in files.items():
        descriptor = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        _fill(descriptor, text)
    _synchronize(fresh)
    return fresh


def _put(fresh: Path, path: Path) -> None:
    if path.exists():
        _exchange(fresh, path)
    else:
        fresh.rename(path)


def _copy_foreign(source: Path, destination: Path) -> None:
    """Copy what other programs or people have put there."""
    shutil.copytree(
        source,
        destination,
        symlinks=True,
        dirs_exist_ok=True,
        ignore=lambda _, names: [name for name in names if is_ours(name)],
    )


def _fill(descriptor: int, text: str) -> None:
    """Write a new file's text so that it is on the disk, and close it."""
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(descriptor, 0o644)
        os.fsync(descriptor)


def _synchronize(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two directories, in one step."""
    library = ctypes.CDLL(None, use_errno=True)
    result = library.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(
            code, f"{os.strerror(code)} (exchange of directories; the form json needs none)"
        )
