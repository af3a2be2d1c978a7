"""What one task asks for, as frozen data that checks itself; ``docs/reference/requests.md`` has all of it.

Scalars are in thousandths (:data:`~scheduler.quantities.Millis`); the ``of`` constructors take plain units.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from scheduler.constraints import (
    Apart,
    AtMost,
    Constraint,
    DataAt,
    Together,
    require_distinct,
    require_few,
    require_text,
)
from scheduler.errors import RequestError
from scheduler.quantities import Millis, format_millis, millis
from scheduler.request_rows import TaskRow, WantRow, gpu_row, nic_row, task_row

MAX_CORES: Final = 8192
"""Linux' own limit of logical CPUs (``NR_CPUS``)."""
MAX_PORTS: Final = 1000
MAX_SHARE: Final = 1000
"""The whole of a device or node, in thousandths."""


def _require_amounts(owner: object, *names: str) -> None:
    for name in names:
        if (amount := getattr(owner, name)) < 0:
            raise RequestError(f"{name} is {format_millis(-amount)} below zero")


Row = TypeVar("Row", TaskRow, WantRow)


class _Written(Generic[Row]):
    """Frozen data that has a row of itself ready: no field, since it says nothing that these do not."""

    __slots__ = ("row",)
    __dataclass_fields__: ClassVar[dict[str, Any]]

    row: Row
    """What packing reads."""

    def _write(self, row: Row) -> None:
        object.__setattr__(self, "row", row)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy by making anew: so the row is there again."""
        return partial(type(self), **{f.name: getattr(self, f.name) for f in fields(self)}), ()


@dataclass(frozen=True, slots=True)
class GpuRequest(_Written[WantRow]):
    """A share of one GPU."""

    compute: Millis
    """Fraction of the multiprocessors, in thousandths."""
    mem: Millis
    """Memory in thousandths of MiB."""
    affinity: bool = False
    """Whether the GPU must hang on the NUMA node of the task's cores."""
    name: str | None = None
    """Only GPUs whose advertised name is like this: ``*`` stands for any text, ``?`` for one character."""
    min_capability: tuple[int, int] | None = None
    """Only GPUs of this compute capability or a higher one, as ``(8, 0)``."""
    exclusive: bool = False
    """Whether nobody else gets any of the GPU; `compute` must be all of it then."""

    def __post_init__(self) -> None:
        _require_amounts(self, "compute", "mem")
        if self.compute > MAX_SHARE:
            raise RequestError(
                f"compute is {format_millis(self.compute)}: expected a share of one GPU, 0 to 1; several GPUs"
                " are several requests"
            )
        if self.name is not None:
            require_text("the name of the GPU", self.name)
        if self.min_capability is not None and not all(0 <= n <= 999 for n in self.min_capability):
            raise RequestError(f"compute capability {self.min_capability}: expected e.g. (8, 0)")
        if self.exclusive and self.compute != MAX_SHARE:
            raise RequestError(
                f"an exclusive GPU is asked for with compute 1, not {format_millis(self.compute)}"
            )
        self._write(gpu_row(self))

    @classmethod
    def of(
        cls,
        compute: float,
        mem_mib: float,
        *,
        affinity: bool = False,
        name: str | None = None,
        min_capability: str | None = None,
        exclusive: bool = False,
    ) -> Self:
        """Build from a fraction of one device, MiB, and a compute capability such as ``"8.0"``."""
        capability = None if min_capability is None else _capability(min_capability)
        return cls(millis(compute), millis(mem_mib), affinity, name, capability, exclusive)


def _capability(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})", text)
    if match is None:
        raise RequestError(f"compute capability {text[:40]!r}: expected e.g. '8.0'")
    return int(match[1]), int(match[2])


