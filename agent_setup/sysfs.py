"""A machine as Linux describes it below ``/sys/devices/system``: for machines without hwloc.

The locality of PCI devices is told by ``/sys/bus/pci``, and that of interfaces by
:mod:`agent_setup.interfaces`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from agent_setup.errors import DiscoveryError
from agent_setup.machine import Machine, MemoryNode, pci_address
from scheduler.errors import QuantityError
from scheduler.quantities import Ranges

SYSTEM = Path("/sys/devices/system")
PCI = Path("/sys/bus/pci/devices")
MEMINFO = Path("/proc/meminfo")


def read(system: Path = SYSTEM, *, allowed: Ranges | None = None, pci: Path = PCI) -> Machine:
    """Read processors and memory.

    Parameters
    ----------
    system
        Where the files are.
    allowed
        Logical CPUs that may be used; by default those that this process may run on.
    pci
        Where the PCI devices are.

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
        nodes = {0: MemoryNode(cpus, installed_memory())}
    return Machine(
        nodes=nodes,
        smt=_groups(system, cpus, "topology/thread_siblings_list"),
        l3=_groups(system, cpus, "cache/index3/shared_cpu_list"),
        pci_nodes=dict(_pci_nodes(pci)),
        source=str(system),
    )


def installed_memory(meminfo: Path = MEMINFO) -> int:
    """Return the memory that the kernel has to give, in bytes (``MemTotal``).

    Raises
    ------
    DiscoveryError
        If the file does not say.
    """
    return _memory(meminfo)


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


def _pci_nodes(devices: Path) -> Iterator[tuple[str, int]]:
    for folder in sorted(devices.glob("*:*:*.*")):
        try:
            address = pci_address(folder.name)
            node = (folder / "numa_node").read_text(encoding="ascii").strip()
        except (OSError, ValueError):  # a device that has just gone
            continue
        if re.fullmatch(r"[0-9]{1,5}", node):  # -1 is «unknown»
            yield address, int(node)


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
