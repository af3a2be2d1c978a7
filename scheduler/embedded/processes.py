"""Processes as /proc shows them: who is who, who belongs to whom.

A number alone does not identify a process, as numbers come again; number and start time do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_START_TIME = 19
"""Index of the start time among the fields of /proc/PID/stat after the name (proc(5): field 22)."""
_SESSION = 3
"""Likewise of the session (field 6)."""
_STATE = 0
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, for as long as its start time is the same."""

    pid: int
    start_time: int
    """Clock ticks since boot."""
    session: int
    zombie: bool = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process is gone or another one has its number."""
        if (handle := self.open()) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, number)
            os.close(handle)

    def await_end(self, timeout: float) -> None:
        """Block until the process has ended, at most `timeout` seconds."""
        if (handle := self.open()) is not None:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(timeout * 1000)
            os.close(handle)

    def open(self) -> int | None:
        """Return a handle of this very process, to be closed; None when it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return None
        found = look(self.pid)  # after opening: what is found now, the handle is of
        if found is not None and found.start_time == self.start_time:
            return handle
        os.close(handle)
        return None


def look(pid: int) -> Process | None:
    """Return the process of that number, None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything, brackets included
    zombie = fields[_STATE] in ("Z", "X")
    return Process(pid, int(fields[_START_TIME]), int(fields[_SESSION]), zombie)


def everyone() -> Iterator[Process]:
    """Yield every process of the machine that has not ended."""
    for entry in _PROC.iterdir():
        number = entry.name
        if number.isdigit() and (process := look(int(number))) is not None and not process.zombie:
            yield process


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty when it cannot be read."""
    try:
        raw = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in raw.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def kill_all(belongs: Callable[[Process], bool], rounds: int = 10) -> int:
    """Kill every process that `belongs`, and wait until none is left. Blocks; for a worker thread.

    Processes can multiply while they are being killed, hence several rounds.

    Returns
    -------
    int
        How many were found in the first round.
    """
    found = 0
    for _ in range(rounds):
        victims = [p for p in everyone() if p.pid != os.getpid() and belongs(p)]
        if not victims:
            break
        found = found or len(victims)
        for victim in victims:
            victim.signal(signal.SIGKILL)
        for victim in victims:
            victim.await_end(1.0)
    return found


async def ended(process: Process) -> None:
    """Wait until a process has ended; for a child, without taking its exit status."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    handle = process.open()
    if handle is None:
        return

    def readable() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(handle, readable)
    try:
        await done
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def memory(session: int, sandbox: Path) -> int:
    """Return how much memory the processes of a task have resident, bytes. Blocks."""
    total = 0
    for process in everyone():
        own = process.session == session
        if own or environment(process.pid).get("MESOS_SANDBOX") == str(sandbox):
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = int((_PROC / str(process.pid) / "statm").read_text().split()[1])
                total += pages * _PAGE
    return total
