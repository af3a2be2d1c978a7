"""What packing reads of a request, written down when the request is made.

A graph is packed again whenever the offers change, and to look at the fields of hundreds of requests takes
longer than to find places for them. So each request has its numbers ready as bytes, and those of a graph are
put together in one step. A row says what the fields say, and nothing else.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from scheduler.requests import GpuRequest, NicRequest, TaskRequest

LARGEST: Final = 1 << 60
"""Amounts are cut to this, so that a sum of several is a number of 64 bits."""
WANT_NUMBERS: Final = 3
"""Numbers of one request for a device: compute or bandwidth in, memory or bandwidth out, 1 if near the cores.
"""


class Number(enum.IntEnum):
    """The numbers of a task, in order; amounts in thousandths."""

    CPUS = 0
    """Those under pinned cores included."""
    MEM = 1
    DISK = 2
    PORTS = 3
    CORES = 4
    WHOLE_CORES = 5
    NODE_SHARE = 6
    ONE_L3 = 7
    """1, if all its cores share one L3 cache."""
    NEEDS_NODE = 8
    """1, if a NUMA node must be chosen for it: for its cores, or for a device near them."""
    GPUS = 9
    WANTS = 10
    """GPUs and interfaces."""
    VOLUMES = 11
    CHOOSY = 12
    """1, if it asks for a host, a subsystem, facts of the agent, or to be with its data."""


class WantRow(NamedTuple):
    """A request for a device."""

    numbers: bytes
    """WANT_NUMBERS, 64 bits each."""
    service: Hashable
    """The same for all requests that the same devices can serve."""


class TaskRow(NamedTuple):
    """What one task asks for."""

    numbers: bytes
    """Of each :class:`Number` 64 bits."""
    wants: bytes
    """The numbers of its requests for GPUs, then of those for interfaces."""
    services: tuple[Hashable, ...]
    """Of the same."""


_TASK: Final = struct.Struct(f"={len(Number)}q")
_WANT: Final = struct.Struct(f"={WANT_NUMBERS}q")


def gpu_row(gpu: GpuRequest) -> WantRow:
    """Write a request for a GPU down."""
    numbers = _WANT.pack(min(gpu.compute, LARGEST), min(gpu.mem, LARGEST), gpu.affinity)
    return WantRow(numbers, f"GPU {gpu.exclusive} {gpu.min_capability} {gpu.name!r}")


def nic_row(nic: NicRequest) -> WantRow:
    """Write a request for an interface down."""
    amounts = min(nic.bandwidth_in, LARGEST), min(nic.bandwidth_out, LARGEST)
    service: Hashable = f"NIC {nic.ibverbs} {nic.network}"
    if nic.sends or nic.receives:
        service = service, nic.sends, nic.receives
    return WantRow(_WANT.pack(*amounts, nic.affinity), service)


def task_row(task: TaskRequest) -> TaskRow:
    """Write what a task asks for down."""
    rows = [*(gpu.row for gpu in task.gpus), *(nic.row for nic in task.nics)]
    near = any(gpu.affinity for gpu in task.gpus) or any(nic.affinity for nic in task.nics)
    n_cores = len(task.cores)
    numbers = _TASK.pack(
        min(task.cpus + 1000 * n_cores, LARGEST),
        min(task.mem, LARGEST),
        min(task.disk, LARGEST),
        len(task.ports),
        n_cores,
        n_cores if task.whole_cores else 0,
        task.numa_share,
        task.one_l3,
        n_cores > 0 or task.numa_share > 0 or near,
        len(task.gpus),
        len(rows),
        len(task.volumes),
        not (
            task.host is None and task.subsystem is None and not task.constraints and not task.data
        ),
    )
    wanted = b"".join([row.numbers for row in rows])
    return TaskRow(numbers, wanted, tuple([row.service for row in rows]))
