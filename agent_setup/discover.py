"""From a machine to what its agent has to give."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from agent_setup import gpus, hwloc, interfaces, sysfs
from agent_setup.errors import DiscoveryError
from agent_setup.interfaces import Interface
from agent_setup.machine import MIB, Machine
from agent_setup.networks import Locality, match_networks
from agent_setup.settings import Reserved, Settings, VolumeSettings, load
from agent_setup.share import SharedAgent, share_machine
from scheduler.errors import QuantityError, TopologyError
from scheduler.quantities import Ranges, Resources, millis
from scheduler.topology import Gpu, NumaNode, Topology, Volume

__all__ = ["SharedAgent", "Sources", "Survey", "discover", "share_machine", "survey"]

logger = logging.getLogger(__name__)

SYSTEM_MIB: Final = 1024
"""What Mesos keeps of the memory for the system by itself (``Containerizer::resources``)."""
DISK_MIB: Final = 5 * 1024
"""The same, of the disk."""
DISAGREEMENT: Final = 0.1
"""Part of the installed memory by which the nodes' sum may differ without a note: the kernel's own use."""

FindGpus: TypeAlias = Callable[[Mapping[str, int], Sequence[str]], Iterable[Gpu]]
"""Returns GPUs, of NUMA nodes by PCI address and the UUIDs that are left out."""


def nvml_gpus(pci_nodes: Mapping[str, int], exclude: Sequence[str]) -> tuple[Gpu, ...]:
    """Return the GPUs that NVML tells of."""
    return gpus.find_gpus(pci_nodes, exclude=exclude)


def no_gpus(_pci_nodes: Mapping[str, int], _exclude: Sequence[str]) -> tuple[Gpu, ...]:
    """Return the GPUs of a machine without a driver for any: none."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the facts come from."""

    lstopo_xml: Path | None = None
    """What ``lstopo --of xml`` wrote, instead of running it: another machine, perhaps."""
    interfaces: Callable[[], Iterable[Interface]] = interfaces.kernel_interfaces
    gpus: FindGpus = nvml_gpus
    installed_memory: Callable[[], int] = sysfs.installed_memory
    """Bytes. Not asked for a machine in a file, whose nodes are all that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A machine, as its agent shall advertise it."""

    topology: Topology
    host: Resources
    """Mesos' own: cpus, mem, disk, ports."""
    drivers: Mapping[str, str] = field(default_factory=dict)
    """Kernel's driver by name of interface, for people."""
    notes: tuple[str, ...] = ()
    """What people should know: facts that are unknown or look odd."""


class Memory(NamedTuple):
    """Memory of a machine, MiB."""

    given: int
    """What is installed beside processors."""
    reserved: int
    """What of it is kept for the system."""


def survey(settings: Settings, sources: Sources | None = None) -> Survey:
    """Find out what this machine has to give.

    Processors, memory and the locality of devices come from hwloc; where ``lstopo`` is not installed, from
    ``/sys`` (a warning says so).

    Raises
    ------
    DiscoveryError
        If facts are missing, malformed or contradict each other, with the reason.
    """
    sources = sources or Sources()
    machine = _machine(sources.lstopo_xml)
    installed = machine.memory if sources.lstopo_xml else sources.installed_memory()
    memory = _memory(machine, installed, settings.reserved)
    known = tuple(sources.interfaces()) if settings.networks else ()
    try:
        topology = _topology(machine, settings, sources, known, memory)
        return Survey(
            topology=topology,
            host=_host(settings, topology, memory.given - memory.reserved),
            drivers={interface.name: interface.driver for interface in known},
            notes=tuple(_notes(machine, installed, settings, known, topology)),
        )
    except (TopologyError, QuantityError) as exc:
        raise DiscoveryError(f"{machine.source}: {exc}") from exc


