"""Reading of sandboxes over HTTP, without a way out of them.

A path is looked up, opened, and then it is asked where what has been opened really is: links that a task has
made, also while it is being read, lead nowhere else.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scheduler.embedded.agent import Agent
from scheduler.embedded.runs import Group

MAX_READ = 16 * 4096
"""Bytes of one answer, as with Mesos."""
MAX_ENTRIES = 10_000
"""Entries of a folder that are listed."""


class NoSuchFileError(Exception):
    """There is nothing at that path that may be read."""


def locate(agent: Agent, path: str) -> tuple[Path, Path]:
    """Return the sandbox that a path of the files API lies in, and the path.

    Two forms are understood: the path on disk, and the virtual
    ``/frameworks/ID/executors/ID/runs/latest/…``, in a default executor's with ``tasks/ID/…`` after it.

    Raises
    ------
    NoSuchFileError
        If it is in none of the agent's sandboxes.
    """
    if "\0" in path:
        raise NoSuchFileError(path)
    if (virtual := _virtual(agent, path)) is not None:
        return virtual
    asked = Path(os.path.normpath(path))
    for sandbox in reversed(agent.sandboxes()):
        for root in (sandbox, sandbox.with_name("latest")):
            if asked == root or root in asked.parents:
                return sandbox, asked
    raise NoSuchFileError(path)


def _virtual(agent: Agent, path: str) -> tuple[Path, Path] | None:
    parts = path.strip("/").split("/")
    if len(parts) < 6 or (parts[0], parts[2], parts[4]) != ("frameworks", "executors", "runs"):
        return None
    found = agent.find_sandbox(parts[1], parts[3])
    if found is None or parts[5] not in ("latest", found.container_id):
        return None
    rest = [part for part in parts[6:] if part]
    if isinstance(found, Group) and len(rest) >= 2 and rest[0] == "tasks":
        run = next((run for run in found.runs if run.task.id == rest[1]), None)
        if run is None:
            return None
        return run.sandbox, run.sandbox.joinpath(*rest[2:])
    return found.sandbox, found.sandbox.joinpath(*rest)


def browse(sandbox: Path, path: Path, shown: str) -> list[dict[str, Any]]:
    """List a folder as ``/files/browse`` does.

    Parameters
    ----------
    sandbox, path
        From :func:`locate`.
    shown
        How the request wrote the path; entries are shown below it.

    Raises
    ------
    NoSuchFileError
        If it is no folder inside the sandbox.
    """
    return [_entry(name, status) for name, status in _listed(sandbox, path, shown)]


def list_messages(sandbox: Path, path: Path, shown: str) -> list[dict[str, Any]]:
    """List a folder as ``LIST_FILES`` does; see :func:`browse`."""
    messages = []
    for name, status in _listed(sandbox, path, shown):
        entry = _entry(name, status)
        message = {field: entry[field] for field in ("path", "nlink", "size")}
        message["mtime"] = {"nanoseconds": int(status.st_mtime) * 10**9}
        message["mode"] = status.st_mode
        messages.append(message | {field: entry[field] for field in ("uid", "gid")})
    return messages


def _listed(sandbox: Path, path: Path, shown: str) -> list[tuple[str, os.stat_result]]:
    with _opened(sandbox, path, os.O_DIRECTORY) as handle:
        names = sorted(os.listdir(handle))[:MAX_ENTRIES]  # noqa: PTH208 - of the open folder, not of a path
        found: list[tuple[str, os.stat_result]] = []
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                found.append((f"{shown.rstrip('/')}/{_printable(name)}", status))
        return found


def _entry(path: str, status: os.stat_result) -> dict[str, Any]:
    return {
        "gid": _name(grp.getgrgid, status.st_gid),
        "mode": stat.filemode(status.st_mode),
        "mtime": float(int(status.st_mtime)),
        "nlink": status.st_nlink,
        "path": path,
        "size": status.st_size,
        "uid": _name(pwd.getpwuid, status.st_uid),
    }


def _name(lookup: Any, number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")


def read(sandbox: Path, path: Path, offset: int, length: int) -> tuple[bytes, int]:
    """Read a piece of a file as ``/files/read`` does.

    Parameters
    ----------
    sandbox, path
        From :func:`locate`.
    offset
        Where to begin; negative: only the size is asked for.
    length
        Most bytes; negative: as many as one answer may have.

    Returns
    -------
    bytes, int
        The piece, and where it begins; without a piece for a negative `offset`, and the size.

    Raises
    ------
    NoSuchFileError
        If it is no regular file inside the sandbox.
    """
    with _opened(sandbox, path, os.O_NONBLOCK) as handle:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise NoSuchFileError(str(path))
        if offset < 0:
            return b"", status.st_size
        if offset >= status.st_size:
            return b"", offset
        wanted = MAX_READ if length < 0 else min(length, MAX_READ)
        return os.pread(handle, wanted, offset), offset


def whole_characters(data: bytes) -> bytes:
    """Cut a UTF-8 character off that is not complete at the end, so that the next read begins with it."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        expected = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if expected > back and back < len(data) else data
    return data


@contextlib.contextmanager
def _opened(sandbox: Path, path: Path, flags: int) -> Iterator[int]:
    """Open something, provided that what is open then is inside the sandbox."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | flags)
    except (OSError, ValueError) as exc:
        raise NoSuchFileError(str(path)) from exc
    try:
        real = Path(f"/proc/self/fd/{handle}").readlink()
        root = sandbox.resolve()
        if real != root and root not in real.parents:
            raise NoSuchFileError(str(path))
        yield handle
    finally:
        os.close(handle)
