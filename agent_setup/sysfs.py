"""A machine as Linux describes it below ``/sys/devices/system``: for machines without hwloc.

Less is told than by hwloc: the locality of devices is not in these files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from agent_setup.errors import DiscoveryError
from agent_setup.machine import Machine, MemoryNode
from scheduler.errors import QuantityError
from scheduler.quantities import Ranges

SYSTEM = Path("/sys/devices/system")


def read(system: Path = SYSTEM, *, allowed: Ranges | None = None) -> Machine:
    """Read processors and memory.

    Parameters
    ----------
    system
        Where the files are.
    allowed
        Logical CPUs that may be used; by default those that this process may run on.

    Raises
    ------
    DiscoveryError
        Naming file, value and rule.
    """
    if allowed is None:
        allowed = Ranges.of_values(os.sched_getaffinity(0))
    cpus = _cpu_list(system / "cpu" / "online") & allowed
    nodes = dict(_nodes(system, cpus))
    if not nodes:  # a kernel without NUMA
        nodes = {0: MemoryNode(cpus, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))}
    return Machine(
        nodes=nodes,
        smt=_groups(system, cpus, "topology/thread_siblings_list"),
        l3=_groups(system, cpus, "cache/index3/shared_cpu_list"),
        source=str(system),
    )


def _cpu_list(path: Path) -> Ranges:
    """Read a list such as ``0-3,8``."""
    try:
        return Ranges.parse(f"[{path.read_text(encoding='ascii').strip()}]")
    except (OSError, UnicodeDecodeError, QuantityError) as exc:
        raise DiscoveryError(f"{path}: not a list of CPUs: {exc}") from exc


def _nodes(system: Path, cpus: Ranges) -> Iterator[tuple[int, MemoryNode]]:
    for folder in sorted((system / "node").glob("node*")):
        if match := re.fullmatch(r"node([0-9]{1,5})", folder.name):
            local = _cpu_list(folder / "cpulist") & cpus
            yield int(match[1]), MemoryNode(local, _memory(folder / "meminfo"))


def _memory(path: Path) -> int:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        raise DiscoveryError(f"{path}: cannot be read: {exc}") from exc
    match = re.search(r"MemTotal:\s+([0-9]{1,15}) kB", text)
    if match is None:
        raise DiscoveryError(f"{path}: has no line MemTotal in kB")
    return int(match[1]) * 1024


def _groups(system: Path, cpus: Ranges, name: str) -> tuple[Ranges, ...]:
    """Return the distinct groups that the CPUs belong to; a CPU without such a file is left out."""
    groups: dict[tuple[tuple[int, int], ...], Ranges] = {}
    for cpu in cpus:
        path = system / "cpu" / f"cpu{cpu}" / name
        if path.exists():
            group = _cpu_list(path) & cpus
            groups[group.intervals] = group
    return tuple(groups.values())