@dataclass(frozen=True, slots=True)
class NicRequest(_Written[WantRow]):
    """Bandwidth of one interface on a logical network."""

    network: str
    bandwidth_in: Millis
    """Mbit/s in thousandths."""
    bandwidth_out: Millis
    """Mbit/s in thousandths."""
    affinity: bool = False
    """Whether the interface must hang on the NUMA node of the task's cores."""
    ibverbs: bool = False
    """Whether the task goes past the kernel: the interface must have an InfiniBand device, which it gets."""
    sends: tuple[str, ...] = ()
    """Multicast groups that the task sends to through this interface."""
    receives: tuple[str, ...] = ()
    """Multicast groups that it receives; not on an interface without loopback beside an ibverbs sender."""

    def __post_init__(self) -> None:
        require_text("the network", self.network)
        _require_amounts(self, "bandwidth_in", "bandwidth_out")
        for groups in (self.sends, self.receives):
            require_few("multicast groups of one interface", groups, 4096)
            require_distinct("multicast group", groups)
        self._write(nic_row(self))

    @classmethod
    def of(
        cls,
        network: str,
        *,
        in_mbps: float = 0,
        out_mbps: float = 0,
        affinity: bool = False,
        ibverbs: bool = False,
        sends: Iterable[str] = (),
        receives: Iterable[str] = (),
    ) -> Self:
        """Build from Mbit/s."""
        bandwidth = millis(in_mbps), millis(out_mbps)
        return cls(network, *bandwidth, affinity, ibverbs, tuple(sends), tuple(receives))


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A named host directory, and optionally room on it."""

    name: str
    disk: Millis = 0
    """MiB in thousandths; only drawn where the volume advertises a capacity."""

    def __post_init__(self) -> None:
        require_text("the volume", self.name)
        _require_amounts(self, "disk")

    @classmethod
    def of(cls, name: str, *, disk_mib: float = 0) -> Self:
        """Build from MiB."""
        return cls(name, millis(disk_mib))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest(_Written[TaskRow]):
    """Everything that one task needs from the one agent it runs on.

    Raises
    ------
    RequestError
        If it contradicts itself, or asks for more items than can be meant.
    """

    cpus: Millis = 0
    """Shared CPU time, in thousandths of a CPU. Pinned cores come on top."""
    mem: Millis = 0
    """Memory, thousandths of MiB; of the NUMA node of the cores where the agent counts it by node."""
    disk: Millis = 0
    """Sandbox disk, thousandths of MiB."""
    cores: tuple[str, ...] = ()
    """Names of the pinned cores, all from one NUMA node; the names become template values."""
    whole_cores: bool = False
    """Whether each core is a whole physical one: its SMT siblings come with it, and nobody else gets them."""
    one_l3: bool = False
    """Whether all cores share one L3 cache."""
    numa_share: Millis = 0
    """Least share of the cores of a NUMA node, in thousandths: those beyond `cores` are held, so that
    nobody else is pinned to them. 1000 is a node for itself."""
    ports: tuple[str, ...] = ()
    """Names of TCP/UDP ports."""
    gpus: tuple[GpuRequest, ...] = ()
    nics: tuple[NicRequest, ...] = ()
    volumes: tuple[VolumeRequest, ...] = ()
    host: str | None = None
    """Only on this agent."""
    subsystem: str | None = None
    """Only on agents that serve this subsystem, or any."""
    constraints: tuple[Constraint, ...] = ()
    """Only on agents of which all of these hold."""
    data: tuple[DataAt, ...] = ()
    """Where its data lie."""
    groups: tuple[str, ...] = ()
    """Groups that the task is in, beside the one of its own name: see :mod:`scheduler.constraints`."""
    together: tuple[Together, ...] = ()
    apart: tuple[Apart, ...] = ()
    at_most: tuple[AtMost, ...] = ()

    def __post_init__(self) -> None:
        _require_amounts(self, "cpus", "mem", "disk", "numa_share")
        if self.numa_share > MAX_SHARE:
            share = format_millis(self.numa_share)
            raise RequestError(f"numa_share is {share}: expected a fraction of one node, 0 to 1")
        if (self.whole_cores or self.one_l3) and not self.cores:
            raise RequestError("it says how its cores are to be, but asks for none")
        for what, name in (("the host", self.host), ("the subsystem", self.subsystem)):
            if name is not None:
                require_text(what, name)
        require_few("cores", self.cores, MAX_CORES)
        require_few("ports", self.ports, MAX_PORTS)
        for what in ("gpus", "nics", "volumes", "constraints", "data", "groups"):
            require_few(what, getattr(self, what))
        for what in ("together", "apart", "at_most"):
            require_few(f"relations '{what}'", getattr(self, what))
        named = {"core": self.cores, "port": self.ports, "group": self.groups}
        named["volume"] = tuple(volume.name for volume in self.volumes)
        for what, names in named.items():
            require_distinct(what, names)
        self._write(task_row(self))

    @classmethod
    def of(
        cls,
        *,
        cpus: float = 0,
        mem_mib: float = 0,
        disk_mib: float = 0,
        cores: int | Iterable[str] = (),
        whole_cores: bool = False,
        one_l3: bool = False,
        numa_share: float = 0,
        ports: Iterable[str] = (),
        gpus: Iterable[GpuRequest] = (),
        nics: Iterable[NicRequest] = (),
        volumes: Iterable[VolumeRequest] = (),
        host: str | None = None,
        subsystem: str | None = None,
        constraints: Iterable[Constraint] = (),
        data: Iterable[DataAt] = (),
        groups: Iterable[str] = (),
        together: Iterable[Together] = (),
        apart: Iterable[Apart] = (),
        at_most: Iterable[AtMost] = (),
    ) -> Self:
        """Build from plain units; `cores` may be a number, the names are then ``0``, ``1``, …."""
        names = map(str, range(cores)) if isinstance(cores, int) else cores
        return cls(
            cpus=millis(cpus),
            mem=millis(mem_mib),
            disk=millis(disk_mib),
            cores=tuple(names),
            whole_cores=whole_cores,
            one_l3=one_l3,
            numa_share=millis(numa_share),
            ports=tuple(ports),
            gpus=tuple(gpus),
            nics=tuple(nics),
            volumes=tuple(volumes),
            host=host,
            subsystem=subsystem,
            constraints=tuple(constraints),
            data=tuple(data),
            groups=tuple(groups),
            together=tuple(together),
            apart=tuple(apart),
            at_most=tuple(at_most),
        )
