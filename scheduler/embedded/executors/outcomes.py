"""How tasks end, in Mesos' words."""

from __future__ import annotations

import signal
from typing import Any

from scheduler.embedded.executors import Outcome

_MIB = 1 << 20


def command_outcome(status: int) -> Outcome:
    """Say how a process ended; a negative status is a signal."""
    if status >= 0:
        return Outcome(status == 0, f"Command exited with status {status}")
    name = signal.strsignal(-status) or f"{-status}"
    return Outcome(False, f"Command terminated with signal {name}")


def memory_outcome(limit: int, peak: int | None, statistics: str = "") -> Outcome:
    """Say that a task was killed because it used more memory than it has.

    Parameters
    ----------
    limit
        Bytes that it may use.
    peak
        Bytes that it did use; None when that is not known.
    statistics
        The kernel's ``memory.stat``.
    """
    used = limit if peak is None else peak
    text = f"Memory limit exceeded: Requested: {limit // _MIB}MB Maximum Used: {used // _MIB}MB"
    if statistics:
        text += f"\n\nMEMORY STATISTICS: \n{statistics}"
    amount: dict[str, Any] = {
        "name": "mem",
        "type": "SCALAR",
        "scalar": {"value": float(used // _MIB)},
    }
    return Outcome(
        False,
        text,
        "REASON_CONTAINER_LIMITATION_MEMORY",
        by_agent=True,
        limitation=(amount,),
    )