def discover(
    *,
    lstopo_xml: Path | None = None,
    networks: Mapping[str, str | Sequence[str]] | None = None,
    speeds: Mapping[str, int] | None = None,
    volumes: Mapping[str, Path] | None = None,
    reserved_cores: Ranges | None = None,
    reserved_mem_mib: int = 0,
    subsystems: Sequence[str] = (),
    kernel_interfaces: Callable[[], Iterable[Interface]] = interfaces.kernel_interfaces,
    gpus: FindGpus = no_gpus,
) -> Topology:
    """Describe this machine: :func:`survey` for callers that need no more than its topology.

    Parameters
    ----------
    lstopo_xml
        What ``lstopo --of xml`` wrote, instead of running it.
    networks
        For each logical network, the interfaces that reach it: names, or address ranges such as
        ``10.100.0.0/16``. Other interfaces are not advertised. A loopback interface is allowed.
    speeds
        Mbit/s by name of interface, over what the kernel says.
    volumes
        Directories by the name that tasks ask for.
    reserved_cores
        Logical CPUs that are kept for the system.
    reserved_mem_mib
        Memory that is kept for the system, taken from each NUMA node in proportion to its size.
    kernel_interfaces, gpus
        Where interfaces and GPUs come from.

    Raises
    ------
    DiscoveryError
        If facts are missing, malformed or contradict each other, with the reason.
    """
    told = {
        "networks": {
            name: where if isinstance(where, str) else list(where)
            for name, where in (networks or {}).items()
        },
        "interfaces": {name: {"speed_mbps": mbps} for name, mbps in (speeds or {}).items()},
        "volumes": {name: {"path": str(path)} for name, path in (volumes or {}).items()},
        "reserved": {"cores": reserved_cores or Ranges(), "mem_mib": reserved_mem_mib},
        "subsystems": tuple(subsystems),
    }
    settings = load(None, [told])
    sources = Sources(lstopo_xml=lstopo_xml, interfaces=kernel_interfaces, gpus=gpus)
    return survey(settings, sources).topology


def _machine(lstopo_xml: Path | None) -> Machine:
    if lstopo_xml is not None:
        return hwloc.parse(hwloc.read_file(lstopo_xml), str(lstopo_xml))
    if shutil.which("lstopo-no-graphics") or shutil.which("lstopo"):
        return hwloc.parse(hwloc.run_lstopo())
    logger.warning(
        "lstopo is not installed (Debian, Ubuntu: apt-get install hwloc-nox); "
        "the machine is read from /sys instead"
    )
    return sysfs.read()


def _topology(
    machine: Machine,
    settings: Settings,
    sources: Sources,
    known: Iterable[Interface],
    memory: Memory,
) -> Topology:
    numa = _usable(machine.numa(), settings.reserved.cores, memory)
    cores = Ranges.of(pair for node in numa for pair in node.cores.intervals)
    pci_nodes = {address: n for address, n in machine.pci_nodes.items() if n < len(numa)}
    found = sources.gpus(pci_nodes, settings.exclude_gpus) if settings.gpus else ()
    return Topology(
        numa=numa,
        smt=_within(machine.smt, cores),
        l3=_within(machine.l3, cores) if machine.several_l3() else (),
        gpus=tuple(_placed(gpu, len(numa)) for gpu in found),
        nics=match_networks(
            known,
            settings.networks,
            Locality(nodes=len(numa), nic_nodes=machine.nic_nodes),
            {name: told.override() for name, told in settings.interfaces.items()},
        ),
        volumes=tuple(_volume(name, told) for name, told in settings.volumes.items()),
        subsystems=settings.subsystems,
        priority=None if settings.priority is None else millis(settings.priority),
        rack=settings.rack,
        island=settings.island,
    )


