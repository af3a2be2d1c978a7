"""Commands of checks, which run where their task runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scheduler.embedded.executors import ProbeError
from scheduler.embedded.executors.folder import User
from scheduler.embedded.executors.spawning import program_of


async def run_in_sandbox(
    command: Mapping[str, Any], environment: Mapping[str, str], sandbox: Path, user: User | None
) -> int:
    """Run a command in a sandbox and return its exit status; cancelled, it is killed.

    Parameters
    ----------
    command
        A ``CommandInfo``.
    environment
        That of the task.
    sandbox
        Where.
    user
        As whom; None: as the cluster.

    Raises
    ------
    ProbeError
        If it cannot be executed.
    """
    program, arguments = program_of(command)
    own = dict(environment)
    for variable in command.get("environment", {}).get("variables", ()):
        own[variable["name"]] = variable.get("value", "")
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            executable=shutil.which(program, path=own["PATH"]) or program,
            cwd=sandbox,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **_identity(user),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        raise ProbeError(str(exc)) from exc
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _identity(user: User | None) -> dict[str, Any]:
    """Return what makes a new process somebody else's."""
    if user is None:
        return {}
    groups = os.getgrouplist(user.name, user.gid)
    return {"user": user.uid, "group": user.gid, "extra_groups": groups}
