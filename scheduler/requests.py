"""What one task asks for, as frozen data.

Scalars are in thousandths (:data:`~scheduler.quantities.Millis`); the ``of`` constructors take plain units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from scheduler.quantities import Millis, millis


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """A share of one GPU."""

    compute: Millis
    """Fraction of the multiprocessors, in thousandths."""
    mem: Millis
    """Memory in thousandths of MiB."""
    affinity: bool = False
    """Whether the GPU must hang on the NUMA node of the task's cores."""

    @classmethod
    def of(cls, compute: float, mem_mib: float, *, affinity: bool = False) -> Self:
        """Build from a fraction of one device and MiB."""
        return cls(millis(compute), millis(mem_mib), affinity)


@dataclass(frozen=True, slots=True)
class NicRequest:
    """Bandwidth of one interface on a logical network."""

    network: str
    bandwidth_in: Millis
    """Mbit/s in thousandths."""
    bandwidth_out: Millis
    """Mbit/s in thousandths."""
    affinity: bool = False
    """Whether the interface must hang on the NUMA node of the task's cores."""

    @classmethod
    def of(
        cls, network: str, *, in_mbps: float = 0, out_mbps: float = 0, affinity: bool = False
    ) -> Self:
        """Build from Mbit/s."""
        return cls(network, millis(in_mbps), millis(out_mbps), affinity)


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A named host directory, and optionally room on it."""

    name: str
    disk: Millis = 0
    """MiB in thousandths; only drawn where the volume advertises a capacity."""

    @classmethod
    def of(cls, name: str, *, disk_mib: float = 0) -> Self:
        """Build from MiB."""
        return cls(name, millis(disk_mib))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """Everything that one task needs from the one agent it runs on."""

    cpus: Millis = 0
    """Shared CPU time, in thousandths of a CPU. Pinned cores come on top."""
    mem: Millis = 0
    """Memory, thousandths of MiB; of the NUMA node of the cores where the agent counts it by node."""
    disk: Millis = 0
    """Sandbox disk, thousandths of MiB."""
    cores: tuple[str, ...] = ()
    """Names of the pinned cores, all from one NUMA node; the names become template values."""
    ports: tuple[str, ...] = ()
    """Names of TCP/UDP ports."""
    gpus: tuple[GpuRequest, ...] = ()
    nics: tuple[NicRequest, ...] = ()
    volumes: tuple[VolumeRequest, ...] = ()
    host: str | None = None
    """Only on this agent."""
    subsystem: str | None = None
    """Only on agents that serve this subsystem, or any."""

    @classmethod
    def of(
        cls,
        *,
        cpus: float = 0,
        mem_mib: float = 0,
        disk_mib: float = 0,
        cores: int | Iterable[str] = (),
        ports: Iterable[str] = (),
        gpus: Iterable[GpuRequest] = (),
        nics: Iterable[NicRequest] = (),
        volumes: Iterable[VolumeRequest] = (),
        host: str | None = None,
        subsystem: str | None = None,
    ) -> Self:
        """Build from plain units; `cores` may be a number, the names are then ``0``, ``1``, …."""
        names = map(str, range(cores)) if isinstance(cores, int) else cores
        return cls(
            cpus=millis(cpus),
            mem=millis(mem_mib),
            disk=millis(disk_mib),
            cores=tuple(names),
            ports=tuple(ports),
            gpus=tuple(gpus),
            nics=tuple(nics),
            volumes=tuple(volumes),
            host=host,
            subsystem=subsystem,
        )