def _usable(
    nodes: tuple[NumaNode, ...], reserved_cores: Ranges, memory: Memory
) -> tuple[NumaNode, ...]:
    """Take away what is kept for the system."""
    total = max(memory.given, sum(node.mem_mib or 0 for node in nodes))
    cores = Ranges.of(pair for node in nodes for pair in node.cores.intervals)
    if stray := reserved_cores - cores:
        raise DiscoveryError(f"reserved cores {stray} do not exist: the machine has {cores}")
    if reserved_cores == cores:
        raise DiscoveryError(f"reserved cores {reserved_cores}: no core is left for tasks")

    def left(size: int) -> int:
        # rounded up, so that at least as much is kept as was asked for
        return size - -(-memory.reserved * size // max(total, 1))

    return tuple(NumaNode(node.cores - reserved_cores, left(node.mem_mib or 0)) for node in nodes)


def _memory(machine: Machine, installed: int, reserved: Reserved) -> Memory:
    given = (installed - machine.far_memory) // MIB
    kept = min(SYSTEM_MIB, given // 2) if reserved.mem_mib is None else reserved.mem_mib
    if kept > given:
        raise DiscoveryError(f"reserved memory {kept} MiB: the machine has {given} MiB")
    return Memory(given, kept)


def _within(groups: Iterable[Ranges], cores: Ranges) -> tuple[Ranges, ...]:
    return tuple(group & cores for group in groups if group & cores)


def _placed(gpu: Gpu, nodes: int) -> Gpu:
    """On a machine of one node everything hangs on that."""
    if gpu.numa is not None or nodes != 1:
        return gpu
    return replace(gpu, numa=0)


def _volume(name: str, told: VolumeSettings) -> Volume:
    path = Path(told.path)
    if not path.is_dir():
        raise DiscoveryError(f"volume {name}: {path} is not a directory")
    if told.disk_mib is not None and told.disk_mib > (there := _disk_size(path)):
        raise DiscoveryError(
            f"volume {name}: {told.disk_mib} MiB are to be given, its file system has {there}"
        )
    return Volume(name=name, path=str(path.resolve()), numa=told.numa, disk_mib=told.disk_mib)


def _disk_size(path: Path) -> int:
    """Return the size of the file system in which a path is, or would be, in MiB."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    stat = os.statvfs(there)
    return stat.f_blocks * stat.f_frsize // MIB


def _host(settings: Settings, topology: Topology, mem_mib: int) -> Resources:
    """Return Mesos' own resources.

    All are told: an agent that finds the name of one anywhere among its resources (``disk`` in
    ``volume.0.disk``) may not count that one by itself.
    """
    if settings.mem_mib is not None and settings.mem_mib > mem_mib:
        raise DiscoveryError(
            f"mem_mib = {settings.mem_mib}: there are {mem_mib} MiB besides what is reserved"
        )
    disk = settings.disk_mib
    if disk is None:
        size = _disk_size(Path(settings.work_dir))
        disk = size - DISK_MIB if size > 2 * DISK_MIB else size // 2
    scalars = {
        "cpus": len(topology.cores) if settings.cpus is None else settings.cpus,
        "mem": mem_mib if settings.mem_mib is None else settings.mem_mib,
        "disk": disk,
    }
    return Resources({k: 1000 * v for k, v in scalars.items()}, {"ports": settings.ports})


def _notes(
    machine: Machine,
    installed: int,
    settings: Settings,
    known: Iterable[Interface],
    topology: Topology,
) -> Iterable[str]:
    if abs(installed - machine.memory) > DISAGREEMENT * installed:
        yield (
            f"the kernel has {installed // MIB} MiB, its NUMA nodes {machine.memory // MIB} MiB: "
            "mem is the former, numa.N.mem the latter"
        )
    if machine.far_memory:
        yield f"{machine.far_memory // MIB} MiB on nodes without processors are not advertised"
    kernel_speeds = {interface.name: interface.speed_mbps for interface in known}
    for name, told in settings.interfaces.items():
        there = kernel_speeds.get(name)
        if told.speed_mbps is not None and there is not None and told.speed_mbps > there:
            yield f"interface {name}: {told.speed_mbps} Mbit/s are told, its link has {there}"
    for kind, parts in (("GPU", topology.gpus), ("interface", topology.nics)):
        for part in parts:
            if part.numa is None:
                yield f"{kind} {part.name}: its NUMA node is not known, so no task is near it"
