"""The folder in which a task lives: made, filled with what it asked for, and its logs opened.

Everything here blocks; it is for worker threads.
"""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from scheduler.embedded.executors import ContainerLaunchError, Launch, SandboxError
from scheduler.embedded.executors.fetch import FetchError, fetch

CACHE: Final = Path("fetch")
"""Folder of a work folder with what is fetched once (``cache: true``)."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom a task's files belong to, when that is somebody else than the cluster."""

    name: str
    uid: int
    gid: int
    home: str


def prepare(launch: Launch, cache: Path) -> User | None:
    """Make the sandbox, with the link ``latest`` beside it, and fetch what the command asks for.

    Parameters
    ----------
    launch
        The task.
    cache
        Folder of what is fetched once.

    Raises
    ------
    SandboxError
        If there is no place for it, or no such user.
    ContainerLaunchError
        If something could not be fetched; the sandbox' stderr tells what.
    """
    user = _make(launch)
    for name in ("stdout", "stderr"):
        open_log(launch.sandbox, name, user).close()
    for uri in launch.command.get("uris", ()):
        try:
            path = fetch(uri, launch.sandbox, cache)
        except FetchError as exc:
            (launch.sandbox / "stderr").write_text(f"{exc}\n")
            raise ContainerLaunchError(
                f"Failed to fetch all URIs for container '{launch.container_id}': "
                f"exited with status 1"
            ) from exc
        if user is not None:
            shutil.chown(path, user.uid, user.gid)
    return user


def open_log(sandbox: Path, name: str, user: User | None) -> IO[bytes]:
    """Open ``stdout`` or ``stderr`` for appending, never through a link that a task has laid."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    handle = os.open(sandbox / name, flags, 0o644)
    if user is not None:
        os.fchown(handle, user.uid, user.gid)
    return os.fdopen(handle, "ab", buffering=0)


def other_user(name: str) -> User | None:
    """Return whom to become; without root's rights everything runs as the cluster's own user."""
    if not name:
        return None
    entry = pwd.getpwnam(name)
    if os.geteuid() != 0 or entry.pw_uid == 0:
        return None
    return User(name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def _make(launch: Launch) -> User | None:
    sandbox = launch.sandbox
    try:
        user = other_user(launch.user)
        sandbox.mkdir(parents=True, mode=0o750)
        if user is not None:
            os.chown(sandbox, user.uid, user.gid)
        fresh = sandbox.with_name(f".latest-{launch.container_id}")
        fresh.symlink_to(sandbox.name)
        fresh.replace(sandbox.with_name("latest"))
    except (OSError, KeyError) as exc:
        reason = str(exc)
        if isinstance(exc, KeyError):
            name = launch.user
            reason = f"Failed to chown directory to '{name}': No such user '{name}'"
        raise SandboxError(f"Failed to create executor directory '{sandbox}': {reason}") from exc
    return user
